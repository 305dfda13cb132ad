"""bfloat16: where a training on a CPU may compute convolutions in half the bits, and which of them gain.

Processors with AVX512-BF16 or AMX multiply bfloat16 numbers faster than float32 ones; Paddle's own kernels do not, but
oneDNN does (models/onednn.py). Weights and everything but trained convolutions stay float32.
"""

import math
from collections.abc import Sequence

import paddle

from system import processor

# The release in which the graphs in bfloat16 were found to be right; another one may end the process.
RELEASE = "3.2.2"
# Multiplications, in all and per number that is converted (inputs, outputs and weights), below which conversion and
# calls cost more than the multiplications save (measured on an AMD EPYC with AVX512-BF16, 104 layers of 4 networks).
MIN_PRODUCTS, MIN_PRODUCTS_PER_NUMBER = 50e6, 115


def obstacle() -> str:
    """Returns why this machine cannot compute in bfloat16, with a remedy; "" if it can, as far as one sees."""
    if reason := processor.bfloat16_obstacle():
        return f"{reason}; use amp=none"
    if paddle.__version__ != RELEASE:
        return f"works with paddle {RELEASE}, this is {paddle.__version__}; install that one, or use amp=none"
    return ""


def is_worth_it(weight: Sequence[int], inputs: int, count: int, height: int, width: int) -> bool:
    """Returns whether a convolution gains from bfloat16, by its numbers.

    Args:
        weight: Shape of the weight, without groups.
        inputs: Numbers in the images.
        count: Images.
        height: Of the output.
        width: Of the output.
    """
    weights, positions = math.prod(weight), count * height * width
    products, numbers = positions * weights, inputs + positions * weight[0] + weights
    return products >= max(MIN_PRODUCTS, MIN_PRODUCTS_PER_NUMBER * numbers)
