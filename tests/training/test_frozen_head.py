"""The head of a frozen network: fitted on features, chosen on valid, and a run like any other afterwards."""

import numpy as np
import paddle
import pytest
from test_distributed import LIMIT_SECONDS, free_port, launch

import evaluate
import train
from features import linear_head
from models.checkpoint import Run
from models.runs import run_settings
from training import fitting, frozen_head

# A graph is compiled for seconds, a few small images are computed at once without one.
FROZEN = {"network": "shufflenet_v2_x0_25", "image_shape": [3, 32, 32], "freeze": True, "cpu_speedups": False}


@pytest.fixture
def frozen(data, settings_for, donor):
    """Settings of a training of the head; `valid` and `train` are the test's own."""
    return lambda **changes: settings_for(
        "data", **FROZEN | {"pretrained": donor(FROZEN["network"], 32), "run_name": "head"} | changes
    )


def test_the_run_is_one_that_every_command_takes(frozen, capsys):
    """Guards against scores of another head than the saved one, and files that later commands miss."""
    settings = frozen(cpu_speedups=True)
    run = train.train(settings)
    history, state = run.history(), run.state
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("strength ")]
    expected = f"strength 10: train loss {history['train_loss'][0]:.4f} accuracy {history['train_accuracy'][0]:.4f}, "
    assert len(lines) == len(linear_head.STRENGTHS) and lines[0].startswith(expected)
    assert history["strength"] == list(linear_head.STRENGTHS)
    assert list(history) == ["strength", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy"]
    rows = [(-history["valid_accuracy"][i], history["valid_loss"][i]) for i in range(len(linear_head.STRENGTHS))]
    best = rows.index(min(rows))
    assert state["best_strength"] == linear_head.STRENGTHS[best] and state["finished"]
    assert {file.name for file in run.path.iterdir()} >= {"curves.png", "summary.txt", "best.pdparams", "last.pdparams"}
    report = evaluate.evaluate(run, run_settings(run, []), "valid")
    assert report["accuracy"] == pytest.approx(state["best_accuracy"])
    assert report["loss"] == pytest.approx(state["best_loss"], rel=1e-3)
    assert any("strength" in remark for remark in report["remarks"])


def test_valid_images_choose_and_do_not_train(frozen, data):
    """Guards against a head that was fitted on the images that choose it."""
    heads = []
    original = linear_head.fit

    def noted(features, labels, *rest):
        assert len(labels) == 18
        for head in original(features, labels, *rest):
            heads.append(head)
            yield head

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear_head, "fit", noted)
        train.train(frozen())
    lines = (data / "valid.txt").read_text().splitlines()
    other = [f"{line.rpartition(chr(9))[0]}\t{(int(line[-1]) + 1) % 3}" for line in lines]
    (data / "valid.txt").write_text("\n".join(other) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear_head, "fit", noted)
        train.train(frozen(run_name="other"))
    for one, two in zip(heads[:6], heads[6:], strict=True):
        np.testing.assert_array_equal(one.weight, two.weight)


@pytest.mark.effect("features")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"features": "off"}, "features=off"),
        ({"augment": {"mixup": 0.2}}, "mixed images"),
        ({"augment": {"cutmix": 1.0}}, "mixed images"),
        ({"loss": "focal"}, "loss=focal"),
        ({"network": "squeezenet1_1"}, "the logits of squeezenet1_1"),
    ],
)
def test_what_features_cannot_do_is_trained_by_epochs(frozen, donor, capsys, changes, reason):
    """Guards against a setting that is left aside without a word."""
    if "network" in changes:
        changes["pretrained"] = donor(changes["network"], 32)
    run = train.train(frozen(epochs=1, **changes))
    out = capsys.readouterr().out
    assert ("epoch" in run.history()) == bool(reason)
    assert f"head: trained by epochs ({reason}" in out if reason else "head: fitted on features; augment, epochs" in out


@pytest.mark.parametrize("balance", ["none", "weights", "sampling"])
def test_rare_classes_count_as_class_balance_says(frozen, data, balance):
    """Guards against class_balance that has no part in a fitted head."""
    lines = (data / "train.txt").read_text().splitlines()
    (data / "train.txt").write_text("\n".join(line for line in lines if line[-1] != "0" or "0" in line[-9:-6]) + "\n")
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear_head, "fit", lambda *arguments: seen.append(arguments[3]) or 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train.train(frozen(class_balance=balance))
    assert seen == [balance != "none"]


