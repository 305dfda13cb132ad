"""Recipes: each is valid, states its commands, and builds a network that trains."""

from pathlib import Path

import paddle
import pytest

import config
from models import factory, networks
from system.errors import UserError
from system.settings import Settings
from training import frozen_head, losses, optim
from training.running_metrics import Accuracy

RECIPES = sorted((Path(config.__file__).parent / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_a_recipe_holds_known_settings_and_its_commands(file):
    """Guards against recipes that rot when a setting is renamed, and against ones that nobody knows how to run."""
    config.load(file)
    text = file.read_text(encoding="utf-8")
    assert "#   python annotate.py" in text
    assert "#   python train.py" in text


def test_the_signs_recipe_is_the_default():
    """Guards against a recipe that differs from the run that the README shows."""
    assert config.load(Path(config.__file__).parent / "recipes" / "signs.yaml") == config.load()


def test_the_two_cifar_recipes_train_one_network_equally_long():
    """Guards against a comparison of recipes that differ in more than how they train."""
    plain, plus = (config.load(file) for file in RECIPES if file.stem.startswith("cifar10-"))
    for name in ("network", "image_shape", "epochs", "valid_fraction"):
        assert getattr(plain, name) == getattr(plus, name)
    network = networks.construct("cnn", 10, plain.image_shape)
    assert sum(weight.size for weight in network.parameters()) == 122_570


def step(settings: Settings, num_classes: int, count: int) -> tuple[float, dict[str, float]]:
    """Trains one step on noise; returns the loss and how far each weight moved."""
    network, _ = factory.build(settings, num_classes)
    optimizer = optim.make_optimizer(settings, network, optim.Schedule(settings, 10))
    before = {key: weight.numpy().copy() for key, weight in network.named_parameters()}
    model = paddle.Model(network)
    model.prepare(optimizer, losses.Loss(label_smoothing=settings.label_smoothing), [Accuracy()])
    images = paddle.randint(0, 255, [count, *settings.image_shape]).astype("uint8")
    (loss,), _ = model.train_batch([images], [paddle.randint(0, num_classes, [count])])
    moved = {key: float(abs(weight.numpy() - before[key]).max()) for key, weight in network.named_parameters()}
    return float(loss), moved


@pytest.mark.slow
def test_vgg19_transfer_trains_its_last_layer_only():
    """Guards against a frozen network that moves, or whose head does not."""
    file = next(file for file in RECIPES if file.stem == "vgg19-transfer")
    loss, moved = step(config.load(file, ["pretrained=false"]), 30, 2)
    assert loss > 0
    assert {key for key, value in moved.items() if value} == {
        "network.classifier.6.weight",
        "network.classifier.6.bias",
    }


def test_photos_transfer_starts_with_the_head():
    """Guards against a recipe whose backbone moves before its head knows anything."""
    file = next(file for file in RECIPES if file.stem == "photos-transfer")
    _, moved = step(config.load(file, ["pretrained=false", "image_shape=[3,64,64]"]), 4, 4)
    assert {key for key, value in moved.items() if value} == {
        "network.classifier.1.weight",
        "network.classifier.1.bias",
    }


def test_vgg19_bottleneck_takes_the_convolutions_of_vgg19_and_trains_the_rest(tmp_path):
    """Guards against a bottleneck that stays as it was drawn, convolutions that move, and weights of nowhere."""
    paddle.seed(5)
    donor = networks.construct("vgg19_bottleneck", 2, [3, 32, 32]).state_dict()
    convolutions = {key: value for key, value in donor.items() if key.startswith("features.")}
    file = tmp_path / "vgg19.pdparams"
    paddle.save(convolutions | {"classifier.6.weight": paddle.ones([40, 10])}, str(file))
    recipe = next(file for file in RECIPES if file.stem == "vgg19-bottleneck")
    settings = config.load(recipe, [f"pretrained={file}", "image_shape=[3,32,64]"])
    network, summary = factory.build(settings, 6)
    assert "without the layers that only vgg19 has; new: dense.1.weight, dense.1.bias, dense.3.weight" in summary
    assert (network.network.state_dict()["features.0.weight"].numpy() == donor["features.0.weight"].numpy()).all()
    assert network.network.dense[1].weight.shape == [512 * 1 * 2, 30]
    assert frozen_head.obstacle(settings, network) == "more than the last layer of vgg19_bottleneck is trained"
    _, moved = step(settings, 6, 2)
    assert {key for key, value in moved.items() if value} == {
        f"network.dense.{layer}.{kind}" for layer in (1, 3) for kind in ("weight", "bias")
    }
    del convolutions["features.0.bias"]
    paddle.save(convolutions, str(file))
    with pytest.raises(UserError, match=r"features\.0\.bias is missing"):
        factory.build(settings, 6)
