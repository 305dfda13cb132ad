"""Acceleration: faster layers for training on a CPU, with the same weights and results.

Paddle convolves image by image: in the last stages of a network, where maps have a few pixels and kernels millions of
weights, every step reads all weights once per image. Here a batch becomes one matrix product. Larger maps and grouped
kernels are computed by oneDNN, which Paddle includes but uses in compiled graphs only. Paddle's bias, ReLU and max
pooling take as long as a small convolution; other operators of Paddle compute the same numbers faster.
"""

import collections
import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import paddle
from paddle import nn
from paddle.nn import functional
from paddle.static import InputSpec

from models.classifier import Classifier, main_output

Forward = Callable[[paddle.Tensor], paddle.Tensor]
Convolve = Callable[[nn.Conv2D, paddle.Tensor], paddle.Tensor]

# Lets oneDNN run the graphs that Paddle compiles.
ONEDNN = "FLAGS_use_onednn"
# Largest map (height x width of the output) for which a matrix product beats oneDNN's convolution, and for 1x1 kernels,
# whose inputs need no rearranging, Paddle's own (measured on 2 cores, 13 networks and sizes).
MAX_POSITIONS, MAX_POSITIONS_1X1 = 16, 49
# The same without oneDNN, against Paddle's own convolution.
MAX_POSITIONS_ALONE, MAX_POSITIONS_1X1_ALONE = 49, 196
# With so few input channels and weights per kernel, calling oneDNN costs more than it gains.
FEW_CHANNELS, FEW_WEIGHTS = 3, 9


@contextlib.contextmanager
def speed_up(network: nn.Layer, convolution: Convolve | None = None) -> Iterator[int]:
    """Replaces the forward of a network's convolutions, ReLUs and max pools by a faster one, within the `with` block.

    Weights, their names and the results (to float32 rounding) stay as they are. Only for training on a CPU: export
    networks outside the block. Whatever else is compiled within it is run by oneDNN too, which computes wrong results
    for some networks.

    Args:
        convolution: Computes a layer's convolution without the bias; by default `convolve`.

    Yields:
        The number of layers replaced.
    """
    flag = paddle.get_flags(ONEDNN)
    forwards = _faster_forwards(network, convolution or convolve)
    for layer, forward in forwards:
        layer.forward = forward
    try:
        if paddle.base.core.is_compiled_with_onednn():
            paddle.set_flags({ONEDNN: True})
        yield len(forwards)
    finally:
        paddle.set_flags(flag)
        for layer, _ in forwards:
            # Uncovers the method of the class.
            del layer.forward


def _faster_forwards(network: nn.Layer, convolution: Convolve) -> list[tuple[nn.Layer, Forward]]:
    layers = network.sublayers(include_self=True)
    faster = {id(layer): forward for layer in layers if (forward := _faster_forward(layer, convolution))}
    uses = collections.Counter(id(child) for layer in layers for child in layer._sub_layers.values())
    for layer in layers:
        if isinstance(layer, nn.Sequential):
            _pool_early(list(layer), faster, uses)
    if isinstance(network, Classifier):
        faster[id(network)] = _normalise_faster(network)
    return [(layer, faster[id(layer)]) for layer in layers if id(layer) in faster]


def _faster_forward(layer: nn.Layer, convolution: Convolve) -> Forward | None:
    """Returns the faster forward of a layer; None if there is none."""
    if type(layer) is nn.Conv2D and _is_plain(layer):
        return _Convolution(layer, convolution)
    if type(layer) is nn.MaxPool2D and layer.data_format == "NCHW" and not (layer.ceil_mode or layer.return_mask):
        return functools.partial(_max_pool, layer)
    if isinstance(layer, nn.BatchNorm) and layer._act:
        return _normalise_then_activate(layer)
    return _ReLU() if type(layer) is nn.ReLU else None


def _normalise_then_activate(layer: nn.BatchNorm) -> Forward:
    """Batch norm with an activation of its own, by two operators: with oneDNN's flag its one fails in the gradient."""

    def forward(maps: paddle.Tensor) -> paddle.Tensor:
        name, layer._act = layer._act, None
        try:
            normalised = type(layer).forward(layer, maps)
        finally:
            layer._act = name
        return getattr(functional, name)(normalised)

    return forward


def _is_plain(layer: nn.Conv2D) -> bool:
    return (
        layer._padding_mode == "zeros"
        and isinstance(layer._padding, int)
        and layer._dilation == [1, 1]
        and layer._data_format == "NCHW"
    )


