"""Acceleration: faster layers for training on a CPU, with the same weights and results.

Convolutions are computed by other algorithms (models/convolutions.py). Paddle's bias, ReLU and max pooling take as long
as a small convolution; other operators of Paddle compute the same numbers faster.
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

from models import onednn
from models.classifier import Classifier, main_output
from models.convolutions import AlgorithmSelector, Convolve

Forward = Callable[[paddle.Tensor], paddle.Tensor]


@contextlib.contextmanager
def speed_up(network: nn.Layer, convolution: Convolve | None = None) -> Iterator[int]:
    """Replaces the forward of a network's convolutions, ReLUs and max pools by a faster one, within the `with` block.

    Weights, their names and the results (to float32 rounding) stay as they are. Only for training on a CPU: export
    networks outside the block. Whatever else is compiled within it is run by oneDNN too, which computes wrong results
    for some networks.

    Args:
        convolution: Computes a layer's convolution without the bias; by default with the algorithm of the rule.

    Yields:
        The number of layers replaced.
    """
    forwards = _faster_forwards(network, convolution or AlgorithmSelector())
    for layer, forward in forwards:
        layer.forward = forward
    try:
        with onednn.enabled():
            yield len(forwards)
    finally:
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
