"""The gradient of a max pool behind a convolution, in a graph that oneDNN runs, is wrong."""

import paddle
from paddle.nn import functional


def network(images, weight):
    maps = functional.relu(functional.conv2d(images.squeeze(0), weight))
    return functional.max_pool2d(maps, 2).unsqueeze(0)


paddle.seed(0)
paddle.set_flags({"FLAGS_use_onednn": True})
images, weight = paddle.randn([1, 4, 8, 16, 16]), paddle.randn([8, 8, 3, 3])
weight.stop_gradient = False
gradients = []
for run in (network, paddle.jit.to_static(network, full_graph=True)):
    gradients.append(paddle.grad((run(images, weight) ** 2).sum(), weight)[0])
gap = float((gradients[1] - gradients[0]).abs().max() / gradients[0].abs().max())
print(f"gradient of the weight: largest difference {gap:.2g} of its largest value (rounding: 1e-6)")
raise SystemExit(gap > 1e-4)
