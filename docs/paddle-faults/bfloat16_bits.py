"""A bfloat16 convolution in a graph that oneDNN runs computes float32 and labels the bits bfloat16.

On processors with AVX512-BF16 or AMX only; elsewhere oneDNN may end the process.
"""

import paddle
from paddle.nn import functional


def convolve(images, weight):
    maps = functional.conv2d(images.astype("bfloat16"), weight.astype("bfloat16"))
    return maps.unsqueeze(0).astype("float32").unsqueeze(0)


paddle.seed(0)
images, weight = paddle.randn([4, 32, 16, 16]), paddle.randn([32, 32, 3, 3])
expected = functional.conv2d(images, weight)
paddle.set_flags({"FLAGS_use_onednn": True})
found = paddle.jit.to_static(convolve, full_graph=True)(images, weight)[0, 0]
gap = float((found - expected).abs().max() / expected.abs().max())
print(f"largest difference {gap:.2g} of the largest value (rounding to bfloat16: 0.01)")
raise SystemExit(not gap < 0.05)
