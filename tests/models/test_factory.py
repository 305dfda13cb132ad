"""Building a classifier from the settings: sizes that fail are refused, weights are loaded or frozen as asked."""

import numpy as np
import paddle
import pytest
from paddle import nn

import config
import train
from models import factory, networks
from models.pretrained import head_axes
from system.errors import UserError
from system.settings import Settings


def settings(name: str, side: int, **values) -> Settings:
    overrides = [f"network={name}", f"image_shape=[3,{side},{side}]"]
    return config.load(None, overrides + [f"{key}={value}" for key, value in values.items()])


def state(network: nn.Layer) -> dict[str, np.ndarray]:
    return {key: value.numpy() for key, value in network.state_dict().items()}


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    """Weights of a small CNN for five classes."""
    classifier, _ = factory.build(settings("cnn", 24), 5)
    file = tmp_path_factory.mktemp("weights") / "five.pdparams"
    paddle.save(classifier.network.state_dict(), str(file))
    return file


@pytest.fixture
def register(monkeypatch):
    """Registers a network for one test."""
    monkeypatch.setattr(networks, "NETWORKS", dict(networks.NETWORKS))
    return lambda constructor: networks.network("mine")(constructor)


@pytest.mark.parametrize("name", ["cnn", "squeezenet1_1"])
def test_a_size_too_small_is_refused_with_the_smallest_that_works(name):
    """Guards against a crash or a hang on small images, and against advice that does not work either."""
    with pytest.raises(UserError) as error:
        factory.build(settings(name, 8), 3)
    message = str(error.value)
    assert "image_shape=[3, 8, 8]" in message and name in message
    side = int(message.rpartition("smallest square that works is ")[2])
    factory.build(settings(name, side), 3)
    with pytest.raises(UserError):
        factory.build(settings(name, side - 1), 3)


def test_a_network_that_fails_at_every_size_keeps_its_own_error(register):
    """Guards against a mistake in a network of one's own that is reported as images of the wrong size."""
    register(lambda num_classes, image_shape: nn.Sequential(nn.Flatten(), nn.Linear(7, num_classes)))
    with pytest.raises(ValueError, match=r"(?i)matmul"):
        factory.build(settings("mine", 24), 3)


def test_a_network_with_another_number_of_outputs_is_refused(register):
    """Guards against a network of one's own that trains with outputs for classes that the data does not have."""
    register(lambda num_classes, image_shape: nn.Sequential(nn.AdaptiveAvgPool2D(1), nn.Flatten(), nn.Linear(3, 10)))
    with pytest.raises(UserError, match=r"network=mine: its output is \[1, 10\] for one image and 4 classes; "):
        factory.build(settings("mine", 24), 4)


def test_residual_blocks_of_a_new_network_start_as_the_identity():
    """Guards against deep ResNets that learn nothing in their first epochs; pretrained blocks keep their scale."""
    classifier, summary = factory.build(settings("resnet18", 32), 3)
    assert "randomly initialised" in summary
    scales = [weight for key, weight in state(classifier.network).items() if key.endswith("bn2.weight")]
    assert len(scales) == 8 and not any(scale.any() for scale in scales)


@pytest.mark.effect("pretrained")
def test_pretrained_weights_are_loaded_except_for_the_head(weights_file):
    """Guards against pretrained weights that are silently not loaded, and a summary that says they were."""
    classifier, summary = factory.build(settings("cnn", 24, pretrained=weights_file), 3)
    old, new = paddle.load(str(weights_file)), state(classifier.network)
    head = {key for key in new if list(new[key].shape) != list(old[key].shape)}
    assert len(head) == 2 and all(key in summary.partition("new:")[2] for key in head)
    assert all((new[key] == old[key].numpy()).all() for key in new if key not in head)
    _, summary = factory.build(settings("cnn", 24, pretrained=weights_file), 5)
    assert "new: nothing" in summary and str(weights_file) in summary


@pytest.mark.effect("freeze")
def test_freezing_trains_only_the_head():
    """Guards against a backbone that drifts: weights that still learn, and batch norm that still counts."""
    paddle.seed(0)
    classifier, summary = factory.build(settings("shufflenet_v2_x0_25", 32, freeze="true"), 3)
    before = state(classifier.network)
    classifier.train()
    trained = [weight for weight in classifier.parameters() if not weight.stop_gradient]
    optimizer = paddle.optimizer.Momentum(0.1, parameters=trained)
    images = paddle.to_tensor(np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), np.uint8))
    for _ in range(2):
        nn.functional.cross_entropy(classifier(images), paddle.to_tensor([0, 1, 2, 0])).backward()
        optimizer.step()
        optimizer.clear_grad()
    after = state(classifier.network)
    changed = {key for key in before if (before[key] != after[key]).any()}
    assert changed == head_axes(classifier.network, "shufflenet_v2_x0_25", 3, (3, 32, 32)).keys()
    assert changed and all(key in summary for key in changed)


def test_a_run_with_other_classes_keeps_its_rows(settings_for, data, tmp_path):
    """Guards against a class more that costs all that was learned, and rows given to a class of another name."""
    common = {"network": "shufflenet_v2_x0_25", "image_shape": [3, 32, 32], "output_dir": str(tmp_path)}
    run = train.train(settings_for(data, **common, epochs=1))
    assert run.class_names == ["ox", "dragon", "dog"]
    names = ["cat", "dragon", "dog", "ox"]
    chosen = settings_for(data, **common, pretrained=str(run.path))
    network, summary = factory.build(chosen, 4, names)
    network.eval()
    images = paddle.randint(0, 255, [5, 3, 32, 32]).astype("uint8")
    old, new = run.load_network()(images).numpy(), network(images).numpy()
    np.testing.assert_array_equal(new[:, [names.index(name) for name in run.class_names]], old)
    assert "its head knows 3 of 4 classes, new: cat" in summary
    # As many classes, in another order.
    network, summary = factory.build(chosen, 3, ["dog", "ox", "dragon"])
    network.eval()
    np.testing.assert_array_equal(network(images).numpy(), old[:, [2, 0, 1]])
    assert "knows 3 of 3 classes" in summary and "new" not in summary


@pytest.mark.parametrize("change", [{"network": "cnn"}, {"mean": [0.1, 0.1, 0.1]}, {"std": [0.5, 0.5, 0.5]}])
def test_a_run_of_another_kind_is_refused(settings_for, trained, change):
    """Guards against weights that see other images than they were trained on."""
    settings = settings_for("data", **{"network": "cnn", "pretrained": str(trained.path)} | change)
    if change == {"network": "cnn"}:
        settings = settings.model_copy(update={"network": "resnet18"})
    with pytest.raises(UserError, match=rf"pretrained=.*: the run has {next(iter(change))}=.*; set the same"):
        factory.build(settings, 3, ["dog", "dragon", "ox"])
