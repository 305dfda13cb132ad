"""The faster layers compute the same outputs and gradients as paddle's own."""

import contextlib

import numpy as np
import paddle
import pytest
from paddle import nn

import config
from models import acceleration, networks, onednn
from models.classifier import Classifier


def gap(one: paddle.Tensor, other: paddle.Tensor) -> float:
    """Returns the largest difference relative to the largest value."""
    one, other = one.numpy().astype(np.float64), other.numpy().astype(np.float64)
    assert one.shape == other.shape
    return float(np.abs(one - other).max() / max(np.abs(other).max(), 1e-12))


def passes(layer: nn.Layer, images: np.ndarray) -> tuple[paddle.Tensor, paddle.Tensor, dict[str, paddle.Tensor]]:
    """Runs forward and backward: the output, the gradient of the images and those of the weights."""
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
def test_a_convolution_has_the_same_output_and_gradients(name, size):
    """Guards against strides, paddings or biases that the product forgets, on small maps and on large ones."""
    paddle.seed(0)
    network = nn.Sequential(nn.Conv2D(**CONVOLUTIONS[name]))
    images = np.random.default_rng(0).standard_normal((4, 16, *size)).astype("float32")
    expected, images_gradient, gradients = passes(network, images)
    with acceleration.speed_up(network):
        got, got_images_gradient, got_gradients = passes(network, images)
    assert gap(got, expected) < 1e-5 and gap(got_images_gradient, images_gradient) < 1e-5
    assert gradients.keys() == got_gradients.keys() and gradients
    assert all(gap(got_gradients[key], gradients[key]) < 1e-5 for key in gradients)


def test_gradients_pass_a_frozen_convolution():
    """Guards against trained layers below a frozen one that learn nothing, or end the training."""
    paddle.seed(0)
    network = nn.Sequential(nn.Conv2D(8, 8, 3), nn.Conv2D(8, 6, 3), nn.Conv2D(6, 4, 1))
    network[1].weight.stop_gradient = True
    images = np.random.default_rng(0).standard_normal((2, 8, 20, 20)).astype("float32")
    _, images_gradient, gradients = passes(network, images)
    with acceleration.speed_up(network):
        _, got_images_gradient, got_gradients = passes(network, images)
    assert gap(got_images_gradient, images_gradient) < 1e-5
    assert gradients.keys() == got_gradients.keys() and "1.weight" not in gradients and "0.weight" in gradients
    assert all(gap(got_gradients[key], gradients[key]) < 1e-5 for key in gradients)


def test_after_the_block_the_layers_are_restored():
    """Guards against a trained network that cannot be exported, and graphs that oneDNN computes wrongly afterwards."""
    network = nn.Sequential(nn.Conv2D(3, 8, 3), nn.ReLU(), nn.MaxPool2D(2))
    with pytest.raises(KeyboardInterrupt), acceleration.speed_up(network):
        assert paddle.get_flags(onednn.FLAG)[onednn.FLAG]
        assert all("forward" in vars(layer) for layer in network)
        raise KeyboardInterrupt
    assert not paddle.get_flags(onednn.FLAG)[onednn.FLAG]
    assert not any("forward" in vars(layer) for layer in network)


def test_a_network_keeps_names_results_and_gradients():
    """Guards against checkpoints that only a sped-up network can read, and against predictions that change."""
    paddle.seed(0)
    network = paddle.vision.models.resnet18(num_classes=3)
    network.eval()
    images = np.random.default_rng(0).standard_normal((4, 3, 48, 48)).astype("float32")
    names = list(network.state_dict())
    before = {key: value.numpy() for key, value in network.state_dict().items()}
    expected, _, gradients = passes(network, images)
    with acceleration.speed_up(network) as count:
        got, _, got_gradients = passes(network, images)
    assert count > 0
    assert list(network.state_dict()) == names
    assert all((value.numpy() == before[key]).all() for key, value in network.state_dict().items())
    assert gap(got, expected) < 1e-5
    # Rounding adds up on the way back through eighteen layers.
    assert all(gap(got_gradients[key], gradients[key]) < 1e-4 for key in gradients)