def _pool_early(layers: list[nn.Layer], faster: dict[int, Forward], uses: dict[int, int]) -> None:
    """Moves max pools that follow a ReLU, or a convolution and a ReLU, before the ReLU or the bias.

    The largest of several numbers stays the largest when a bias is added or negative ones become zero, so results and
    gradients are the same, and bias and ReLU have a quarter of the numbers to process.

    Args:
        layers: The layers of one Sequential, in order.
        faster: Faster forwards by the id of their layer; changed in place.
        uses: How often the network contains each layer, by id.
    """
    for index, pool in enumerate(layers):
        if type(pool) is not nn.MaxPool2D or id(pool) not in faster or index == 0:
            continue
        relu, first = layers[index - 1], layers[max(0, index - 2)]
        host = first if isinstance(faster.get(id(first)), _Convolution) else relu
        forward = faster.get(id(host))
        follows_relu = isinstance(faster.get(id(relu)), _ReLU)
        # A layer that the network also uses elsewhere must not pool there.
        if follows_relu and isinstance(forward, _Poolable) and uses[id(host)] == uses[id(pool)] == 1:
            forward.pool, faster[id(pool)] = faster[id(pool)], _identity


def _identity(maps: paddle.Tensor) -> paddle.Tensor:
    return maps


def _max_pool(layer: nn.MaxPool2D, maps: paddle.Tensor) -> paddle.Tensor:
    """Max pooling that records the positions of the maxima, so that the gradient need not search for them again."""
    pool = functools.partial(functional.max_pool2d, maps, layer.ksize, layer.stride, layer.padding)
    if maps.stop_gradient or not paddle.is_grad_enabled():
        return pool()
    pooled, positions = pool(return_mask=True)
    # Where a window holds no number at all (NaN, -inf) the position is -1, and the gradient would be written outside
    # the maps (3.2.2): a training that diverges has to report it, not crash.
    return pool() if positions.numpy().min() < 0 else pooled


def _normalise_faster(classifier: Classifier) -> Forward:
    """Returns the forward of a classifier with mean and std applied by the batch norm kernel."""
    scale, shift = classifier.scale.flatten(), classifier.shift.flatten()
    # Batch norm computes (x - mean) / sqrt(variance); these two make it x * scale + shift.
    mean, variance = -shift / scale, 1 / scale**2
    ones, zeros = paddle.ones_like(mean), paddle.zeros_like(mean)

    # A bound method, for paddle.Model counts the arguments after the first.
    def forward(classifier: Classifier, images: paddle.Tensor) -> paddle.Tensor:
        pixels = functional.batch_norm(images.astype("float32"), mean, variance, ones, zeros, False, epsilon=0.0)
        outputs = classifier.network(pixels)
        return outputs if classifier.training else main_output(outputs)

    return forward.__get__(classifier)


class _Poolable:
    """A faster forward that may do the work of the max pool behind it first.

    Attributes:
        pool: The max pool; the identity where there is none.
    """

    def __init__(self) -> None:
        self.pool: Forward = _identity


class _ReLU(_Poolable):
    """ReLU as a hard tanh from 0 to infinity, whose gradient takes less than half the time and which hides no NaN."""

    def __call__(self, maps: paddle.Tensor) -> paddle.Tensor:
        return functional.hardtanh(self.pool(maps), 0.0, math.inf)


class _Convolution(_Poolable):
    """The forward of one convolution layer."""

    def __init__(self, layer: nn.Conv2D, convolution: Convolve):
        super().__init__()
        self.layer, self.convolution = layer, convolution
        if layer.bias is not None:
            self.zeros, self.ones = paddle.zeros_like(layer.bias), paddle.ones_like(layer.bias)

    def __call__(self, images: paddle.Tensor) -> paddle.Tensor:
        maps, bias = self.pool(self.convolution(self.layer, images)), self.layer.bias
        return maps if bias is None else _AddBias.apply(maps, bias, self.zeros, self.ones)


