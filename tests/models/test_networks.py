"""Networks by name: each family builds, trains and exports; a network of one's own is one registered function."""

import math

import numpy as np
import paddle
import pytest
from paddle import inference, nn

import config
from inference.graphs import write_graphs
from models import factory, networks
from models.checkpoint import BEST, Run
from models.classifier import Classifier
from system.errors import UserError
from system.settings import Settings

# One small member of each family of paddle.vision.models, and a size it takes.
MEMBERS = {
    "alexnet": 63,
    "cnn": 24,
    "densenet121": 32,
    "googlenet": 192,
    "inception_v3": 75,
    "mobilenet_v1": 32,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "resnet18": 32,
    "resnext50_32x4d": 32,
    "shufflenet_v2_x0_25": 32,
    "squeezenet1_1": 32,
    "vgg11": 32,
    "wide_resnet50_2": 32,
}
# The normal tests train these; the rest cost a minute and more together.
QUICK = {"cnn", "densenet121", "googlenet", "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "resnet18",
         "shufflenet_v2_x0_25", "squeezenet1_1"}  # fmt: skip
# And export these.
QUICK_EXPORT = {"cnn", "resnet18", "shufflenet_v2_x0_25", "squeezenet1_1"}


def some(members, quick) -> list:
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in members]


def settings(name: str, side: int) -> Settings:
    return config.load(None, [f"network={name}", f"image_shape=[3,{side},{side}]"])


def images(side: int, count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 3, side, side), np.uint8)


@pytest.fixture
def own_network(monkeypatch):
    """A network of one's own, registered as its user would."""
    monkeypatch.setattr(networks, "NETWORKS", dict(networks.NETWORKS))

    @networks.network("mine")
    def mine(num_classes, image_shape):
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(image_shape), num_classes))

    return mine


@pytest.mark.effect("network")
def test_a_network_of_ones_own_is_one_registered_function(own_network, settings_for, tmp_path):
    """Guards against a second place that has to know a network: names, building, freezing, and loading a run."""
    assert "mine" in networks.names()
    chosen = settings_for("data", network="mine", freeze=True, output_dir=str(tmp_path))
    classifier, summary = factory.build(chosen, 3)
    assert summary == "mine: 5,187 weights; randomly initialised; trained: 1.bias, 1.weight"
    run = Run.create(chosen, ["a", "b", "c"])
    run.save({BEST: classifier.network.state_dict()})
    pixels = paddle.to_tensor(images(24))
    assert (run.load_network()(pixels).numpy() == classifier(pixels).numpy()).all()


def test_a_registered_network_wins_over_paddles_and_is_registered_once(own_network):
    """Guards against paddle's network, or the first of two, under the name of one's own."""
    networks.network("vgg11")(own_network)
    assert isinstance(networks.construct("vgg11", 3, [3, 8, 8]), nn.Sequential)
    with pytest.raises(ValueError, match="mine is registered already"):
        networks.network("mine")(own_network)


def test_an_unknown_network_is_refused_with_those_there_are():
    """Guards against a KeyError for a mistyped name."""
    with pytest.raises(UserError, match=r"network=resnet51: there is no such network; take one of .*resnet50"):
        factory.build(settings("resnet51", 64), 3)
    with pytest.raises(UserError, match="network=LeNet"):
        factory.build(settings("LeNet", 64), 3)


def test_every_family_of_paddle_is_known():
    """Guards against a network of paddle.vision.models that cannot be named here."""
    assert set(MEMBERS) <= set(networks.names())
    classes = {name for name in paddle.vision.models.__all__ if not name.islower()}
    # LeNet takes one grey channel only.
    families = {"AlexNet", "DenseNet", "GoogLeNet", "InceptionV3", "LeNet", "MobileNetV1", "MobileNetV2",
                "MobileNetV3Large", "MobileNetV3Small", "ResNet", "ShuffleNetV2", "SqueezeNet", "VGG"}  # fmt: skip
    assert classes == families, "a new family: add a member of it above"


