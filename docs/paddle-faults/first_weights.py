"""onednn_placement_pass marks the convolution of a training as one for inference, which keeps its first weights."""

import paddle
from paddle.nn import functional
from paddle.static import InputSpec


def copy(tensor):
    return tensor.squeeze(0).unsqueeze(0)


def convolve(images, weight):
    return functional.conv2d(images, weight).unsqueeze(0)


def compile(function, *shapes):
    specs = [InputSpec(list(shape), "float32", stop_gradient=True) for shape in shapes]
    return paddle.jit.to_static(function, input_spec=specs, full_graph=True)


paddle.seed(0)
paddle.set_flags({"FLAGS_use_onednn": True})
# Until a first graph ran, Paddle does not know oneDNN's operators by name.
compile(copy, [1, 2, 4])(paddle.ones([1, 2, 4]))
images, weight = paddle.randn([4, 8, 16, 16]), paddle.randn([8, 8, 3, 3])
compiled = compile(convolve, images.shape, weight.shape)
program = compiled.get_concrete_program(images, weight)[1].train_program.forward_program
passes = paddle.pir.PassManager(3)
passes.add_pass("onednn_placement_pass", {})
passes.run(program)
gaps = []
for factor in (1.0, -0.5):
    expected, found = functional.conv2d(images, weight * factor), compiled(images, weight * factor)[0]
    gaps.append(float((found - expected).abs().max() / expected.abs().max()))
print(f"largest difference: first weights {gaps[0]:.2g}, second weights {gaps[1]:.2g}")
raise SystemExit(not max(gaps) < 1e-4)
