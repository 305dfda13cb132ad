"""Convolutions over small feature maps, several times faster on a CPU, with the same weights and results.

Paddle convolves picture by picture: for the last stages of a network, where maps have a few pixels and kernels
millions of weights, every step reads all weights once a picture. Here a batch becomes one matrix product.
"""

import paddle
from paddle import nn
from paddle.nn import functional

# Largest map (height x width of the result) for which one product beats a convolution a picture (measured).
MAX_POSITIONS = 49


def speed_up(network: nn.Layer) -> int:
    """Lets the plain convolutions of a network use a matrix product wherever their map is small.

    Weights, their names and the results (to float32 rounding) stay as they are. Only for training on a CPU: exported
    graphs are built from networks without it.

    Returns:
        The number of convolutions concerned.
    """
    found = [layer for layer in network.sublayers(include_self=True) if _is_plain(layer)]
    for layer in found:
        layer.forward = _Forward(layer)
    return len(found)


def _is_plain(layer: nn.Layer) -> bool:
    if type(layer) is not nn.Conv2D or layer._groups != 1 or layer._padding_mode != "zeros":
        return False
    return isinstance(layer._padding, int) and layer._dilation == [1, 1] and layer._data_format == "NCHW"


class _Forward:
    """The forward of one convolution: a product for small maps, paddle's own for the rest."""

    def __init__(self, layer: nn.Conv2D):
        self.layer = layer
        self.plain = layer.forward

    def __call__(self, images: paddle.Tensor) -> paddle.Tensor:
        layer = self.layer
        kernel, stride, padding = layer._kernel_size, layer._stride, layer._padding
        rows, columns = (
            (images.shape[axis + 2] + 2 * padding - kernel[axis]) // stride[axis] + 1 for axis in (0, 1)
        )
        if not 0 < rows * columns <= MAX_POSITIONS:
            return self.plain(images)
        patches = _patches(images, kernel, stride, padding)
        outputs, count = layer.weight.shape[0], images.shape[0]
        product = layer.weight.reshape([outputs, -1]) @ patches
        if layer.bias is not None:
            product = product + layer.bias.unsqueeze(1)
        return product.reshape([outputs, count, rows, columns]).transpose([1, 0, 2, 3])


def _patches(images: paddle.Tensor, kernel: list[int], stride: list[int], padding: int) -> paddle.Tensor:
    """Lays what each output position sees into columns: [C * kernel height * kernel width, N * positions]."""
    if kernel == [1, 1] and padding == 0:
        if stride != [1, 1]:
            images = images[:, :, :: stride[0], :: stride[1]]
        return images.transpose([1, 0, 2, 3]).reshape([images.shape[1], -1])
    columns = functional.unfold(images, kernel, stride, padding)
    return columns.transpose([1, 0, 2]).reshape([columns.shape[1], -1])
