"""What oneDNN itself computed is lost when it leaves a compiled graph."""

import paddle
from paddle.nn import functional


def convolve(images, weight):
    return functional.conv2d(images, weight)


paddle.seed(0)
paddle.set_flags({"FLAGS_use_onednn": True})
images, weight = paddle.randn([4, 8, 16, 16]), paddle.randn([8, 8, 3, 3])
weight.stop_gradient = False
expected = paddle.grad((convolve(images, weight) ** 2).sum(), weight)[0]
compiled = paddle.jit.to_static(convolve, full_graph=True)
try:
    found = paddle.grad((compiled(images, weight) ** 2).sum(), weight)[0]
    gap = float((found - expected).abs().max() / expected.abs().max())
    print(f"gradient of the weight: largest difference {gap:.2g} of its largest value")
except Exception as error:
    gap = 1.0
    print(f"raises {type(error).__name__}: {str(error).strip().splitlines()[-1]}")
raise SystemExit(not gap < 1e-4)