SEQUENCES = {
    "pooled": lambda: [nn.Conv2D(3, 8, 3), nn.ReLU(), nn.MaxPool2D(2), nn.Conv2D(8, 8, 3), nn.ReLU(), nn.MaxPool2D(2)],
    "overlapping": lambda: [nn.Conv2D(3, 8, 3), nn.ReLU(), nn.MaxPool2D(3, 2, padding=1)],
    "ReLU first": lambda: [nn.ReLU(), nn.MaxPool2D(2), nn.MaxPool2D(2)],
    "pool first": lambda: [nn.MaxPool2D(2), nn.ReLU(), nn.Conv2D(3, 8, 3)],
    "norm between": lambda: [nn.Conv2D(3, 8, 3, bias_attr=False), nn.BatchNorm2D(8), nn.ReLU(), nn.MaxPool2D(2)],
    "no bias": lambda: [nn.Conv2D(3, 8, 3, bias_attr=False), nn.ReLU(), nn.MaxPool2D(2)],
    "rounded up": lambda: [nn.Conv2D(3, 8, 3), nn.ReLU(), nn.MaxPool2D(2, ceil_mode=True)],
}


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize("side", [13, 32])
def test_pooling_before_bias_and_relu_has_the_same_output_and_gradients(name, side):
    """Guards against maxima, ties or biases that come out differently when pooling is done first."""
    paddle.seed(0)
    network = nn.Sequential(*SEQUENCES[name]())
    for weight in network.parameters():
        # Biases of both signs, so that they change what is above zero.
        weight.set_value(weight + paddle.randn(weight.shape) * 0.3 * (weight.ndim == 1))
    # Whole numbers, as pixels are: neighbours tie.
    images = np.random.default_rng(0).integers(-2, 3, (4, 3, side, side)).astype("float32")
    expected, images_gradient, gradients = passes(network, images)
    with acceleration.speed_up(network):
        got, got_images_gradient, got_gradients = passes(network, images)
    assert gap(got, expected) < 1e-5 and gap(got_images_gradient, images_gradient) < 1e-5
    assert gradients.keys() == got_gradients.keys()
    assert all(gap(got_gradients[key], gradients[key]) < 1e-5 for key in gradients)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_windows_without_a_number_pool_as_before(value):
    """Guards against a training that diverges and crashes, or goes on with NaN pooled away, instead of reporting it."""
    network = nn.Sequential(nn.MaxPool2D(2))
    images = np.random.default_rng(0).standard_normal((64, 3, 32, 32)).astype("float32")
    images[::2, 1:] = value
    expected, images_gradient, _ = passes(network, images)
    with acceleration.speed_up(network):
        got, got_images_gradient, _ = passes(network, images)
    np.testing.assert_allclose(got.numpy(), expected.numpy(), 1e-4, 1e-5)
    np.testing.assert_allclose(got_images_gradient.numpy(), images_gradient.numpy(), 1e-4, 1e-5)


def test_layers_that_a_network_uses_twice_do_not_pool():
    """Guards against a pool that moves into a layer that is also used elsewhere, and would pool there too."""
    paddle.seed(0)
    relu, same = nn.ReLU(), nn.Conv2D(3, 3, 3, padding=1)
    network = nn.Sequential(relu, nn.MaxPool2D(2), same, nn.ReLU(), nn.MaxPool2D(2), same, relu, nn.Flatten())
    images = np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype("float32")
    expected = network(paddle.to_tensor(images))
    with acceleration.speed_up(network):
        assert gap(network(paddle.to_tensor(images)), expected) < 1e-5


