"""Settings have the effects that config.yaml promises: those that no test of a room covers, through the real path.

`@pytest.mark.effect(...)` stands at each test that would fail if a setting were ignored; every setting has one.
"""

import importlib.util
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle import nn

import annotate
import config
import export
import predict
import train
from annotation import worker_pool
from evaluation import calibration
from evaluation.predictors import RunModel
from models import factory
from training import optim, setup
from training.session import Session

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def page():
    """docs/effects.py, which writes the table of effects."""
    specification = importlib.util.spec_from_file_location("effects", ROOT / "docs" / "effects.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_every_setting_has_a_test_of_its_effect(page):
    """Guards against a setting that is read, validated, saved, and changes nothing."""
    assert set(page.effects()) == set(config.known_keys())


def test_the_page_of_tests_is_up_to_date(page):
    """Guards against a table in docs/tests.md that names tests of yesterday."""
    assert page.PAGE.read_text("utf-8") == page.render(page.PAGE.read_text("utf-8")), "run `python make.py docs`"


@pytest.mark.effect("valid_fraction", "test_fraction")
def test_splits_that_are_made_have_their_fractions(draw_data, tmp_path, call):
    """Guards against fractions of the default size, or exchanged."""
    data = draw_data(tmp_path / "data", ["ox", "dog"], {"train": 20, "valid": 0, "test": 0}) / "train"
    arguments = ["valid_fraction=0.25", "test_fraction=0.4", "duplicates=none", "scan_workers=1"]
    assert call(annotate, f"data_dir={data}", *arguments).status == 0
    lines = {split: len((data / f"{split}.txt").read_text().splitlines()) for split in ("train", "valid", "test")}
    assert lines == {"train": 14, "valid": 10, "test": 16}


@pytest.mark.effect("scan_workers")
def test_as_many_processes_scan_as_asked_for(data, call, monkeypatch):
    """Guards against one process per core on a machine that others work on."""
    counts, original = [], worker_pool.Pool
    monkeypatch.setattr(worker_pool, "Pool", lambda count, *rest: counts.append(count) or original(count, *rest))
    assert call(annotate, "--fresh", "data_dir=data", "scan_workers=3").status == 0
    assert counts == [3]


@pytest.mark.effect("mean", "std")
def test_a_network_normalises_by_the_settings(settings_for):
    """Guards against ImageNet's mean and std, whatever a run was told."""
    network, _ = factory.build(settings_for("data", mean=[0.1, 0.2, 0.3], std=[0.5, 0.25, 1.0]), 3)
    levels = np.array([51, 102, 255]).reshape(1, 3, 1, 1)
    normalised = (levels * network.scale.numpy() + network.shift.numpy()).ravel()
    np.testing.assert_allclose(normalised, [(0.2 - 0.1) / 0.5, (0.4 - 0.2) / 0.25, 0.7], rtol=1e-5)


@pytest.mark.effect("momentum", "learning_rate")
def test_momentum_carries_a_part_of_the_last_step(settings_for):
    """Guards against another momentum than the one that was set."""
    settings = settings_for("data", optimizer="momentum", momentum=0.5, learning_rate=0.1, weight_decay=0,
                            schedule="constant")  # fmt: skip
    layer = nn.Linear(1, 1, bias_attr=False)
    optimizer = optim.make_optimizer(settings, layer, optim.Schedule(settings, 4))
    places = [float(layer.weight)]
    for _ in range(3):
        layer(paddle.ones([1, 1])).sum().backward()
        optimizer.step()
        optimizer.clear_grad()
        places.append(float(layer.weight))
    np.testing.assert_allclose(-np.diff(places), [0.1, 0.15, 0.175], rtol=1e-5)


@pytest.mark.effect("optimizer", "weight_decay")
@pytest.mark.parametrize("name, kind", [("adam", "Adam"), ("adamw", "AdamW"), ("momentum", "Momentum")])
def test_the_optimizer_and_its_decay_are_those_of_the_settings(settings_for, name, kind):
    """Guards against another optimizer than the one that was named, and a decay of another strength."""
    settings = settings_for(
        "data", optimizer=name, weight_decay=0.2, momentum=0.0, learning_rate=0.1, schedule="constant"
    )
    layer = nn.Linear(1, 1, bias_attr=False)
    before = float(layer.weight.reshape([]))
    optimizer = optim.make_optimizer(settings, layer, optim.Schedule(settings, 4))
    assert type(optimizer).__name__ == kind
    (0 * layer(paddle.ones([1, 1]))).sum().backward()
    optimizer.step()
    # With a gradient of zero only the decay moves the weight; Adam makes steps of one size of it.
    expected = {"AdamW": before * 0.98, "Momentum": before * 0.98, "Adam": before - 0.1 * np.sign(before)}[kind]
    assert float(layer.weight.reshape([])) == pytest.approx(expected, rel=1e-4)


@pytest.mark.effect("ema")
def test_best_weights_are_the_average_where_there_is_one(drawn, settings_for, tmp_path):
    """Guards against an average that is kept and never saved."""
    differ = {}
    for ema in (0.0, 0.9):
        run = train.train(settings_for(drawn, epochs=1, ema=ema, output_dir=str(tmp_path), run_name=str(ema)))
        best, last = (paddle.load(str(run.path / f"{kind}.pdparams")) for kind in ("best", "last"))
        differ[ema] = any((best[name] != last[name]).any() for name in best)
    assert differ == {0.0: False, 0.9: True}


@pytest.mark.effect("save_every_minutes")
@pytest.mark.parametrize("minutes, expected", [(1e-9, 6), (1000, 0)])
def test_a_training_is_saved_within_an_epoch(drawn, settings_for, tmp_path, monkeypatch, minutes, expected):
    """Guards against an hour of work that a power cut takes, and against a disk that is written to all the time."""
    saved, original = [], Session.save
    monkeypatch.setattr(Session, "save", lambda session, network: saved.append(1) or original(session, network))
    train.train(settings_for(drawn, epochs=2, save_every_minutes=minutes, output_dir=str(tmp_path)))
    assert len(saved) == expected


@pytest.mark.effect("top_k")
def test_as_many_classes_are_shown_as_asked_for(trained, drawn, call):
    """Guards against five classes where one was asked for."""
    image = next((drawn / "test").rglob("*.jpg"))
    for count in (1, 2):
        ended = call(predict, str(image), "--run", str(trained.path), f"top_k={count}", "device=cpu")
        assert ended.status == 0 and ended.out.count(", ") == count - 1


@pytest.mark.effect("engine", "export_dir")
def test_an_export_lies_and_runs_where_it_was_asked_to(trained, drawn, tmp_path, call):
    """Guards against an export in another folder, and against any engine in the place of the one that was named."""
    exported = export.export(trained, trained.settings.model_copy(update={"export_dir": str(tmp_path)}))
    assert exported == tmp_path / trained.name and exported.is_dir()
    image = str(next((drawn / "test").rglob("*.jpg")))
    assert call(predict, image, "--model", str(exported), "engine=plain", "device=cpu").status == 0
    call(predict, image, "--model", str(exported), "engine=int8", "device=cpu").refused("int8")


@pytest.mark.effect("reject", "reject_target")
def test_the_threshold_is_the_one_that_was_asked_for(settings_for):
    """Guards against a threshold by coverage where precision was asked for, and against another target."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 400)
    logits = 1.5 * np.eye(3)[labels] + generator.standard_normal((400, 3))
    assert calibration.fit(logits, labels, settings_for("data", reject="off"))["threshold"] is None
    for target in (0.6, 0.8):
        found = calibration.fit(logits, labels, settings_for("data", reject="coverage", reject_target=target))
        assert found["coverage"] == pytest.approx(target, abs=0.01)
    found = calibration.fit(logits, labels, settings_for("data", reject="precision", reject_target=0.9))
    assert 0.9 <= found["precision"] < 0.92


@pytest.mark.effect("explain_layer")
def test_the_layer_that_was_named_explains(trained):
    """Guards against heat maps of the last layer under another layer's name."""
    images = np.random.default_rng(0).integers(0, 256, (1, 3, 24, 24), np.uint8)
    maps = {
        layer: RunModel(trained, trained.settings.model_copy(update={"explain_layer": layer})).explain(images, [0])
        for layer in ("auto", "0", "3")
    }
    assert (maps["0"] != maps["3"]).any() and (maps["0"] != maps["auto"]).any()


@pytest.mark.effect("cpu_speedups")
def test_paddles_own_layers_train_where_speedups_are_off(settings_for):
    """Guards against faster layers that somebody has switched off to compare."""
    network, _ = factory.build(settings_for("data"), 3)
    for wanted in (True, False):
        with setup.accelerated(network, settings_for("data", cpu_speedups=wanted), "cpu"):
            assert any("forward" in vars(layer) for layer in network.sublayers()) == wanted
