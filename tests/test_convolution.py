"""The faster convolutions answer and learn like paddle's own."""

import numpy as np
import paddle
import pytest
from paddle import nn

import convolution


def gap(one: paddle.Tensor, other: paddle.Tensor) -> float:
    """Largest difference, as a share of the largest value."""
    one, other = one.numpy().astype(np.float64), other.numpy().astype(np.float64)
    assert one.shape == other.shape
    return float(np.abs(one - other).max() / max(np.abs(other).max(), 1e-12))


def passes(layer: nn.Layer, images: np.ndarray) -> tuple[paddle.Tensor, paddle.Tensor, dict[str, paddle.Tensor]]:
    """Forward and backward: the output, the gradient of the images and those of the weights."""
    inputs = paddle.to_tensor(images, stop_gradient=False)
    outputs = layer(inputs)
    shares = np.random.default_rng(1).standard_normal(outputs.shape).astype("float32")
    (outputs * paddle.to_tensor(shares)).sum().backward()
    gradients = {name: weight.grad.clone() for name, weight in layer.named_parameters() if weight.grad is not None}
    layer.clear_gradients()
    return outputs, inputs.grad, gradients


CONVOLUTIONS = {
    "3x3": {"in_channels": 16, "out_channels": 24, "kernel_size": 3, "padding": 1},
    "3x3 stride 2": {"in_channels": 16, "out_channels": 24, "kernel_size": 3, "stride": 2, "padding": 1},
    "1x1": {"in_channels": 16, "out_channels": 24, "kernel_size": 1},
    "1x1 stride 2": {"in_channels": 16, "out_channels": 24, "kernel_size": 1, "stride": 2, "bias_attr": False},
    "1x1 padded": {"in_channels": 16, "out_channels": 24, "kernel_size": 1, "padding": 1},
    "no padding": {"in_channels": 16, "out_channels": 24, "kernel_size": 3},
    "whole map": {"in_channels": 16, "out_channels": 24, "kernel_size": [5, 7]},
    "oblong": {"in_channels": 16, "out_channels": 24, "kernel_size": [1, 7], "padding": [0, 3]},
    "oblong stride": {"in_channels": 16, "out_channels": 24, "kernel_size": 3, "stride": [1, 2], "padding": 1},
    "dilated": {"in_channels": 16, "out_channels": 24, "kernel_size": 3, "dilation": 2, "padding": 2},
    "same": {"in_channels": 16, "out_channels": 24, "kernel_size": 3, "padding": "SAME"},
    "groups": {"in_channels": 16, "out_channels": 24, "kernel_size": 3, "groups": 4, "padding": 1},
    "depthwise": {"in_channels": 16, "out_channels": 16, "kernel_size": 3, "groups": 16, "padding": 1},
    "reflected": {"in_channels": 16, "out_channels": 24, "kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
    "biased": {
        "in_channels": 16,
        "out_channels": 24,
        "kernel_size": 3,
        "padding": 1,
        "bias_attr": nn.initializer.Normal(1.0),
    },
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("size", [(5, 7), (20, 18)])
def test_a_convolution_answers_and_learns_as_before(name, size):
    """Guards against strides, paddings or biases that the product forgets, on small maps and on large ones."""
    paddle.seed(0)
    network = nn.Sequential(nn.Conv2D(**CONVOLUTIONS[name]))
    images = np.random.default_rng(0).standard_normal((4, 16, *size)).astype("float32")
    expected, images_gradient, gradients = passes(network, images)
    convolution.speed_up(network)
    got, got_images_gradient, got_gradients = passes(network, images)
    assert gap(got, expected) < 1e-5 and gap(got_images_gradient, images_gradient) < 1e-5
    assert gradients.keys() == got_gradients.keys() and gradients
    assert all(gap(got_gradients[key], gradients[key]) < 1e-5 for key in gradients)


def test_a_network_keeps_names_results_and_gradients():
    """Guards against checkpoints that only a sped-up network can read, and against answers that move."""
    paddle.seed(0)
    network = paddle.vision.models.resnet18(num_classes=3)
    network.eval()
    images = np.random.default_rng(0).standard_normal((4, 3, 48, 48)).astype("float32")
    names = list(network.state_dict())
    before = {key: value.numpy() for key, value in network.state_dict().items()}
    expected, _, gradients = passes(network, images)
    assert convolution.speed_up(network) > 0
    got, _, got_gradients = passes(network, images)
    assert list(network.state_dict()) == names
    assert all((value.numpy() == before[key]).all() for key, value in network.state_dict().items())
    assert gap(got, expected) < 1e-5
    # Rounding adds up on the way back through eighteen layers.
    assert all(gap(got_gradients[key], gradients[key]) < 1e-4 for key in gradients)
