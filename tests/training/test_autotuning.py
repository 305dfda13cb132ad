"""Convolutions are measured once for a processor, and a run keeps to what it began with."""

import json
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle import nn

import train
from models import convolutions, onednn
from models.convolutions import AlgorithmSelector, by_product, fastest, plain
from models.networks import construct
from system.errors import UserError
from training import autotuning

# Its 1x1 convolutions have three candidates each.
NETWORK = {"network": "shufflenet_v2_x0_25", "image_shape": [3, 32, 32], "epochs": 1, "schedule": "constant"}


@pytest.fixture
def measurements(monkeypatch):
    """Replaces the measurement, for timing must not decide a test: the layers measured, and the algorithm that wins."""

    class Measurements(list):
        winner = "onednn"

    made = Measurements()

    def measure(layer, shape, algorithms):
        made.append((tuple(layer.weight.shape), tuple(shape), tuple(algorithms)))
        return made.winner

    monkeypatch.setattr(autotuning, "fastest", measure)
    return made


def read(file):
    return json.loads(file.read_text(encoding="utf-8"))


def test_a_training_measures_each_shape_once_and_computes_by_what_won(data, settings_for, measurements, monkeypatch):
    """Guards against shapes measured twice, at every start, or measured and then ignored."""
    used = []
    monkeypatch.setitem(convolutions.ALGORITHMS, "onednn", lambda *args: used.append(args[0]) or plain(*args))
    settings = settings_for("data", **NETWORK, cache_dir="kept")
    train.train(settings)
    # 1x1 kernels, the batch of the settings, the algorithm of the rule first.
    assert len(measurements) == len(set(measurements)) > 5
    assert all(weight[2:] == (1, 1) and shape[0] == settings.batch_size for weight, shape, _ in measurements)
    assert all(set(algorithms) == {"paddle", "product", "onednn"} for _, _, algorithms in measurements)
    assert any(layer._kernel_size == [1, 1] for layer in used)
    algorithms = read(settings.run / autotuning.FILE)
    assert set(algorithms.values()) == {"onednn"} and list(read(Path("kept", autotuning.FILE)).values()) == [algorithms]

    count, network = len(measurements), construct("shufflenet_v2_x0_25", 3, (3, 32, 32))
    assert autotuning.autotune(network, settings, False, None)[0].measured == algorithms and len(measurements) == count
    autotuning.autotune(network, settings_for("data", **NETWORK, cache_dir="kept", batch_size=4), False, None)
    assert len(measurements) == 2 * count


def test_a_resumed_run_computes_as_it_began_whatever_was_measured_since(data, settings_for, measurements):
    """Guards against a resume that ends in other weights because another algorithm has won in the meantime."""
    runs = {}
    for name in ("whole", "parts"):
        measurements.winner = "product"
        changes = NETWORK | {"cache_dir": name, "run_name": name, "epochs": 2 if name == "whole" else 1}
        runs[name] = train.train(settings_for("data", **changes))
    measurements.winner = "onednn"
    count = len(measurements)
    resumed = train.train(
        settings_for("data", **NETWORK | {"cache_dir": "new", "run_name": "parts", "epochs": 2, "resume": True})
    )
    assert len(measurements) == count
    whole, parts = (paddle.load(str(run.path / "last.pdparams")) for run in (runs["whole"], resumed))
    for name, weight in whole.items():
        np.testing.assert_array_equal(parts[name], weight, err_msg=name)


def test_measuring_changes_neither_network_nor_chance(settings_for, tmp_path):
    """Guards against weights, running statistics, modes or random numbers that a measurement leaves changed."""
    network = construct("shufflenet_v2_x0_25", 3, (3, 32, 32))
    network.train()
    network.sublayers()[3].eval()
    state = {key: value.numpy().copy() for key, value in network.state_dict().items()}
    modes = [layer.training for layer in network.sublayers(include_self=True)]
    paddle.seed(4)
    expected = paddle.rand([3]).numpy()
    paddle.seed(4)
    settings = settings_for("data", **NETWORK, cache_dir=str(tmp_path))
    selector, line = autotuning.autotune(network, settings, False, None)
    assert (paddle.rand([3]).numpy() == expected).all()
    assert [layer.training for layer in network.sublayers(include_self=True)] == modes
    assert all((value.numpy() == state[key]).all() for key, value in network.state_dict().items())
    assert all(weight.grad is None for weight in network.parameters())
    assert selector.measured and "measured in" in line and str(tmp_path) in line
    again, line = autotuning.autotune(network, settings, False, None)
    assert again.measured == selector.measured and "as measured before" in line


DAMAGES = {"torn": '{"a": {"b', "list": "[]", "text": '{"a": "b"}', "numbers": '{"a": {"b": 1}}'}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_memory_is_measured_anew_and_a_damaged_run_is_refused(damage, settings_for, measurements, tmp_path):
    """Guards against a start that fails for a file it can make again, and a resume with other algorithms, unasked."""
    run, file = tmp_path / "run", tmp_path / "kept" / autotuning.FILE
    run.mkdir()
    file.parent.mkdir()
    file.write_text(DAMAGES[damage])
    network = construct("shufflenet_v2_x0_25", 3, (3, 32, 32))
    settings = settings_for("data", **NETWORK, cache_dir=str(file.parent))
    selector, _ = autotuning.autotune(network, settings, False, run)
    assert read(run / autotuning.FILE) == selector.measured in read(file).values()
    (run / autotuning.FILE).write_text(DAMAGES[damage])
    with pytest.raises(UserError, match="remove it"):
        autotuning.autotune(network, settings, False, run)


