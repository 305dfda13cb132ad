"""Convolutions that are several times faster on a CPU, with the same weights and results.

Paddle convolves picture by picture: for the last stages of a network, where maps have a few pixels and kernels
millions of weights, every step reads all weights once a picture. Here a batch becomes one matrix product. And paddle
adds a bias by a general broadcast, which costs as much as a small convolution itself; batch norm's kernel does not.
"""

from collections.abc import Callable

import paddle
from paddle import nn
from paddle.nn import functional

from networks import Classifier, first

# Largest map (height x width of the result) for which one product beats a convolution a picture (measured on 2 cores).
# Larger kernels first have to lay out what each position sees, which costs more the larger the map.
MAX_POSITIONS, MAX_POSITIONS_1X1 = 49, 196


def speed_up(network: nn.Layer) -> int:
    """Lets the plain convolutions of a network use a matrix product wherever their map is small, and add biases fast.

    Weights, their names and the results (to float32 rounding) stay as they are. Only for training on a CPU: exported
    graphs are built from networks without it.

    Returns:
        The number of convolutions concerned.
    """
    if isinstance(network, Classifier):
        network.forward = _normalise_fast(network)
    found = [layer for layer in network.sublayers(include_self=True) if _is_plain(layer)]
    for layer in found:
        layer.forward = _Forward(layer)
    return len(found)


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


def _is_plain(layer: nn.Layer) -> bool:
    if type(layer) is not nn.Conv2D or layer._padding_mode != "zeros":
        return False
    return isinstance(layer._padding, int) and layer._dilation == [1, 1] and layer._data_format == "NCHW"


class _Forward:
    """The forward of one convolution: a product for small maps, paddle's own for the rest."""

    def __init__(self, layer: nn.Conv2D):
        self.layer = layer
        if layer.bias is not None:
            self.zeros, self.ones = paddle.zeros_like(layer.bias), paddle.ones_like(layer.bias)

    def __call__(self, images: paddle.Tensor) -> paddle.Tensor:
        layer = self.layer
        kernel, stride, padding = layer._kernel_size, layer._stride, layer._padding
        rows, columns = ((images.shape[axis + 2] + 2 * padding - kernel[axis]) // stride[axis] + 1 for axis in (0, 1))
        most = MAX_POSITIONS_1X1 if kernel == [1, 1] else MAX_POSITIONS
        if layer._groups == 1 and 0 < rows * columns <= most:
            maps = _product(images, layer.weight, kernel, stride, padding, rows, columns)
        else:
            maps = functional.conv2d(images, layer.weight, None, stride, padding, layer._dilation, layer._groups)
        return maps if layer.bias is None else _AddBias.apply(maps, layer.bias, self.zeros, self.ones)


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
