"""Networks: each builds, learns and exports; sizes and weights that do not fit are refused by name."""

import numpy as np
import paddle
import pytest
from paddle import nn

import config
from models import networks
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
# The normal tests learn with these; the rest cost a minute and more together.
QUICK = {"cnn", "densenet121", "googlenet", "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "resnet18",
         "shufflenet_v2_x0_25", "squeezenet1_1"}  # fmt: skip
# And export these.
QUICK_EXPORT = {"cnn", "resnet18", "shufflenet_v2_x0_25", "squeezenet1_1"}


def some(members, quick) -> list:
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in members]


def settings(name: str, side: int, **values) -> Settings:
    overrides = [f"network={name}", f"image_shape=[3,{side},{side}]"]
    return config.load(None, overrides + [f"{key}={value}" for key, value in values.items()])


def images(side: int, count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 3, side, side), np.uint8)


def state(network: nn.Layer) -> dict[str, np.ndarray]:
    return {key: value.numpy() for key, value in network.state_dict().items()}


def learns_and_answers(name: str, side: int) -> networks.Classifier:
    from training import Loss

    paddle.seed(0)
    network, told = networks.build(settings(name, side), 3)
    assert name in told and "all new" in told
    network.train()
    outputs = network(paddle.to_tensor(images(side)))
    outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    Loss(0.0)(*outputs, paddle.to_tensor([0, 1, 2, 0])).backward()
    trained = {key: weight for key, weight in network.network.named_parameters() if not weight.stop_gradient}
    assert [key for key, weight in trained.items() if weight.grad is None] == []
    assert [key for key, weight in trained.items() if not np.isfinite(weight.grad.numpy()).all()] == []
    network.eval()
    with paddle.no_grad():
        logits = network(paddle.to_tensor(images(side)))
    assert logits.shape == [4, 3] and bool(paddle.isfinite(logits).all())
    return network


def exports(network: networks.Classifier, side: int, folder) -> None:
    """Compares Paddle Inference, oneDNN on and off, with the network itself, as float pixels and another batch size."""
    from paddle import inference

    from inference.graphs import write_graphs

    write_graphs(network, (3, side, side), 1.0, folder)
    pixels = images(side, 5).astype("float32")
    with paddle.no_grad():
        expected = nn.functional.softmax(network(paddle.to_tensor(pixels)), axis=-1).numpy()
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
def test_a_network_of_each_family_learns_and_answers(name):
    """Guards against a family that only builds: several outputs, weights without gradient, odd answers."""
    learns_and_answers(name, MEMBERS[name])


@pytest.mark.parametrize("name", some(MEMBERS, QUICK_EXPORT))
def test_a_network_of_each_family_exports(name, tmp_path):
    """Guards against a network that trains for hours and cannot be exported, or answers differently then."""
    paddle.seed(0)
    network, _ = networks.build(settings(name, MEMBERS[name]), 3)
    network.eval()
    exports(network, MEMBERS[name], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(networks.names()) - set(MEMBERS)))
def test_every_other_network_learns_answers_and_exports(name, tmp_path):
    """Guards against members of a family that differ from the one tested above."""
    exports(learns_and_answers(name, 64), 64, tmp_path)


def test_every_family_of_paddle_is_known():
    """Guards against a network of paddle.vision.models that cannot be named here."""
    assert set(MEMBERS) <= set(networks.names())
    classes = {name for name in paddle.vision.models.__all__ if not name.islower()}
    # LeNet takes one grey channel only.
    families = {"AlexNet", "DenseNet", "GoogLeNet", "InceptionV3", "LeNet", "MobileNetV1", "MobileNetV2",
                "MobileNetV3Large", "MobileNetV3Small", "ResNet", "ShuffleNetV2", "SqueezeNet", "VGG"}  # fmt: skip
    assert classes == families, "a new family: add a member of it above"


def test_an_unknown_network_is_refused_with_those_there_are():
    """Guards against a KeyError for a mistyped name."""
    with pytest.raises(UserError, match=r"network=resnet51: there is no such network; take one of .*resnet50"):
        networks.build(settings("resnet51", 64), 3)
    with pytest.raises(UserError, match="network=LeNet"):
        networks.build(settings("LeNet", 64), 3)


def test_the_small_cnn_has_122570_weights():
    """Guards against another network than the courses' under the same name."""
    network = networks.construct("cnn", 10, (3, 32, 32))
    assert sum(weight.size for weight in network.parameters()) == 122_570
    kinds = [
        (layer.weight.shape[0], layer._kernel_size) for layer in network.sublayers() if isinstance(layer, nn.Conv2D)
    ]
    assert kinds == [(32, [3, 3]), (64, [3, 3]), (64, [3, 3])]
    dense = [layer.weight.shape for layer in network.sublayers() if isinstance(layer, nn.Linear)]
    assert dense == [[1024, 64], [64, 10]]
    assert sum(isinstance(layer, nn.MaxPool2D) for layer in network.sublayers()) == 2


def test_alexnet_has_the_course_geometry():
    """Guards against the zoo's slimmer AlexNet (64-192-384-256-256) under the course's name."""
    with paddle.LazyGuard():
        network = networks.construct("alexnet", 12, (3, 224, 224))
    layers = network.sublayers()
    convolutions = [
        (layer.weight.shape[0], layer._kernel_size[0], layer._stride[0])
        for layer in layers
        if isinstance(layer, nn.Conv2D)
    ]
    assert convolutions == [(96, 11, 4), (256, 5, 1), (384, 3, 1), (384, 3, 1), (256, 3, 1)]
    dense = [layer.weight.shape for layer in layers if isinstance(layer, nn.Linear)]
    assert dense == [[9216, 4096], [4096, 4096], [4096, 12]]
    assert [layer.p for layer in layers if isinstance(layer, nn.Dropout)] == [0.5, 0.5]
    features = nn.Sequential(*layers[: next(i for i, layer in enumerate(layers) if isinstance(layer, nn.Flatten))])
    last = [layer for layer in features if isinstance(layer, (nn.AdaptiveAvgPool2D, nn.AdaptiveMaxPool2D))][-1]
    assert last(paddle.zeros([1, 256, 5, 9])).shape == [1, 256, 6, 6]


