"""train.py as a user runs it: it learns, is reproducible, keeps the best epoch, refuses bad input in one line."""

import re
import shutil
from pathlib import Path

import numpy as np
import paddle
import pytest

import evaluate
import train
from annotation.lists import read_list, read_split, write_list
from imaging.images import read_image
from imaging.transforms import EvalTransform
from models.checkpoint import Run


def weights(run: Run, kind: str = "last") -> dict[str, np.ndarray]:
    loaded = paddle.load(str(run.path / f"{kind}.pdparams"))
    return {key: value.numpy() for key, value in loaded.items() if hasattr(value, "numpy")}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(one[key].tobytes() == other[key].tobytes() for key in one)


def scores(run: Run, data: Path, split: str = "valid") -> tuple[float, float]:
    """Accuracy and mean loss of a run's best weights, computed here."""
    samples, _ = read_split(run.settings.model_copy(update={"data_dir": str(data)}), split)
    transform = EvalTransform.from_settings(run.settings)
    images = np.stack([transform(read_image(sample.file, 10**8)) for sample in samples])
    labels = np.array([sample.label for sample in samples])
    with paddle.no_grad():
        logits = run.load_network()(paddle.to_tensor(images)).numpy().astype(np.float64)
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]
    return float((logits.argmax(1) == labels).mean()), float(losses.mean())


@pytest.fixture
def misleading(data) -> Path:
    """Data whose training labels are all wrong: the longer it trains, the worse the valid loss."""
    rows = [(sample.path, (sample.label + 1) % 3) for sample in read_list(data / "train.txt", 3)]
    write_list(data / "train.txt", rows)
    return data


def test_a_run_holds_what_later_commands_need(trained, drawn):
    """Guards against a run folder without its weights, curves, history or the truth about its best epoch."""
    names = {path.name for path in trained.path.iterdir()}
    needed = {"config.yaml", "labels.txt", "best.pdparams", "last.pdparams", "last.pdopt", "state.json", "history.csv",
              "curves.png", "summary.txt", "vdl"}  # fmt: skip
    assert needed <= names
    assert any((trained.path / "vdl").iterdir())
    history, state = trained.history(), trained.state
    assert history["epoch"] == [1, 2] and state["epoch"] == 2 and state["finished"] is True
    best = history["epoch"].index(state["best_epoch"])
    assert state["best_accuracy"] == pytest.approx(history["valid_accuracy"][best], rel=1e-4)
    assert state["best_loss"] == pytest.approx(history["valid_loss"][best], rel=1e-4)
    assert state["best_accuracy"] == pytest.approx(max(history["valid_accuracy"]), rel=1e-4)
    assert scores(trained, drawn) == pytest.approx((state["best_accuracy"], state["best_loss"]), rel=1e-4)
    assert read_image(trained.path / "curves.png", 10**8).size > (300, 100)
    assert "Total params" in (trained.path / "summary.txt").read_text()


@pytest.mark.effect("seed")
def test_the_same_seed_gives_the_same_weights_bit_by_bit(trained, drawn, settings_for, tmp_path, monkeypatch):
    """Guards against results that nobody can repeat; with another seed they must differ."""
    monkeypatch.chdir(tmp_path)
    again = train.train(settings_for(drawn))
    assert same(weights(again), weights(trained)) and same(weights(again, "best"), weights(trained, "best"))
    assert again.history() == trained.history()
    other = train.train(settings_for(drawn, seed=2, run_name="other"))
    assert not same(weights(other), weights(trained))


def test_a_few_images_are_learned_by_heart(data, settings_for, plain):
    """Guards against a training that does not learn: wrong gradients, mismatched labels, a learning rate of zero."""
    chosen = read_list(data / "train.txt", 3)[::3]
    for split, times in (("train", 25), ("valid", 1)):
        (data / f"{split}.txt").write_text("".join(f"{e.path}\t{e.label}\n" for e in chosen) * times)
    settings = settings_for(data, augment=plain, label_smoothing=0, epochs=3, learning_rate=3e-3, schedule="constant")
    run = train.train(settings)
    history = run.history()
    assert history["train_loss"][0] > 0.2
    assert history["train_loss"][-1] < 0.02 and history["valid_loss"][-1] < 0.02
    assert run.state["best_accuracy"] == 1.0


def test_the_best_weights_are_those_of_the_best_epoch(misleading, settings_for, plain):
    """Guards against best weights saved before the epoch was validated, or the last ones under the name of the best."""
    settings = settings_for(
        misleading, augment=plain, epochs=8, schedule="constant", learning_rate=1e-2, monitor="loss"
    )
    run = train.train(settings)
    losses, state = run.history()["valid_loss"], run.state
    assert state["best_epoch"] == 1 + int(np.argmin(losses)) < 8
    assert scores(run, misleading)[1] == pytest.approx(min(losses), rel=1e-4)
    assert not same(weights(run, "best"), weights(run, "last"))


@pytest.mark.effect("patience")
def test_training_stops_early_when_nothing_gets_better(misleading, settings_for, plain, capfd):
    """Guards against patience that never ends, and against an early stop that counts as unfinished."""
    settings = settings_for(
        misleading, augment=plain, epochs=30, schedule="constant", learning_rate=3e-3, monitor="loss", patience=2
    )
    run = train.train(settings)
    losses = run.history()["valid_loss"]
    assert len(losses) == 1 + int(np.argmin(losses)) + 2 < 30
    assert run.state["finished"] is True and "stopped early" in capfd.readouterr().out