def check_training_step(name: str, side: int) -> Classifier:
    """Builds a network, computes all its gradients and its logits."""
    paddle.seed(0)
    classifier, _ = factory.build(settings(name, side), 3)
    classifier.train()
    outputs = classifier(paddle.to_tensor(images(side)))
    outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    labels = paddle.to_tensor([0, 1, 2, 0])
    sum(nn.functional.cross_entropy(logits, labels) for logits in outputs).backward()
    trained = {key: weight for key, weight in classifier.network.named_parameters() if not weight.stop_gradient}
    assert [key for key, weight in trained.items() if weight.grad is None] == []
    assert [key for key, weight in trained.items() if not np.isfinite(weight.grad.numpy()).all()] == []
    classifier.eval()
    with paddle.no_grad():
        logits = classifier(paddle.to_tensor(images(side)))
    assert logits.shape == [4, 3] and bool(paddle.isfinite(logits).all())
    return classifier


def check_export(classifier: Classifier, side: int, folder) -> None:
    """Compares Paddle Inference, oneDNN on and off, with the network itself, as float pixels and another batch size."""
    write_graphs(classifier, (3, side, side), 1.0, folder)
    pixels = images(side, 5).astype("float32")
    with paddle.no_grad():
        expected = nn.functional.softmax(classifier(paddle.to_tensor(pixels)), axis=-1).numpy()
    for onednn in (True, False):
        engine = inference.Config(str(folder / "inference.json"), str(folder / "inference.pdiparams"))
        engine.disable_glog_info()
        engine.enable_mkldnn() if onednn else engine.disable_mkldnn()
        predictor = inference.create_predictor(engine)
        predictor.get_input_handle(predictor.get_input_names()[0]).copy_from_cpu(pixels)
        predictor.run()
        got = predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu()
        assert np.abs(got - expected).max() < 1e-4, f"oneDNN {onednn}"


@pytest.mark.parametrize("name", some(MEMBERS, QUICK))
def test_a_network_of_each_family_trains_and_predicts(name):
    """Guards against a family that only builds: several outputs, weights without gradient, logits of another shape."""
    check_training_step(name, MEMBERS[name])


@pytest.mark.parametrize("name", some(MEMBERS, QUICK_EXPORT))
def test_a_network_of_each_family_exports(name, tmp_path):
    """Guards against a network that trains for hours and cannot be exported, or predicts differently then."""
    paddle.seed(0)
    classifier, _ = factory.build(settings(name, MEMBERS[name]), 3)
    classifier.eval()
    check_export(classifier, MEMBERS[name], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(networks.names()) - set(MEMBERS)))
def test_every_other_network_trains_predicts_and_exports(name, tmp_path):
    """Guards against members of a family that differ from the one tested above."""
    check_export(check_training_step(name, 64), 64, tmp_path)


def test_the_small_cnn_has_122570_weights():
    """Guards against another network than the courses' under the same name."""
    network = networks.construct("cnn", 10, (3, 32, 32))
    assert sum(weight.size for weight in network.parameters()) == 122_570
    convolutions = [layer for layer in network.sublayers() if isinstance(layer, nn.Conv2D)]
    geometry = [(layer.weight.shape[0], layer._kernel_size) for layer in convolutions]
    assert geometry == [(32, [3, 3]), (64, [3, 3]), (64, [3, 3])]
    dense = [layer.weight.shape for layer in network.sublayers() if isinstance(layer, nn.Linear)]
    assert dense == [[1024, 64], [64, 10]]
    assert sum(isinstance(layer, nn.MaxPool2D) for layer in network.sublayers()) == 2


def test_alexnet_has_the_course_geometry():
    """Guards against paddle's slimmer AlexNet (64-192-384-256-256) under the course's name."""
    with paddle.LazyGuard():
        network = networks.construct("alexnet", 12, (3, 224, 224))
    layers = network.sublayers()
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2D)]
    geometry = [(layer.weight.shape[0], layer._kernel_size[0], layer._stride[0]) for layer in convolutions]
    assert geometry == [(96, 11, 4), (256, 5, 1), (384, 3, 1), (384, 3, 1), (256, 3, 1)]
    dense = [layer.weight.shape for layer in layers if isinstance(layer, nn.Linear)]
    assert dense == [[9216, 4096], [4096, 4096], [4096, 12]]
    assert [layer.p for layer in layers if isinstance(layer, nn.Dropout)] == [0.5, 0.5]
    features = nn.Sequential(*layers[: next(i for i, layer in enumerate(layers) if isinstance(layer, nn.Flatten))])
    last = [layer for layer in features if isinstance(layer, (nn.AdaptiveAvgPool2D, nn.AdaptiveMaxPool2D))][-1]
    assert last(paddle.zeros([1, 256, 5, 9])).shape == [1, 256, 6, 6]
