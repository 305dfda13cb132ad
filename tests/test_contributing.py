"""CONTRIBUTING.md: its examples work where it puts them."""

import re
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle import nn
from PIL import Image, ImageFilter

import config
from evaluation import metrics
from imaging import augmentation
from imaging.transforms import TrainTransform
from models import networks
from training import losses

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def add(monkeypatch):
    """Returns a function that adds the example for a kind of edit to its module, until the test ends."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    examples = re.findall(r"\*\*An? (\w+)\*\*: `([\w/]+\.py)`.*?```python\n(.*?)```", text, re.DOTALL)

    def run(kind: str, module, registry: str) -> None:
        ((path, code),) = ((path, code) for name, path, code in examples if name == kind)
        assert (ROOT / path).samefile(module.__file__)
        monkeypatch.setattr(module, registry, getattr(module, registry).copy())
        exec(compile(code, path, "exec"), dict(vars(module)))

    return run


def test_a_network_is_one_function(add):
    """Guards against a network that has to be listed anywhere else."""
    add("network", networks, "NETWORKS")
    network = networks.construct("linear", 5, (3, 8, 6))
    assert isinstance(network, nn.Layer) and network(paddle.zeros([2, 3, 8, 6])).shape == [2, 5]
    assert "linear" in networks.names()


def test_a_loss_is_one_function(add):
    """Guards against a loss that has to be listed anywhere else, or that sees smoothed labels in another form."""
    add("loss", losses, "LOSSES")
    logits, labels = paddle.to_tensor([[0.0, 0.0], [50.0, 0.0]]), paddle.to_tensor([0, 1])
    assert losses.LOSSES["brier"](logits, labels, 0.0).tolist() == pytest.approx([0.5, 2.0])


def test_a_metric_is_one_function(add):
    """Guards against a metric that has to be listed anywhere else."""
    add("metric", metrics, "METRICS")
    outputs = metrics.Outputs(np.array([[0.0, 0.0], [50.0, 0.0]]), np.array([0, 1]))
    assert metrics.compute(outputs)["mean_confidence"] == pytest.approx(0.75)


def test_an_augmentation_is_one_function_and_a_setting(add, plain, monkeypatch):
    """Guards against an augmentation that has to be listed anywhere else, or that the fast path leaves out."""
    monkeypatch.setattr(augmentation, "ImageFilter", ImageFilter, raising=False)
    add("augmentation", augmentation, "AUGMENTATIONS")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))
    pixels = {}
    for probability in (0.0, 1.0):
        augment = config.load(None, [f"augment.{k}={v}" for k, v in plain.items()]).augment
        transform = TrainTransform(16, 16, type(augment).model_validate(augment.model_dump() | {"blur": probability}))
        assert transform.only_flips == (probability == 0)
        pixels[probability] = transform(image, np.random.default_rng(0))
    assert (pixels[0.0] == np.asarray(image).transpose(2, 0, 1)).all()
    assert pixels[1.0].std() < 0.8 * pixels[0.0].std()