@pytest.mark.parametrize("name", ["cnn", "squeezenet1_1"])
def test_a_size_too_small_is_refused_with_the_smallest_that_works(name):
    """Guards against a crash or a hang on small images, and against advice that does not work either."""
    with pytest.raises(UserError) as error:
        networks.build(settings(name, 8), 3)
    message = str(error.value)
    assert "image_shape=[3, 8, 8]" in message and name in message
    side = int(message.rpartition("smallest square that works is ")[2])
    networks.build(settings(name, side), 3)
    with pytest.raises(UserError):
        networks.build(settings(name, side - 1), 3)


def test_raw_pixels_are_normalised_inside():
    """Guards against mean and std that are forgotten, applied twice, or in another order of channels."""
    seen = []

    class Eye(nn.Layer):
        def forward(self, pixels):
            seen.append(pixels.numpy())
            return pixels.mean(axis=[2, 3])

    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 0.125)
    classifier = networks.Classifier(Eye(), mean, std)
    pixels = images(5)
    classifier(paddle.to_tensor(pixels))
    expected = (pixels / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    assert np.abs(seen[0] - expected).max() < 1e-5
    assert list(networks.Classifier(nn.Linear(2, 2), mean, std).network.state_dict()) == ["weight", "bias"]


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    """Weights of a small CNN for five classes."""
    network, _ = networks.build(settings("cnn", 24), 5)
    file = tmp_path_factory.mktemp("weights") / "five.pdparams"
    paddle.save(network.network.state_dict(), str(file))
    return file


def test_pretrained_weights_are_loaded_but_for_the_head(weights_file):
    """Guards against pretrained weights that are quietly not loaded, and a message that says they were."""
    network, told = networks.build(settings("cnn", 24, pretrained=weights_file), 3)
    old, new = paddle.load(str(weights_file)), state(network.network)
    head = {key for key in new if list(new[key].shape) != list(old[key].shape)}
    assert len(head) == 2 and all(f"{key}" in told.partition("new:")[2] for key in head)
    assert all((new[key] == old[key].numpy()).all() for key in new if key not in head)
    _, told = networks.build(settings("cnn", 24, pretrained=weights_file), 5)
    assert "new: nothing" in told and str(weights_file) in told


@pytest.mark.parametrize("fault", ["missing", "misshapen", "unknown"])
def test_weights_that_do_not_fit_are_refused(weights_file, tmp_path, fault):
    """Guards against paddle's set_state_dict, which warns and trains on with random weights."""
    weights = paddle.load(str(weights_file))
    first = next(iter(weights))
    if fault == "missing":
        del weights[first]
    elif fault == "misshapen":
        weights[first] = weights[first][:, :1]
    else:
        weights["extra.weight"] = weights[first]
    file = tmp_path / "wrong.pdparams"
    paddle.save(weights, str(file))
    with pytest.raises(UserError) as error:
        networks.build(settings("cnn", 24, pretrained=file), 3)
    expected = {"missing": f"{first} is missing", "misshapen": f"{first} is [", "unknown": "extra.weight is unknown"}
    assert expected[fault] in str(error.value) and str(file) in str(error.value)


def test_weights_of_another_network_or_no_weights_are_refused(weights_file, tmp_path):
    """Guards against a traceback for the wrong file, and against pickles that hold something else."""
    with pytest.raises(UserError, match="weights of another network"):
        networks.build(settings("squeezenet1_1", 32, pretrained=weights_file), 3)
    (tmp_path / "torn.pdparams").write_bytes(weights_file.read_bytes()[:1000])
    (tmp_path / "text.pdparams").write_text("no weights")
    (tmp_path / "empty.pdparams").touch()
    paddle.save([1, 2], str(tmp_path / "list.pdparams"))
    for name in ("torn", "text", "empty", "list", "none"):
        with pytest.raises(UserError, match=f"{name}.pdparams"):
            networks.build(settings("cnn", 24, pretrained=tmp_path / f"{name}.pdparams"), 3)


def test_imagenet_weights_of_a_network_without_any_are_refused():
    """Guards against a search for weights that nobody trained."""
    with pytest.raises(UserError, match=r"pretrained=true: there are no ImageNet weights for cnn; .*FILE"):
        networks.build(settings("cnn", 24, pretrained="true"), 3)


def test_freezing_leaves_only_the_head_to_train():
    """Guards against a body that drifts: weights that still learn, and batch norm that still counts."""
    paddle.seed(0)
    network, told = networks.build(settings("shufflenet_v2_x0_25", 32, freeze="true"), 3)
    before = state(network.network)
    network.train()
    optimizer = paddle.optimizer.Momentum(0.1, parameters=[w for w in network.parameters() if not w.stop_gradient])
    for _ in range(2):
        loss = nn.functional.cross_entropy(network(paddle.to_tensor(images(32))), paddle.to_tensor([0, 1, 2, 0]))
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
    after = state(network.network)
    changed = {key for key in before if (before[key] != after[key]).any()}
    assert changed == networks.head_names(network.network, "shufflenet_v2_x0_25", 3, (3, 32, 32))
    assert changed and all(key in told for key in changed)
