"""A convolution with data_format=NHWC, in a graph that oneDNN runs, fails in the kernel."""

import paddle
from paddle.nn import functional


def convolve(images, weight):
    return functional.conv2d(images.squeeze(0), weight.squeeze(0), data_format="NHWC").unsqueeze(0)


paddle.seed(0)
images, weight = paddle.randn([1, 4, 16, 16, 8]), paddle.randn([1, 12, 8, 3, 3])
expected = functional.conv2d(images[0].transpose([0, 3, 1, 2]), weight[0]).transpose([0, 2, 3, 1])
paddle.set_flags({"FLAGS_use_onednn": True})
try:
    found = paddle.jit.to_static(convolve, full_graph=True)(images, weight)[0]
    gap = float((found - expected).abs().max() / expected.abs().max())
    print(f"largest difference {gap:.2g} of the largest value")
except Exception as error:
    gap = 1.0
    print(f"raises {type(error).__name__}: {str(error).strip().splitlines()[-1]}")
raise SystemExit(not gap < 1e-4)
