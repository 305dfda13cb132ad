"""ReLU hides that a training has diverged: it turns NaN into 0."""

import paddle
from paddle.nn import functional

found = functional.relu(paddle.to_tensor([float("nan")]))
print(f"relu(NaN) = {found.item()}")
raise SystemExit(found.item() == 0)