def test_the_same_twice_and_nothing_left_to_resume(frozen, call, arguments_for, donor, data):
    """Guards against a head that differs from run to run, and a resume that spoils a finished one."""
    first, second = (train.train(frozen(run_name=name, cache="none")) for name in ("one", "two"))
    for kind in ("best", "last"):
        one, two = (paddle.load(str(run.path / f"{kind}.pdparams")) for run in (first, second))
        assert all((one[key].numpy() == two[key].numpy()).all() for key in one)
    before = (first.path / "best.pdparams").read_bytes()
    arguments = arguments_for("data", **FROZEN, pretrained=donor(FROZEN["network"], 32), run_name="one", cache="none")
    ended = call(train, *arguments, "resume=true")
    assert ended.status == 0 and "its head is fitted" in ended.out
    assert (first.path / "best.pdparams").read_bytes() == before
    call(train, *arguments).refused("a run of this name exists")


def test_unfreezing_goes_on_from_the_fitted_head(frozen, monkeypatch):
    """Guards against epochs that begin with a random head, at the first step's learning rate, or forget the head."""
    started = []

    def noted(session, network, *rest):
        started.append((session.epoch, session.schedule.last_epoch, network.network.state_dict()["_fc.weight"].numpy()))
        return original(session, network, *rest)

    original = fitting.fit
    monkeypatch.setattr(fitting, "fit", noted)
    head = train.train(frozen(run_name="head"))
    run = train.train(frozen(run_name="whole", unfreeze_epoch=3, epochs=4, batch_size=6))
    ((epoch, step, weight),) = started
    assert (epoch, step) == (3, 2 * 3)
    np.testing.assert_array_equal(weight, paddle.load(str(head.path / "best.pdparams"))["_fc.weight"].numpy())
    history = run.history()
    assert history["epoch"] == [2, 3, 4] and history["learning_rate"][0] == 0
    assert history["valid_loss"][0] == pytest.approx(head.state["best_loss"], rel=1e-5)
    assert run.state["finished"] and run.state["epoch"] == 4
    before, after = (paddle.load(str(one.path / "last.pdparams")) for one in (head, run))
    assert all(
        (before[key].numpy() != after[key].numpy()).any() for key in before if key.endswith("conv1._conv.weight")
    )


def test_unfrozen_epochs_resume_bit_for_bit(frozen):
    """Guards against a resume that fits the head anew, and throws the epochs away."""
    changes = {"unfreeze_epoch": 2, "batch_size": 6, "schedule": "constant"}
    whole = train.train(frozen(run_name="whole", epochs=3, **changes))
    train.train(frozen(run_name="parts", epochs=2, **changes))
    parts = train.train(frozen(run_name="parts", epochs=3, resume=True, **changes))
    assert parts.history() == whole.history()
    one, two = (paddle.load(str(run.path / "last.pdparams")) for run in (whole, parts))
    assert all((one[key].numpy() == two[key].numpy()).all() for key in one)


def test_a_killed_fit_can_be_repeated(frozen, monkeypatch):
    """Guards against half a run that neither resume nor the same command takes."""
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(frozen_head.plots, "curves", lambda *_: 1 / 0)
        train.train(frozen())
    run = train.train(frozen(resume=True))
    assert run.state["finished"] and len(run.history()["strength"]) == len(linear_head.STRENGTHS)


def test_bad_input_is_one_line(call, data, arguments_for, donor):
    """Guards against a traceback for one class, and against a frozen network that knows nothing."""
    common = FROZEN | {"pretrained": donor(FROZEN["network"], 32)}
    call(train, *arguments_for("data", **common | {"pretrained": False})).refused("freeze=true", "pretrained=FILE")
    lines = (data / "train.txt").read_text().splitlines()
    (data / "train.txt").write_text("\n".join(line for line in lines if line.endswith("\t1")) + "\n")
    call(train, *arguments_for("data", **common)).refused("train.txt: all images are of one class")


def test_two_processes_fit_the_head_of_one_and_train_on(frozen, data, arguments_for, donor, tmp_path):
    """Guards against features of half the images, rows in another order, and processes that unfreeze other heads."""
    one = train.train(frozen(run_name="one", cache="none"))
    common = FROZEN | {"pretrained": donor(FROZEN["network"], 32), "output_dir": str(tmp_path / "out"), "epochs": 2}
    paths = {"lists_dir": str(data.resolve()), "cache_dir": str(tmp_path / "kept")}
    arguments = arguments_for(data.resolve(), **common, **paths, unfreeze_epoch=2, batch_size=4)
    process = launch(tmp_path, arguments, "--nproc_per_node", "2", "--master", f"127.0.0.1:{free_port()}")
    output = process.communicate(timeout=LIMIT_SECONDS)[0]
    assert process.returncode == 0, output
    two = Run(tmp_path / "out" / "short")
    assert two.state["finished"] and two.history()["epoch"] == [1, 2]
    assert two.history()["valid_loss"][0] == pytest.approx(one.state["best_loss"], rel=2e-3)
    assert two.history()["valid_accuracy"][0] == pytest.approx(one.state["best_accuracy"], abs=1e-5)
    # Of both splits, by the first process alone.
    assert len(list((tmp_path / "kept").iterdir())) == 2