@pytest.mark.parametrize("damage", [[], 1, "fastest"])
def test_an_entry_that_is_no_algorithm_is_measured_anew(damage, settings_for, measurements, tmp_path):
    """Guards against a traceback for a value that somebody has edited, where the rest of the file is sound."""
    network = construct("shufflenet_v2_x0_25", 3, (3, 32, 32))
    settings = settings_for("data", **NETWORK, cache_dir=str(tmp_path))
    selector, _ = autotuning.autotune(network, settings, False, None)
    content = read(tmp_path / autotuning.FILE)
    (algorithms,) = content.values()
    algorithms[next(iter(algorithms))] = damage
    (tmp_path / autotuning.FILE).write_text(json.dumps(content))
    count = len(measurements)
    assert autotuning.autotune(network, settings, False, None)[0].measured == selector.measured
    assert len(measurements) == count + 1


def test_a_memory_that_cannot_be_written_is_said(settings_for, measurements, tmp_path):
    """Guards against a silent end of reproducibility: measured each time, other algorithms may win."""
    (tmp_path / "kept").write_text("")
    network = construct("shufflenet_v2_x0_25", 3, (3, 32, 32))
    settings = settings_for("data", **NETWORK, cache_dir=str(tmp_path / "kept"))
    assert "cannot be written (cache_dir)" in autotuning.autotune(network, settings, False, None)[1]


def test_several_processes_compute_by_rule(settings_for, measurements, monkeypatch):
    """Guards against processes of one training that measure for themselves."""
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    network = construct("shufflenet_v2_x0_25", 3, (3, 32, 32))
    selector, line = autotuning.autotune(network, settings_for("data", **NETWORK), False, None)
    assert not measurements and not selector.measured and not line


@pytest.mark.parametrize(("slow", "expected"), [("product", "paddle"), ("paddle", "product"), ("neither", "product")])
def test_the_rule_is_left_only_for_a_way_that_takes_clearly_less_time(slow, expected, monkeypatch):
    """Guards against choices that change with noise, and against a measurement that keeps the slowest."""
    now = [0.0]
    monkeypatch.setattr(convolutions.time, "perf_counter", lambda: now[0])

    def taking(convolution, name):
        def convolve(layer, images):
            now[0] += 2.0 if name == slow else 1.0 + 0.05 * (name == "product")
            return convolution(layer, images)

        return convolve

    for name, convolution in (("product", by_product), ("paddle", plain)):
        monkeypatch.setitem(convolutions.ALGORITHMS, name, taking(convolution, name))
    assert fastest(nn.Conv2D(4, 4, 1), [2, 4, 5, 5], ["product", "paddle"]) == expected


def test_a_bfloat16_that_won_computes_trained_layers_only():
    """Guards against validation, and frozen layers, in other numbers than evaluate.py's."""
    layer, images = nn.Conv2D(8, 8, 1), paddle.randn([2, 8, 20, 20])
    selector = AlgorithmSelector({convolutions.shape_name(layer, images): "bfloat16"}, bfloat16=True)
    assert selector.algorithm(layer, images) == "bfloat16"
    with paddle.no_grad():
        assert selector.algorithm(layer, images) == "paddle"
    layer.weight.stop_gradient = True
    assert selector.algorithm(layer, images) == "paddle"


def test_what_was_measured_is_used_for_that_layer_only_and_where_it_works(monkeypatch):
    """Guards against a grouped layer computed as one without groups, and a resume where oneDNN computes wrongly."""
    layer, grouped = nn.Conv2D(1, 8, 1), nn.Conv2D(8, 8, 1, groups=8)
    images = {layer: paddle.zeros([2, 1, 9, 9]), grouped: paddle.zeros([2, 8, 9, 9])}
    product = AlgorithmSelector({convolutions.shape_name(layer, images[layer]): "product"})
    assert [product.algorithm(one, images[one]) for one in images] == ["product", "onednn"]
    chosen = AlgorithmSelector({convolutions.shape_name(layer, images[layer]): "onednn"})
    assert chosen.algorithm(layer, images[layer]) == "onednn"
    monkeypatch.setattr(onednn, "fault", lambda dtype: "raises RuntimeError")
    assert chosen.algorithm(layer, images[layer]) == "product"


@pytest.mark.parametrize(
    ("layer", "side", "expected"),
    [
        (nn.Conv2D(8, 8, 1), 7, "product"),
        (nn.Conv2D(8, 8, 1), 8, "paddle"),
        (nn.Conv2D(8, 8, 3, padding=1), 3, "onednn"),
        (nn.Conv2D(3, 8, 3), 20, "onednn"),
        (nn.Conv2D(8, 8, 1, groups=8), 7, "onednn"),
    ],
)
def test_without_a_measurement_the_rule_decides(layer, side, expected):
    """Guards against a rule that sends layers to a slower algorithm."""
    images = paddle.zeros([2, layer.weight.shape[1] * layer._groups, side, side])
    assert AlgorithmSelector().algorithm(layer, images) == expected


def test_what_is_measured_is_what_trains(monkeypatch):
    """Guards against oneDNN's graphs that are measured, and from then on run, without oneDNN."""
    enabled = []

    def convolve(layer, images):
        enabled.append(paddle.get_flags(onednn.FLAG)[onednn.FLAG])
        return plain(layer, images)

    monkeypatch.setitem(convolutions.ALGORITHMS, "onednn", convolve)
    fastest(nn.Conv2D(4, 4, 1), [2, 4, 5, 5], ["onednn"])
    assert enabled and all(enabled)