def output_size(layer: nn.Conv2D, images: paddle.Tensor) -> list[int]:
    """Returns the height and width of what a convolution makes of images [N, C, H, W]."""
    sides = zip(images.shape[2:], layer._kernel_size, layer._stride, strict=True)
    return [(side + 2 * layer._padding - kernel) // stride + 1 for side, kernel, stride in sides]


def convolve(layer: nn.Conv2D, images: paddle.Tensor) -> paddle.Tensor:
    """Convolves images [N, C, H, W] without the bias, in the way that is fastest for this size."""
    weight, kernel, stride = layer.weight, layer._kernel_size, layer._stride
    padding, groups = layer._padding, layer._groups
    height, width = output_size(layer, images)
    is_1x1, onednn = kernel == [1, 1], _onednn_works()
    limits = (MAX_POSITIONS, MAX_POSITIONS_1X1) if onednn else (MAX_POSITIONS_ALONE, MAX_POSITIONS_1X1_ALONE)
    if groups == 1 and 0 < height * width <= limits[is_1x1]:
        return _matrix_product(layer, images, height, width)
    is_small = weight.shape[1] <= FEW_CHANNELS and kernel[0] * kernel[1] <= FEW_WEIGHTS
    if not onednn or (groups == 1 and (is_1x1 or is_small)):
        return functional.conv2d(images, weight, None, stride, padding, 1, groups)
    return _compiled(tuple(weight.shape), tuple(stride), padding, groups)(images, weight)


def _matrix_product(layer: nn.Conv2D, images: paddle.Tensor, height: int, width: int) -> paddle.Tensor:
    """Convolves a batch by one matrix product; height and width are the output's."""
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


@functools.cache
def _compiled(
    shape: tuple[int, ...], stride: tuple[int, int], padding: int, groups: int
) -> Callable[[paddle.Tensor, paddle.Tensor], paddle.Tensor]:
    """Compiles a single convolution with weights of this shape, for oneDNN.

    Only convolutions: in larger compiled graphs oneDNN's pooling and batch norm were seen to return wrong gradients
    and statistics (paddle 3.2.2).
    """

    # Paddle loses what a compiled graph returns, gradients too, where oneDNN itself computed it; so the first and the
    # last operators are ones that Paddle computes.
    def convolve(images: paddle.Tensor, weight: paddle.Tensor) -> paddle.Tensor:
        maps = functional.conv2d(images.squeeze(0), weight.squeeze(0), None, stride, padding, 1, groups)
        return maps.unsqueeze(0)

    spec = [InputSpec([1, None, shape[1] * groups, None, None]), InputSpec([1, *shape])]
    run = paddle.jit.to_static(convolve, input_spec=spec, full_graph=True)
    return lambda images, weight: run(images.unsqueeze(0), weight.unsqueeze(0)).squeeze(0)


@functools.cache
def _onednn_works() -> bool:
    """Returns True if oneDNN computes a convolution and its gradients correctly; call it within `speed_up`."""
    if not paddle.base.core.is_compiled_with_onednn():
        return False
    expected = _output_and_gradients(functools.partial(functional.conv2d, padding=1))
    try:
        found = _output_and_gradients(_compiled((6, 8, 3, 3), (1, 1), 1, 1))
    except Exception:
        # Whatever another release of Paddle may raise here: without oneDNN everything works too, only slower.
        return False
    return all(bool(paddle.allclose(one, other, 1e-4, 1e-4)) for one, other in zip(found, expected, strict=True))


# The first caller may be a validation, which computes no gradients.
@paddle.enable_grad()
def _output_and_gradients(convolve: Callable[[paddle.Tensor, paddle.Tensor], paddle.Tensor]) -> list[paddle.Tensor]:
    """Runs a 3x3 convolution of 8 maps into 6 forward and backward: its output and both gradients."""
    shapes = ([2, 8, 5, 4], [6, 8, 3, 3])
    inputs = [paddle.arange(math.prod(shape), dtype="float32").sin().reshape(shape) for shape in shapes]
    for tensor in inputs:
        tensor.stop_gradient = False
    maps = convolve(*inputs)
    return [maps, *paddle.grad((maps * maps).sum(), inputs)]


class _AddBias(paddle.autograd.PyLayer):
    """Adds a bias [C] to maps [N, C, H, W] by the batch norm kernel, whose mean 0 and variance 1 change nothing."""

    @staticmethod
    def forward(
        context: Any, maps: paddle.Tensor, bias: paddle.Tensor, zeros: paddle.Tensor, ones: paddle.Tensor
    ) -> paddle.Tensor:
        """Returns maps + bias."""
        return functional.batch_norm(maps, zeros, ones, ones, bias, training=False, epsilon=0.0)

    @staticmethod
    def backward(context: Any, gradient: paddle.Tensor) -> tuple[paddle.Tensor | None, ...]:
        """Returns the gradients of maps and bias; the constants have none."""
        count, channels, height, width = gradient.shape
        rows = gradient.reshape([count * channels, height * width]) @ paddle.ones([height * width, 1])
        return gradient, rows.reshape([count, channels]).sum(axis=0), None, None