@pytest.mark.parametrize("features", ["auto", "off"])
def test_only_the_head_of_a_frozen_network_is_trained(data, settings_for, donor, features):
    """Guards against transfer learning that changes the frozen backbone, batch norm statistics included."""
    file = donor("shufflenet_v2_x0_25", 32)
    given = {key: value.numpy() for key, value in paddle.load(file).items()}
    changes = {"network": "shufflenet_v2_x0_25", "image_shape": [3, 32, 32], "pretrained": file, "epochs": 1}
    run = train.train(settings_for(data, freeze=True, features=features, **changes))
    trained = weights(run)
    head = {key for key in given if given[key].shape != trained[key].shape}
    assert head and all((trained[key] == given[key]).all() for key in given if key not in head)


def test_a_finished_run_is_not_overwritten(call, data, arguments_for):
    """Guards against the same command typed twice, which would throw a finished training away."""
    assert call(train, *arguments_for("data", epochs=1)).status == 0
    run = Run("output/short")
    before = weights(run)
    call(train, *arguments_for("data", epochs=1, seed=5)).refused("output/short", "overwrite=true")
    assert same(weights(run), before)
    ended = call(train, *arguments_for("data", epochs=1, seed=5, overwrite=True))
    assert ended.status == 0 and not same(weights(run), before)
    assert re.search(r"epoch 1/1: train loss .* accuracy [01]\.\d+, \d+ images/s", ended.out)
    assert "best epoch 1 of 1" in ended.out and "next: python evaluate.py output/short" in ended.out


def _no_lists(data):
    for name in ("train.txt", "valid.txt", "labels.txt"):
        (data / name).unlink()


def _no_valid_list(data):
    (data / "valid.txt").unlink()


def _twice(data):
    (data / "labels.txt").write_text("ox\ndragon\nox\n")


def _no_tab(data):
    (data / "valid.txt").write_text((data / "valid.txt").read_text().replace("\t", " ", 1))


def _no_such_class(data):
    (data / "labels.txt").write_text("ox\ndragon\n")


def _no_such_file(data):
    next((data / "valid" / "dog").glob("*.jpg")).unlink()


def _empty_list(data):
    (data / "train.txt").write_text("")


BAD_DATA = [
    (_no_lists, ["labels.txt", "annotate.py"]),
    (_no_valid_list, ["valid.txt", "annotate.py"]),
    (_twice, ["labels.txt", "line 3 repeats ox"]),
    (_no_tab, ["valid.txt", "line 1 is not PATH<TAB>INDEX"]),
    (_no_such_class, ["train.txt", "not 0 to 1"]),
    (_no_such_file, ["valid.txt", "data/valid/dog/", "missing"]),
    (_empty_list, ["train.txt", "no image"]),
]


@pytest.mark.parametrize("spoil, words", BAD_DATA, ids=lambda value: getattr(value, "__name__", ""))
def test_data_that_do_not_fit_are_refused(call, data, arguments_for, spoil, words):
    """Guards against a traceback, or half a run, for lists that somebody has edited."""
    spoil(data)
    call(train, *arguments_for("data")).refused(*words)
    assert not Path("output").exists()


BAD_SETTINGS = [
    ({"data_dir": "none"}, ["none/labels.txt"]),
    ({"image_shape": [1, 24, 24]}, ["image_shape", "[3, H, W]"]),
    ({"image_shape": [3, 9, 9]}, ["image_shape=[3, 9, 9]", "cnn", "smallest square that works is 18"]),
    ({"network": "resnet51"}, ["resnet51", "resnet50"]),
    ({"pretrained": "none.pdparams"}, ["none.pdparams"]),
    ({"pretrained": "data/labels.txt"}, ["data/labels.txt"]),
    ({"device": "gpu"}, ["device=gpu", "device=cpu"]),
    ({"epoch": 3}, ["epoch", "did you mean epochs?"]),
]


@pytest.mark.parametrize("changes, words", BAD_SETTINGS, ids=lambda value: next(iter(value)))
def test_settings_that_do_not_fit_are_refused(call, data, arguments_for, changes, words):
    """Guards against a traceback, or half a run, for settings that this data, network or machine cannot follow."""
    if "device" in changes and paddle.is_compiled_with_cuda():
        pytest.skip("this paddle has a GPU build")
    call(train, *arguments_for(changes.pop("data_dir", "data"), **changes)).refused(*words)
    assert not Path("output").exists()


def test_usage_errors_end_with_2(call):
    """Guards against scripts that take a mistyped option for a failed training."""
    assert call(train, "--epochs", "3").status == 2
    assert call(evaluate, "--split", "holdout").status == 2


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_image_that_breaks_after_annotate_stops_the_training(command, data, arguments_for, num_workers):
    """Guards against the job that hangs for ever on one broken image, or that does not say which it is."""
    broken = sorted((data / "train" / "dragon").glob("*.jpg"))[1]
    broken.write_bytes(broken.read_bytes()[:300])
    command("train.py", *arguments_for("data", num_workers=num_workers), cwd=Path.cwd(), seconds=180).refused(
        broken.name
    )


def test_a_run_of_other_classes_or_without_weights_is_not_evaluated(call, trained, data, arguments_for):
    """Guards against scores under wrong class names, and against a traceback for an unfinished run."""
    shutil.copytree(trained.path, "run")
    (data / "labels.txt").write_text("ox\ndog\ndragon\n")
    call(evaluate, "run", "data_dir=data").refused("labels.txt", "class 1 is dog", "trained with dragon")
    for file in Path("run").glob("*.pdparams"):
        file.unlink()
    call(evaluate, "run", "data_dir=data").refused("run")
    call(evaluate, "none", "data_dir=data").refused("none")
