"""max_pool2d with return_mask gives -1 for a window of NaN, and its gradient is then written outside the maps."""

import paddle
from paddle.nn import functional

maps = paddle.to_tensor([[[[float("nan")] * 2] * 2]], stop_gradient=False)
_, positions = functional.max_pool2d(maps, 2, return_mask=True)
print(f"position of the largest of four NaN: {positions.item()}; the maps have positions 0 to 3")
raise SystemExit(positions.item() < 0)
