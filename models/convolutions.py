"""Convolutions: the algorithms that compute one in a training on a CPU, and the choice among them.

Paddle convolves image by image: in the last stages of a network, where maps have a few pixels and kernels millions of
weights, every step reads all weights once per image. Here a batch becomes one matrix product, or oneDNN's.
"""

import functools
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional

from models import onednn
from models.bfloat16 import is_worth_it

Convolve = Callable[[nn.Conv2D, paddle.Tensor], paddle.Tensor]

# Largest map (height x width of the output) for which a matrix product beats Paddle's own convolution: of 1x1 kernels,
# whose inputs need no rearranging; and of all, where there is no oneDNN (2 cores, 13 networks and sizes).
MAX_POSITIONS_1X1, MAX_POSITIONS_ALONE, MAX_POSITIONS_1X1_ALONE = 49, 49, 196
# Timed passes over a layer, after one that is not; and how much less time another algorithm than the rule's must take.
TIMED_PASSES, MIN_GAIN = 3, 0.1


def plain(layer: nn.Conv2D, images: paddle.Tensor) -> paddle.Tensor:
    """Convolves by Paddle's own operator."""
    return functional.conv2d(images, layer.weight, None, layer._stride, layer._padding, 1, layer._groups)


def by_product(layer: nn.Conv2D, images: paddle.Tensor) -> paddle.Tensor:
    """Convolves a batch by one matrix product; the layer has no groups."""
    height, width = output_size(layer, images)
    channels, count = layer.weight.shape[0], images.shape[0]
    product = layer.weight.reshape([channels, -1]) @ _unfold(layer, images)
    return product.reshape([channels, count, height, width]).transpose([1, 0, 2, 3])


def _unfold(layer: nn.Conv2D, images: paddle.Tensor) -> paddle.Tensor:
    """Arranges the inputs of each output position in columns: [C * kernel height * kernel width, N * positions]."""
    kernel, stride, padding = layer._kernel_size, layer._stride, layer._padding
    if kernel == [1, 1] and padding == 0:
        if stride != [1, 1]:
            # Picks every second pixel; a slice would do the same with a gradient that is slow to compute.
            images = functional.max_pool2d(images, kernel_size=1, stride=stride)
        return images.transpose([1, 0, 2, 3]).reshape([images.shape[1], -1])
    columns = functional.unfold(images, kernel, stride, padding)
    return columns.transpose([1, 0, 2]).reshape([columns.shape[1], -1])


def by_onednn(layer: nn.Conv2D, images: paddle.Tensor, dtype: str = "float32") -> paddle.Tensor:
    """Convolves by oneDNN, in float32 or bfloat16."""
    return onednn.convolve(images, layer.weight, layer._stride, layer._padding, layer._groups, dtype)


ALGORITHMS: dict[str, Convolve] = {
    "paddle": plain,
    "product": by_product,
    "onednn": by_onednn,
    "bfloat16": functools.partial(by_onednn, dtype="bfloat16"),
}


def output_size(layer: nn.Conv2D, images: paddle.Tensor) -> list[int]:
    """Returns the height and width of what a convolution makes of images [N, C, H, W]."""
    sides = zip(images.shape[2:], layer._kernel_size, layer._stride, strict=True)
    return [(side + 2 * layer._padding - kernel) // stride + 1 for side, kernel, stride in sides]


class AlgorithmSelector:
    """Convolves each layer by one of ALGORITHMS: the one that was measured for its shape, else the one by rule.

    Args:
        measured: Names of algorithms by `shape_name`.
        bfloat16: Whether trained layers may be computed in bfloat16. Frozen ones, and validation, are float32.
    """

    def __init__(self, measured: Mapping[str, str] | None = None, bfloat16: bool = False):
        self.measured, self.bfloat16 = dict(measured or {}), bfloat16

    def __call__(self, layer: nn.Conv2D, images: paddle.Tensor) -> paddle.Tensor:
        """Convolves images [N, C, H, W] without the bias; call it within `acceleration.speed_up`."""
        return ALGORITHMS[self.algorithm(layer, images)](layer, images)

    def algorithm(self, layer: nn.Conv2D, images: paddle.Tensor) -> str:
        """Returns the name of the algorithm for a layer."""
        rounds = self.bfloat16 and paddle.is_grad_enabled() and not layer.weight.stop_gradient
        sizes = images.shape[0], *output_size(layer, images)
        algorithm = self.measured.get(shape_name(layer, images))
        if not algorithm and rounds and layer._groups == 1 and is_worth_it(layer.weight.shape, images.size, *sizes):
            algorithm = "bfloat16"
        # A run may go on where oneDNN is not what it was.
        if (algorithm == "bfloat16" and not rounds) or (algorithm == "onednn" and onednn.fault("float32")):
            algorithm = None
        return algorithm or _by_rule(layer, *sizes[1:])

    def candidates(self, layer: nn.Conv2D, images: paddle.Tensor) -> list[str]:
        """Returns the algorithms that may be the fastest, that of the rule first; only that where it always is."""
        first = _by_rule(layer, *output_size(layer, images))
        if layer._groups != 1 or onednn.fault("float32"):
            return [first]
        others = ["paddle", "product", "onednn"] if layer._kernel_size == [1, 1] else []
        others += ["bfloat16"] if self.bfloat16 else []
        return [first, *(algorithm for algorithm in others if algorithm != first)]


def _by_rule(layer: nn.Conv2D, height: int, width: int) -> str:
    """The algorithm in float32 that is mostly the fastest; height and width are the output's."""
    alone, is_1x1 = bool(onednn.fault("float32")), layer._kernel_size == [1, 1]
    limit = MAX_POSITIONS_1X1_ALONE if alone else MAX_POSITIONS_1X1
    limit = limit if is_1x1 else MAX_POSITIONS_ALONE * alone
    if layer._groups == 1 and 0 < height * width <= limit:
        return "product"
    return "paddle" if alone or (is_1x1 and layer._groups == 1) else "onednn"


def shape_name(layer: nn.Conv2D, images: paddle.Tensor) -> str:
    """Names what the speed of a layer depends on, such as "64x32x1x1 groups 1 stride 1x1 padding 0 of 28x28"."""
    weight, stride, size = ("x".join(map(str, one)) for one in (layer.weight.shape, layer._stride, images.shape[2:]))
    return f"{weight} groups {layer._groups} stride {stride} padding {layer._padding} of {size}"


@paddle.enable_grad()
def fastest(layer: nn.Conv2D, shape: Sequence[int], algorithms: Sequence[str]) -> str:
    """Measures a layer's output and gradients on images of this shape, the algorithms in turns.

    Returns:
        The first of the algorithms, unless another one takes less time by MIN_GAIN.
    """
    # Not paddle's generator, which goes on as if nothing had been measured.
    pixels = np.random.default_rng(0).standard_normal(shape, np.float32)
    images = paddle.to_tensor(pixels, stop_gradient=False)
    inputs = [images, *([] if layer.weight.stop_gradient else [layer.weight])]
    seconds: dict[str, list[float]] = {algorithm: [] for algorithm in algorithms}
    with onednn.enabled():
        for algorithm in [*algorithms] * (TIMED_PASSES + 1):
            started = time.perf_counter()
            maps = ALGORITHMS[algorithm](layer, images)
            paddle.grad(maps, inputs, maps.detach())
            seconds[algorithm].append(time.perf_counter() - started)
    best = {algorithm: min(times[1:]) for algorithm, times in seconds.items()}
    winner = min(best, key=best.__getitem__)
    return winner if best[winner] < (1 - MIN_GAIN) * best[algorithms[0]] else algorithms[0]
