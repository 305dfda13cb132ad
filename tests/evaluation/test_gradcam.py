"""Grad-CAM on real networks."""

import numpy as np
import paddle
import pytest
from PIL import Image

from evaluation import gradcam, plots
from models import networks
from models.classifier import Classifier
from system.errors import UserError

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def classifier(name, side=64):
    made = Classifier(networks.construct(name, 3, [3, side, side]), MEAN, STD)
    made.eval()
    return made


class Corner(paddle.nn.Layer):
    """Decides on class 1 by the brightness of the upper left quarter alone."""

    def __init__(self):
        super().__init__()
        self.features = paddle.nn.Conv2D(3, 1, 1)
        self.features.weight.set_value(paddle.ones([1, 3, 1, 1]))
        self.pool = paddle.nn.AdaptiveAvgPool2D(1)
        mask = np.zeros((1, 1, 32, 32), np.float32)
        mask[..., :16, :16] = 1
        self.register_buffer("mask", paddle.to_tensor(mask))

    def forward(self, images):
        """Returns logits [N, 2]."""
        evidence = self.pool(paddle.nn.functional.relu(self.features(images)) * self.mask).flatten(1)
        return paddle.concat([-evidence, evidence], axis=1)


def bright_corner():
    image = np.full((1, 3, 32, 32), 128, np.uint8)
    image[..., 4:12, 4:12] = 255
    return image


def test_heat_lies_where_the_evidence_is():
    """Guards against transposed axes and gradients of the wrong class."""
    network = Classifier(Corner(), MEAN, STD)
    network.eval()
    (heat,) = gradcam.explain(network, bright_corner(), [1])
    assert heat.shape == (32, 32) and heat.max() == 1.0
    assert heat[4:12, 4:12].mean() > 0.9
    assert heat[16:, 16:].max() < 0.05


def test_no_evidence_is_an_empty_map():
    """Guards against a division by zero where all evidence is against a class."""
    network = Classifier(Corner(), MEAN, STD)
    network.eval()
    assert not gradcam.explain(network, bright_corner(), [0]).any()


@pytest.mark.parametrize("name", ["cnn", "alexnet", "resnet18", "squeezenet1_1", "mobilenet_v2", "shufflenet_v2_x0_25"])
def test_finds_a_layer_in_every_kind_of_network(name):
    """Guards against networks without a map: they end in pools, blocks or dense layers."""
    paddle.seed(0)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64), dtype=np.uint8)
    heat = gradcam.explain(classifier(name), images, [0, 2])
    assert heat.shape == (2, 64, 64) and heat.dtype == np.float32
    assert np.isfinite(heat).all() and heat.min() >= 0 and heat.max() <= 1


def test_auxiliary_branches_do_not_count():
    """Guards against maps of GoogLeNet's auxiliary heads, computed last, which the logits do not depend on."""
    paddle.seed(0)
    images = np.random.default_rng(0).integers(0, 256, (1, 3, 224, 224), dtype=np.uint8)
    assert gradcam.explain(classifier("googlenet", 224), images, [1]).shape == (1, 224, 224)


def test_frozen_network_can_be_explained_and_stays_as_it_is():
    """Guards against frozen weights, which record no gradients, and hooks left behind, which hold every later map."""
    network = classifier("cnn")
    for weight in network.parameters():
        weight.stop_gradient = True
    images = np.random.default_rng(0).integers(0, 256, (9, 3, 64, 64), dtype=np.uint8)
    before = network(paddle.to_tensor(images)).numpy()
    heat = gradcam.explain(network, images, [0] * 9)
    assert len(heat) == 9
    assert (network(paddle.to_tensor(images)).numpy() == before).all()
    assert not any(layer._forward_post_hooks for layer in network.sublayers())
    alone = gradcam.explain(network, images[8:], [0])
    assert np.allclose(alone, heat[8:], atol=1e-5)


def test_layer_can_be_named():
    """Guards against an unknown name that is silently replaced."""
    network = classifier("cnn")
    images = np.random.default_rng(0).integers(0, 256, (1, 3, 64, 64), dtype=np.uint8)
    first, last = (gradcam.explain(network, images, [1], layer) for layer in ("0", gradcam.AUTO))
    assert (first != last).any()
    with pytest.raises(UserError, match="no such layer; its convolutions are 0, 3, 6"):
        gradcam.explain(network, images, [1], "conv9")
    with pytest.raises(UserError, match="no feature map"):
        gradcam.explain(network, images, [1], "11")


def test_overlay_leaves_cold_places_alone():
    """Guards against an overlay that recolours the whole image."""
    image = Image.new("RGB", (64, 64), (10, 200, 30))
    heat = np.zeros((32, 32), np.float32)
    heat[:8, :8] = 1
    drawn = np.asarray(plots.overlay(image, heat))
    assert (drawn[32:, 32:] == (10, 200, 30)).all()
    assert drawn[4, 4, 0] > 80
