"""Layers that are several times faster on a CPU, with the same weights and results.

Paddle convolves image by image: for the last stages of a network, where maps have a few pixels and kernels
millions of weights, every step reads all weights once an image. Here a batch becomes one matrix product. Larger maps
and grouped kernels go to oneDNN, which paddle brings along but uses in compiled graphs only. And paddle's bias, ReLU
and max pooling cost as much as a small convolution itself; it has other operators that give the same numbers sooner.
"""

import collections
import contextlib
import functools
import math
from collections.abc import Callable, Iterator

import paddle
from paddle import nn
from paddle.nn import functional
from paddle.static import InputSpec

from models.networks import Classifier, first

# Lets the graphs that paddle compiles be computed by oneDNN.
ONEDNN = "FLAGS_use_onednn"
# Largest map (height x width of the result) for which one product beats oneDNN's convolution, and for 1x1 kernels,
# which have nothing to lay out, paddle's own (measured on 2 cores, 13 networks and sizes).
MAX_POSITIONS, MAX_POSITIONS_1X1 = 16, 49
# Without oneDNN, paddle's own convolution is all there is to beat.
MAX_POSITIONS_ALONE, MAX_POSITIONS_1X1_ALONE = 49, 196
# So few input channels and weights a kernel cost oneDNN more than they gain.
FEW_CHANNELS, FEW_WEIGHTS = 3, 9


@contextlib.contextmanager
def speed_up(network: nn.Layer) -> Iterator[int]:
    """Gives a network's convolutions, ReLUs and max pools a faster forward, within the `with` block.

    Weights, their names and the results (to float32 rounding) stay as they are. Only for training on a CPU: graphs
    are exported from a network without it. Whatever else is compiled within the block is run by oneDNN too, which
    answers wrongly for some networks.

    Yields:
        The number of layers concerned.
    """
    flag = paddle.get_flags(ONEDNN)
    forwards = _faster_forwards(network)
    for layer, forward in forwards:
        layer.forward = forward
    try:
        if _has_onednn():
            paddle.set_flags({ONEDNN: True})
        yield len(forwards)
    finally:
        paddle.set_flags(flag)
        for layer, _ in forwards:
            # The class's own is seen again.
            del layer.forward


def _faster_forwards(network: nn.Layer) -> list[tuple[nn.Layer, Callable[..., paddle.Tensor]]]:
    layers = network.sublayers(include_self=True)
    faster = {id(layer): made for layer in layers if (made := _faster(layer)) is not None}
    uses = collections.Counter(id(child) for layer in layers for child in layer._sub_layers.values())
    for layer in layers:
        if isinstance(layer, nn.Sequential):
            _pool_early(list(layer), faster, uses)
    if isinstance(network, Classifier):
        faster[id(network)] = _normalise_fast(network)
    return [(layer, faster[id(layer)]) for layer in layers if id(layer) in faster]


def _faster(layer: nn.Layer) -> "Callable[[paddle.Tensor], paddle.Tensor] | None":
    """The faster forward of a layer; None where there is none."""
    if type(layer) is nn.Conv2D and _is_plain(layer):
        return _Convolution(layer)
    if type(layer) is nn.MaxPool2D and layer.data_format == "NCHW" and not (layer.ceil_mode or layer.return_mask):
        return functools.partial(_max_pool, layer)
    return _Relu() if type(layer) is nn.ReLU else None


def _pool_early(layers: list[nn.Layer], faster: dict[int, Callable], uses: dict[int, int]) -> None:
    """Lets max pools that follow a ReLU, or a convolution and a ReLU, work before bias and ReLU.

    The largest of several numbers stays the largest when a bias is added or negative ones become zero, so results and
    gradients are the same, and bias and ReLU have a quarter of the numbers to work on.
    """
    for index, layer in enumerate(layers):
        before = [(faster.get(id(other)), uses[id(other)]) for other in layers[max(0, index - 2) : index]]
        if type(layer) is not nn.MaxPool2D or id(layer) not in faster or not before or type(before[-1][0]) is not _Relu:
            continue
        host, host_uses = before[0] if type(before[0][0]) is _Convolution else before[-1]
        # What also works elsewhere must not pool there.
        if host_uses == uses[id(layer)] == 1:
            host.pool, faster[id(layer)] = faster[id(layer)], _nothing