@pytest.mark.parametrize("works", [True, False])
def test_the_small_network_has_the_gradients_of_plain_paddle_to_a_millionth(works, monkeypatch):
    """Guards against speed that changes the training: every weight's gradient, with and without oneDNN."""
    if not works:
        monkeypatch.setattr(onednn, "fault", lambda dtype: "raises RuntimeError")
    paddle.seed(0)
    settings = config.load(None, ["image_shape=[3,32,32]"])
    network = Classifier(networks.construct("cnn", 10, (3, 32, 32)), settings.mean, settings.std)
    generator = np.random.default_rng(0)
    images = paddle.to_tensor(generator.integers(0, 256, (32, 3, 32, 32), dtype=np.uint8))
    labels = paddle.to_tensor(generator.integers(0, 10, 32))

    def step() -> list[paddle.Tensor]:
        logits = network(images)
        loss = nn.functional.cross_entropy(logits, labels)
        loss.backward()
        gradients = [weight.grad.clone() for weight in network.parameters()]
        network.clear_gradients()
        return [logits.detach(), loss.detach(), *gradients]

    expected = step()
    with acceleration.speed_up(network):
        got = step()
    for one, other in zip(got, expected, strict=True):
        assert float((one - other).abs().max()) < 1e-6 * max(1.0, float(other.abs().max()))


def test_batches_and_images_of_other_sizes_follow():
    """Guards against a compiled convolution that only fits the first batch, and against one compiled for each."""
    network = nn.Sequential(nn.Conv2D(8, 8, 3))
    plain = nn.Sequential(nn.Conv2D(8, 8, 3))
    plain.set_state_dict(network.state_dict())
    onednn.fault("float32")
    onednn._graphs.cache_clear()
    with acceleration.speed_up(network):
        for count, side in ((4, 20), (3, 20), (1, 31)):
            images = paddle.randn([count, 8, side, side])
            assert gap(network(images), plain(images)) < 1e-5
            with paddle.no_grad():
                assert gap(network(images), plain(images)) < 1e-5
    assert onednn._graphs.cache_info().misses == 1


def test_a_training_may_begin_with_a_validation():
    """Guards against a run that cannot be resumed where an epoch's last step was saved: no gradients are kept there."""
    onednn.fault.cache_clear()
    network = nn.Sequential(nn.Conv2D(8, 6, 3, padding=1))
    images = paddle.randn([2, 8, 20, 20])
    with acceleration.speed_up(network), paddle.no_grad():
        assert network(images).shape == [2, 6, 20, 20]


def refuse(*_):
    raise RuntimeError("dst_tensor.defined")


def compute_wrongly(*_):
    def output(inputs):
        images, weight = inputs
        return nn.functional.conv2d(images, weight, padding=1)[None, None] * 1.01

    def gradients(inputs):
        images, weight, _ = inputs
        return images[None, None], weight[None, None]

    return output, gradients


@pytest.mark.parametrize("graphs", [refuse, compute_wrongly])
def test_a_onednn_that_computes_wrongly_is_not_used(graphs, monkeypatch):
    """Guards against a release whose oneDNN raises or computes wrongly: paddle's convolutions take over."""
    monkeypatch.setattr(onednn, "_graphs", graphs)
    onednn.fault.cache_clear()
    try:
        network = nn.Sequential(nn.Conv2D(8, 6, 3, padding=1))
        images = paddle.randn([2, 8, 20, 20])
        expected = network(images)
        with acceleration.speed_up(network):
            assert gap(network(images), expected) < 1e-5
    finally:
        onednn.fault.cache_clear()


@pytest.mark.parametrize("act", ["relu", "sigmoid", None])
def test_batch_norm_with_an_activation_of_its_own_trains(act):
    """Guards against a training that ends in oneDNN's words, for a layer of Paddle's older kind."""
    paddle.seed(3)
    network = nn.Sequential(nn.Conv2D(3, 4, 3, bias_attr=False), nn.BatchNorm(4, act=act))
    images, shares = paddle.randn([2, 3, 8, 8]), paddle.randn([2, 4, 6, 6])
    found = []
    for fast in (False, True):
        network.train()
        network.clear_gradients()
        with acceleration.speed_up(network) if fast else contextlib.nullcontext():
            outputs = network(images)
            # Not a sum of squares: what batch norm makes of a map always has the same.
            (outputs * shares).sum().backward()
        found.append(
            [outputs.numpy(), *(weight.grad.numpy() for weight in network.parameters() if weight.grad is not None)]
        )
    for plain, faster in zip(*found, strict=True):
        np.testing.assert_allclose(faster, plain, rtol=1e-4, atol=1e-4 * np.abs(plain).max())
