"""Feature maps and filters of real networks."""

import numpy as np
import paddle
import pytest
from PIL import Image

import predict
from evaluation import feature_maps, plots
from models import networks
from models.classifier import Classifier
from system.errors import UserError

MEAN, STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def classifier(network: paddle.nn.Layer) -> Classifier:
    made = Classifier(network, MEAN, STD)
    made.eval()
    return made


def test_maps_are_what_the_layers_return():
    """Guards against maps of another image or layer, and against hooks that stay behind."""
    paddle.seed(1)
    network = networks.construct("cnn", 3, [3, 24, 24])
    pixels = np.random.default_rng(0).integers(0, 256, (3, 24, 24), np.uint8)
    maps = feature_maps.compute(classifier(network), pixels)
    inputs = paddle.to_tensor(pixels[None].astype("float32") / 255)
    first = network[0](inputs)
    second = network[3](network[2](network[1](first)))
    assert list(maps) == ["0", "3", "6"]
    assert np.abs(maps["0"] - first[0].numpy()).max() < 1e-5 and np.abs(maps["3"] - second[0].numpy()).max() < 1e-5
    (named,) = feature_maps.compute(classifier(network), pixels, "4").values()
    assert np.abs(named - np.maximum(maps["3"], 0)).max() < 1e-6
    assert not any(layer._forward_post_hooks for layer in network.sublayers())
    with pytest.raises(
        UserError, match="explain_layer=9x: the network has no such layer; its convolutions are 0, 3, 6"
    ):
        feature_maps.compute(classifier(network), pixels, "9x")
    dense = paddle.nn.Sequential(paddle.nn.Flatten(), paddle.nn.Linear(3 * 24 * 24, 2))
    with pytest.raises(UserError, match="explain_layer=auto: the network has no feature maps"):
        feature_maps.compute(classifier(dense), pixels)


def test_the_strongest_maps_and_filters_are_drawn(data, trained, call, monkeypatch):
    """Guards against tiles under the name of another filter, and maps that one bright channel makes black."""
    image, run = "data/test/ox/00000001.jpg", ["--run", str(trained.path)]
    drawn = []
    monkeypatch.setattr(plots, "grid", lambda *given, **options: drawn.append((*given, options)))
    ended = call(predict, image, *run, "--explain", "maps.png", "--explain-kind", "maps")
    assert ended.status == 0 and f"maps.png: feature maps of {image}, the first of 1 images" in ended.err, ended
    ((tiles, captions, file, options),) = drawn
    assert (file, options["columns"], len(tiles)) == ("maps.png", 8, 8 * 4)
    weights = trained.load_network().network[0].weight.numpy()
    strongest = np.square(weights).sum(axis=(1, 2, 3)).argmax()
    assert captions[:2] == ("input", f"0\nfilter {strongest}") and captions[8].startswith("0\nmap ")
    expected = np.rint(255 * (weights[strongest] / np.abs(weights[strongest]).max() + 1) / 2).transpose(1, 2, 0)
    assert (np.asarray(tiles[1])[16::32, 16::32] == expected).all()
    assert all(np.asarray(tile).max() in (0, 255) for tile in tiles[8:])


def test_a_figure_of_maps_is_written(data, trained, call):
    """Guards against a figure that cannot be drawn, and an option without a file to draw."""
    image, run = "data/test/ox/00000001.jpg", ["--run", str(trained.path)]
    assert call(predict, image, *run, "--explain", "maps.png", "--explain-kind", "maps", "explain_layer=3").status == 0
    assert Image.open("maps.png").width > 1500
    assert call(predict, image, *run, "--explain-kind", "maps").status == 2