def _nothing(images: paddle.Tensor) -> paddle.Tensor:
    return images


class _Relu:
    """ReLU as a hard tanh from 0 to infinity, whose gradient takes less than half the time and which hides no NaN."""

    pool: Callable[[paddle.Tensor], paddle.Tensor] = staticmethod(_nothing)

    def __call__(self, images: paddle.Tensor) -> paddle.Tensor:
        return functional.hardtanh(self.pool(images), 0.0, math.inf)


def _max_pool(layer: nn.MaxPool2D, images: paddle.Tensor) -> paddle.Tensor:
    """Max pooling that notes where the largest numbers stood, so that the gradient need not look for them again."""
    pool = functools.partial(functional.max_pool2d, images, layer.ksize, layer.stride, layer.padding)
    if images.stop_gradient or not paddle.is_grad_enabled():
        return pool()
    maps, places = pool(return_mask=True)
    # Where a window holds no number at all (NaN, -inf) the place is -1, and the gradient would be written outside the
    # maps (3.2.2): a training that diverges has to say so, not crash.
    return pool() if places.numpy().min() < 0 else maps


def _normalise_fast(classifier: Classifier) -> Callable[[paddle.Tensor], paddle.Tensor]:
    """The forward of a classifier with mean and std applied by batch norm's kernel."""
    scale, shift = classifier.scale.flatten(), classifier.shift.flatten()
    # Batch norm computes (x - mean) / sqrt(variance), so that x * scale + shift needs these two.
    mean, variance = -shift / scale, 1 / scale**2
    ones, zeros = paddle.ones_like(mean), paddle.zeros_like(mean)

    # paddle.Model counts the arguments after the first, which has to be the network.
    def forward(classifier: Classifier, images: paddle.Tensor) -> paddle.Tensor:
        pixels = functional.batch_norm(images.astype("float32"), mean, variance, ones, zeros, False, epsilon=0.0)
        outputs = classifier.network(pixels)
        return outputs if classifier.training else first(outputs)

    return forward.__get__(classifier)


def _is_plain(layer: nn.Conv2D) -> bool:
    return (
        layer._padding_mode == "zeros"
        and isinstance(layer._padding, int)
        and layer._dilation == [1, 1]
        and layer._data_format == "NCHW"
    )


class _Convolution:
    """The forward of one convolution: a product for small maps, oneDNN or paddle's own for the rest.

    Attributes:
        pool: What happens to the maps before the bias is added.
    """

    pool: Callable[[paddle.Tensor], paddle.Tensor] = staticmethod(_nothing)

    def __init__(self, layer: nn.Conv2D):
        self.layer = layer
        if layer.bias is not None:
            self.zeros, self.ones = paddle.zeros_like(layer.bias), paddle.ones_like(layer.bias)

    def __call__(self, images: paddle.Tensor) -> paddle.Tensor:
        layer = self.layer
        maps = self.pool(
            _convolve(images, layer.weight, layer._kernel_size, layer._stride, layer._padding, layer._groups)
        )
        return maps if layer.bias is None else _AddBias.apply(maps, layer.bias, self.zeros, self.ones)


def _convolve(
    images: paddle.Tensor, weight: paddle.Tensor, kernel: list[int], stride: list[int], padding: int, groups: int
) -> paddle.Tensor:
    rows, columns = ((images.shape[axis + 2] + 2 * padding - kernel[axis]) // stride[axis] + 1 for axis in (0, 1))
    dot, compiled = kernel == [1, 1], _onednn_works()
    most = (MAX_POSITIONS, MAX_POSITIONS_1X1) if compiled else (MAX_POSITIONS_ALONE, MAX_POSITIONS_1X1_ALONE)
    if groups == 1 and 0 < rows * columns <= most[dot]:
        return _product(images, weight, kernel, stride, padding, rows, columns)
    few = weight.shape[1] <= FEW_CHANNELS and kernel[0] * kernel[1] <= FEW_WEIGHTS
    if not compiled or (groups == 1 and (dot or few)):
        return functional.conv2d(images, weight, None, stride, padding, 1, groups)
    return _compiled(tuple(weight.shape), tuple(stride), padding, groups)(images, weight)


@functools.cache
def _compiled(
    shape: tuple[int, ...], stride: tuple[int, int], padding: int, groups: int
) -> Callable[[paddle.Tensor, paddle.Tensor], paddle.Tensor]:
    """A convolution by oneDNN, compiled on its own for weights of this shape.

    Only convolutions: in larger compiled graphs oneDNN's pooling and batch norm were seen to return wrong gradients
    and statistics (paddle 3.2.2).
    """

    # Paddle loses what a compiled graph returns, gradients too, where oneDNN itself computed it; so the first and the
    # last operators are ones that paddle computes.
    def convolve(images: paddle.Tensor, weight: paddle.Tensor) -> paddle.Tensor:
        maps = functional.conv2d(images.squeeze(0), weight.squeeze(0), None, stride, padding, 1, groups)
        return maps.unsqueeze(0)

    spec = [InputSpec([1, None, shape[1] * groups, None, None]), InputSpec([1, *shape])]
    run = paddle.jit.to_static(convolve, input_spec=spec, full_graph=True)
    return lambda images, weight: run(images.unsqueeze(0), weight.unsqueeze(0)).squeeze(0)


def _has_onednn() -> bool:
    return paddle.base.core.is_compiled_with_onednn()


@functools.cache
def _onednn_works() -> bool:
    """Tells whether a convolution that oneDNN computes, within `speed_up`, answers and learns right."""
    if not _has_onednn():
        return False
    expected = _try(functools.partial(functional.conv2d, padding=1))
    try:
        found = _try(_compiled((6, 8, 3, 3), (1, 1), 1, 1))
    except Exception:
        # Whatever another paddle may say here: without oneDNN all works as well, only slower.
        return False
    return all(bool(paddle.allclose(one, other, 1e-4, 1e-4)) for one, other in zip(found, expected, strict=True))


# The first that needs it may be a validation, which asks for no gradients.
@paddle.enable_grad()
def _try(convolve: Callable[[paddle.Tensor, paddle.Tensor], paddle.Tensor]) -> list[paddle.Tensor]:
    """What a 3x3 convolution of 8 maps into 6 answers, and both gradients."""
    shapes = ([2, 8, 5, 4], [6, 8, 3, 3])
    inputs = [paddle.arange(math.prod(shape), dtype="float32").sin().reshape(shape) for shape in shapes]
    for tensor in inputs:
        tensor.stop_gradient = False
    maps = convolve(*inputs)
    return [maps, *paddle.grad((maps * maps).sum(), inputs)]


def _product(
    images: paddle.Tensor,
    weight: paddle.Tensor,
    kernel: list[int],
    stride: list[int],
    padding: int,
    rows: int,
    columns: int,
) -> paddle.Tensor:
    outputs, count = weight.shape[0], images.shape[0]
    product = weight.reshape([outputs, -1]) @ _patches(images, kernel, stride, padding)
    return product.reshape([outputs, count, rows, columns]).transpose([1, 0, 2, 3])


def _patches(images: paddle.Tensor, kernel: list[int], stride: list[int], padding: int) -> paddle.Tensor:
    """Lays what each output position sees into columns: [C * kernel height * kernel width, N * positions]."""
    if kernel == [1, 1] and padding == 0:
        if stride != [1, 1]:
            # Picks every second pixel; a slice would do the same with a gradient that is slow to compute.
            images = functional.max_pool2d(images, kernel_size=1, stride=stride)
        return images.transpose([1, 0, 2, 3]).reshape([images.shape[1], -1])
    columns = functional.unfold(images, kernel, stride, padding)
    return columns.transpose([1, 0, 2]).reshape([columns.shape[1], -1])


class _AddBias(paddle.autograd.PyLayer):
    """Adds a bias [C] to maps [N, C, H, W] by the kernel of batch norm, whose mean 0 and variance 1 change nothing."""

    @staticmethod
    def forward(context, maps, bias, zeros, ones):
        """Returns maps + bias."""
        context.channels = bias.shape[0]
        return functional.batch_norm(maps, zeros, ones, ones, bias, training=False, epsilon=0.0)

    @staticmethod
    def backward(context, gradient):
        """Returns the gradients of maps and bias; the constants have none."""
        count, channels, height, width = gradient.shape
        rows = gradient.reshape([count * channels, height * width]) @ paddle.ones([height * width, 1])
        return gradient, rows.reshape([count, channels]).sum(axis=0), None, None
