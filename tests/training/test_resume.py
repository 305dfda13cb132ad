"""An interrupted training goes on as if nothing had happened, and no interruption costs the last good point."""

import fcntl
import json
import os
import pty
import random
import resource
import shutil
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import paddle
import pytest

import config
import train
from models import checkpoint
from models.checkpoint import Run
from system.errors import UserError
from training import autotuning, callbacks, setup

ROOT = Path(train.__file__).parent
# Everything that has a state of its own: moments, averages, a schedule with memory, dropout, mixing, groups of steps.
RICH = {
    "network": "shufflenet_v2_x0_25",
    "image_shape": [3, 32, 32],
    "epochs": 3,
    "batch_size": 3,
    "optimizer": "adamw",
    "schedule": "plateau",
    "decay_epochs": 1,
    "ema": 0.9,
    "accumulate": 2,
    "augment": {"mixup": 0.4, "cutmix": 1.0, "randaugment_num_ops": 1, "random_erasing": 0.3},
}


def files_of(run: Run) -> dict[str, dict[str, np.ndarray]]:
    """Every number of every file that a run keeps, by file and name."""
    kept = {}
    for name in ("best.pdparams", "last.pdparams", "last.pdopt", "last.pdema"):
        content = paddle.load(str(run.path / name)) if (run.path / name).exists() else {}
        flat = {key: value for key, value in content.items() if not isinstance(value, dict)}
        flat |= content.get("LR_Scheduler", {})
        kept[name] = {key: np.asarray(value) for key, value in flat.items()}
    return kept


def check_equal(one: Run, other: Run) -> None:
    """Compares two runs bit for bit: weights, optimizer, averages, state and history."""
    first, second = files_of(one), files_of(other)
    for name, content in first.items():
        assert content.keys() == second[name].keys(), name
        for key, value in content.items():
            np.testing.assert_array_equal(value, second[name][key], err_msg=f"{name}: {key}")
    assert one.state == other.state
    assert one.history() == other.history()


@pytest.fixture(scope="module")
def whole(drawn, tmp_path_factory, settings_for) -> Run:
    """A training that nothing interrupted."""
    return train.train(settings_for(drawn, **RICH, output_dir=str(tmp_path_factory.mktemp("whole"))))


class BrokenOffError(Exception):
    """Stands for whatever ends a process."""


def break_off_at(left: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks trainings off right after a save: at the first (epoch, step) of `left`, which the test removes."""
    original = callbacks.StepCheckpoint.on_train_batch_end

    def break_off(checkpoint, step, logs=None):
        reached = left and (checkpoint.session.epoch, checkpoint.session.step) == left[0]
        if reached:
            checkpoint.last_saved = float("-inf")
        original(checkpoint, step, logs)
        if reached:
            raise BrokenOffError

    monkeypatch.setattr(callbacks.StepCheckpoint, "on_train_batch_end", break_off)


@pytest.mark.parametrize("moments", [[(1, 2)], [(2, 4), (3, 6)]])
def test_a_training_that_broke_off_goes_on_bit_for_bit(whole, drawn, tmp_path, settings_for, monkeypatch, moments):
    """Guards against state that a resumed training begins again: moments, learning rate, EMA, dropout, order, sums."""
    settings = settings_for(drawn, **RICH, output_dir=str(tmp_path))
    left = list(moments)
    break_off_at(left, monkeypatch)
    while left:
        with pytest.raises(BrokenOffError):
            train.train(settings.model_copy(update={"resume": left != moments}))
        del left[0]
    check_equal(whole, train.train(settings.model_copy(update={"resume": True})))


def test_dropout_and_unfrozen_weights_go_on_bit_for_bit(drawn, tmp_path, settings_for, monkeypatch, donor):
    """Guards against dropout masks that are drawn again, and against moments that unfrozen weights never had saved."""
    frozen = {"network": "squeezenet1_1", "image_shape": [3, 32, 32], "freeze": True, "unfreeze_epoch": 2, "epochs": 3}
    frozen["pretrained"] = donor("squeezenet1_1", 32)
    settings = settings_for(drawn, **frozen, optimizer="adamw", output_dir=str(tmp_path))
    whole = train.train(settings.model_copy(update={"run_name": "whole"}))
    original = callbacks.StepCheckpoint.on_eval_end

    def break_off(checkpoint, logs=None):
        original(checkpoint, logs)
        raise BrokenOffError

    monkeypatch.setattr(callbacks.StepCheckpoint, "on_eval_end", break_off)
    for resume in (False, True):
        with pytest.raises(BrokenOffError):
            train.train(settings.model_copy(update={"resume": resume}))
    monkeypatch.undo()
    check_equal(whole, train.train(settings.model_copy(update={"resume": True})))


@pytest.mark.effect("amp")
def test_bfloat16_repeats_and_goes_on_bit_for_bit(drawn, tmp_path, settings_for, monkeypatch, bfloat16_cpu, capsys):
    """Guards against bfloat16 that is not used, or differs from run to run, and against weights and scores in it."""
    monkeypatch.setattr(autotuning, "fastest", lambda layer, shape, ways: ways[-1])
    settings = settings_for(drawn, amp="bf16", output_dir=str(tmp_path), cache_dir=str(tmp_path))
    whole = train.train(settings.model_copy(update={"run_name": "whole"}))
    assert ", bfloat16 convolutions, " in capsys.readouterr().out
    other = train.train(settings.model_copy(update={"run_name": "other", "amp": "none"}))
    rounded, exact = files_of(whole)["last.pdparams"], files_of(other)["last.pdparams"]
    assert all(value.dtype == np.float32 for value in rounded.values())
    assert any((value != exact[key]).any() for key, value in rounded.items())
    break_off_at([(2, 1)], monkeypatch)
    with pytest.raises(BrokenOffError):
        train.train(settings)
    check_equal(whole, train.train(settings.model_copy(update={"resume": True})))


def kill_until_done(arguments: list[str], folder: Path, kills: int, number: int, moments: random.Random) -> None:
    """Runs `train.py resume=true` again and again, each time killed at a random moment after some progress."""
    state = folder / "output" / "short" / "state.json"
    line = [sys.executable, str(ROOT / "train.py"), *arguments, "resume=true", f"output_dir={folder / 'output'}"]
    for _ in range(kills):
        before = state.stat().st_mtime_ns if state.exists() else 0
        process = subprocess.Popen(line, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        while process.poll() is None and (not state.exists() or state.stat().st_mtime_ns == before):
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.6))
        process.send_signal(number)
        errors = process.communicate(timeout=240)[1]
        assert process.returncode in (0, -number, 128 + number), errors
    subprocess.run(line, cwd=folder, check=True, timeout=240, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("kills", "number"),
    [
        (3, signal.SIGKILL),
        pytest.param(12, signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param(5, signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_a_training_that_is_killed_at_any_moment_ends_bit_for_bit(
    drawn, tmp_path, arguments_for, settings_for, kills, number, moments
):
    """Guards against a moment, such as between two files of a point, at which a kill costs or changes something."""
    rich = RICH | {"network": "cnn", "epochs": 3 + kills, "save_every_minutes": 1e-6}
    whole = train.train(settings_for(drawn, **rich, output_dir=str(tmp_path / "whole")))
    kill_until_done(arguments_for(drawn, **rich), tmp_path, kills, number, moments)
    check_equal(whole, Run(tmp_path / "output" / "short"))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_saves_first_and_explains_resume(drawn, tmp_path, settings_for, monkeypatch, capfd, number, status):
    """Guards against the loss of up to save_every_minutes of work when a machine is shut down in good order."""
    settings = settings_for(drawn, output_dir=str(tmp_path), epochs=3)
    original = callbacks.StepTracker.on_train_batch_end

    def interrupt(tracker, step, logs=None):
        original(tracker, step, logs)
        if (tracker.session.epoch, tracker.session.step) == (2, 1):
            os.kill(os.getpid(), number)

    handler = signal.getsignal(number)
    monkeypatch.setattr(callbacks.StepTracker, "on_train_batch_end", interrupt)
    # In a notebook Ctrl-C is the stop button, whose error cells know; commands exit with the status (test_cli.py).
    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit) as ended:
        train.train(settings)
    assert number == signal.SIGINT or ended.value.code == status
    assert signal.getsignal(number) is handler
    state = Run(settings.run).state
    assert (state["epoch"], state["step"], state["finished"]) == (1, 1, False)
    assert "resume it with resume=true" in capfd.readouterr().err + str(ended.value)


def test_a_terminal_that_closes_costs_nothing(drawn, tmp_path, arguments_for):
    """Guards against output to a closed terminal, an error that would come before the checkpoint is saved."""
    arguments = arguments_for(drawn, output_dir=str(tmp_path), epochs=10**5)
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        # The terminal has to be the controlling one: only then its end is reported, as SIGHUP.
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(slave)
    shown = b""
    while b"epoch 2/" not in shown:
        shown += os.read(master, 10**5)
    os.close(master)
    assert process.wait(timeout=60) == 128 + signal.SIGHUP
    state = Run(tmp_path / "short").state
    assert state["finished"] is False and (state["epoch"], state["step"]) > (1, 0)


def test_nohup_keeps_a_training_alive(drawn, tmp_path, settings_for, monkeypatch):
    """Guards against a handler in the place of the ignored SIGHUP that nohup hands down."""
    original = callbacks.StepTracker.on_train_batch_end

    def hang_up(tracker, step, logs=None):
        original(tracker, step, logs)
        os.kill(os.getpid(), signal.SIGHUP)

    monkeypatch.setattr(callbacks.StepTracker, "on_train_batch_end", hang_up)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert train.train(settings_for(drawn, output_dir=str(tmp_path))).state["finished"]
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_point_is_old_or_new_whenever_the_process_ends(trained, tmp_path):
    """Guards against weights of one moment beside an optimizer or a state of another."""
    network = trained.load_network()
    run = Run(tmp_path)

    def save(value: int) -> None:
        weights = {key: paddle.full_like(weight, value) for key, weight in network.network.state_dict().items()}
        run.save({"last": weights, "best": weights}, {"moment": paddle.to_tensor(value)}, None, {"value": value})

    save(1)
    seen = set()
    for moment in range(30):
        child = os.fork()
        if child == 0:
            _end_at_replacement(moment)
            save(2 + moment)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        point = Run(tmp_path)
        files = (paddle.load(str(tmp_path / f"{kind}.pdparams")) for kind in ("last", "best"))
        values = {float(next(iter(weights.values())).flatten()[0]) for weights in files}
        values |= {float(paddle.load(str(tmp_path / "last.pdopt"))["moment"]), float(point.state["value"])}
        assert len(values) == 1, (moment, values)
        seen |= values
        if status == 0:
            break
    assert status == 0 and moment >= 4
    assert len(seen) > 1


def _end_at_replacement(moment: int) -> None:
    replace, count = os.replace, [0]

    def counted(*paths):
        if count[0] == moment:
            os._exit(9)
        count[0] += 1
        return replace(*paths)

    os.replace = counted


def test_a_full_disk_costs_nothing(trained, tmp_path):
    """Guards against a checkpoint that is destroyed by the attempt to write a newer one."""
    weights = trained.load_network().network.state_dict()
    run = Run(tmp_path)
    run.save({"last": weights}, state={"value": 1})
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            run.save({"last": weights}, state={"value": 2})
        except UserError as error:
            os._exit(0 if "free some space" in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_run_is_resumed_with_its_own_settings_only(trained, drawn, tmp_path, settings_for):
    """Guards against a training that goes on with another learning rate or on other images under the same name."""
    output = str(trained.path.parent)
    with pytest.raises(UserError, match=r"learning_rate was .*, is 0.5; resume with the run's settings"):
        train.train(settings_for(drawn, output_dir=output, resume=True, learning_rate=0.5))
    shorter = tmp_path / "lists"
    shorter.mkdir()
    for name in ("labels.txt", "train.txt", "valid.txt"):
        rows = (drawn / name).read_text().splitlines()
        (shorter / name).write_text("".join(f"{row}\n" for row in (rows[1:] if name == "train.txt" else rows)))
    settings = settings_for(drawn, output_dir=str(tmp_path / "output"))
    train.train(settings)
    state = json.loads((settings.run / "state.json").read_text())
    (settings.run / "state.json").write_text(json.dumps(state | {"pictures": 99, "epoch": 1}))
    with pytest.raises(UserError, match="images was 99, is 18"):
        train.train(settings.model_copy(update={"resume": True}))


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_run_is_not_resumed_with_other_labels(data, settings_for, split):
    """Guards against labels exchanged between two parts of one training, in lists that stay equally long."""
    settings = settings_for("data", epochs=1)
    train.train(settings)
    rows = [line.split("\t") for line in (data / f"{split}.txt").read_text().splitlines()]
    rows[0][1] = str((int(rows[0][1]) + 1) % 3)
    (data / f"{split}.txt").write_text("".join(f"{path}\t{label}\n" for path, label in rows))
    with pytest.raises(UserError, match=rf"{split}\.txt has other rows; resume with the same lists"):
        train.train(settings.model_copy(update={"resume": True, "epochs": 2}))


def test_another_number_of_threads_is_reported(drawn, tmp_path, settings_for, capfd):
    """Guards against a resume that is believed to be bit for bit although threads add in another order."""
    settings = settings_for(drawn, output_dir=str(tmp_path), threads=1)
    assert train.train(settings).state["threads"] == 1
    train.train(settings.model_copy(update={"resume": True, "epochs": 3}))
    assert "threads" not in capfd.readouterr().err
    train.train(settings.model_copy(update={"resume": True, "epochs": 4, "threads": 2}))
    assert "trained with 1 threads, now with 2" in capfd.readouterr().err


@pytest.mark.effect("epochs", "resume", "run_name")
def test_a_finished_run_stays_and_can_be_made_longer(drawn, tmp_path, settings_for, capfd):
    """Guards against a resume that trains a finished run again, or that cannot add epochs to it."""
    settings = settings_for(drawn, output_dir=str(tmp_path), schedule="constant")
    run = train.train(settings)
    weights = (run.path / "last.pdparams").read_bytes()
    train.train(settings.model_copy(update={"resume": True}))
    assert "all 2 epochs are done" in capfd.readouterr().out
    assert (run.path / "last.pdparams").read_bytes() == weights
    train.train(settings.model_copy(update={"resume": True, "epochs": 4}))
    whole = train.train(settings.model_copy(update={"epochs": 4, "run_name": "whole"}))
    check_equal(whole, run)


def test_resume_never_removes_weights(trained, drawn, tmp_path, arguments_for, call):
    """Guards against a night of training removed by resume=true because its state.json was lost."""
    shutil.copytree(trained.path, tmp_path / trained.name)
    (tmp_path / trained.name / "state.json").unlink()
    before = (tmp_path / trained.name / "best.pdparams").read_bytes()
    ended = call(train, *arguments_for(drawn, output_dir=str(tmp_path), resume=True))
    ended.refused("state.json is missing", "overwrite=true")
    assert (tmp_path / trained.name / "best.pdparams").read_bytes() == before


def test_a_second_training_in_one_folder_is_refused(trained, drawn, tmp_path, arguments_for, call):
    """Guards against two trainings that write over each other and both say they are done."""
    settings = config.load(None, arguments_for(drawn, output_dir=str(tmp_path)))
    with setup.lock_run(settings):
        call(train, *arguments_for(drawn, output_dir=str(tmp_path))).refused("another train.py is at work in it")
    assert call(train, *arguments_for(drawn, output_dir=str(tmp_path))).status == 0


@pytest.mark.parametrize("last", [False, True], ids=["during", "at the end"])
@pytest.mark.effect("output_dir")
def test_a_folder_that_is_removed_during_a_training_is_said(drawn, tmp_path, arguments_for, call, monkeypatch, last):
    """Guards against a training that says it is done while its weights have gone."""
    original = callbacks.StepCheckpoint.on_eval_end

    def remove(callback, logs=None):
        original(callback, logs)
        if (callback.session.epoch == 2) == last:
            shutil.rmtree(callback.session.run.path)

    monkeypatch.setattr(callbacks.StepCheckpoint, "on_eval_end", remove)
    ended = call(train, *arguments_for(drawn, output_dir=str(tmp_path)))
    ended.refused("the folder was removed while it was trained", "nothing is left" if last else "made again")
    if not last:
        run = Run(tmp_path / "short")
        assert run.settings.epochs == 2 and run.load_network() and run.state["finished"]


def test_what_an_earlier_release_trained_with_is_kept(drawn, tmp_path, settings_for):
    """Guards against a run that cannot be resumed, or sees other colours, because a setting was added since."""
    settings = settings_for(drawn, output_dir=str(tmp_path), schedule="constant", image_shape=[3, 24, 32])
    run = train.train(settings)
    old = config.read_yaml(run.path / "config.yaml")
    old.pop("color_profile")
    (run.path / "config.yaml").write_text(config.yaml.safe_dump(old | {"format": 2}))
    for epochs in (3, 4):
        train.train(settings.model_copy(update={"resume": True, "epochs": epochs}))
        assert (run.settings.color_profile, run.settings.resize) == ("ignore", "crop_short")
    with pytest.raises(UserError, match="resize was crop_short, is stretch"):
        train.train(settings.model_copy(update={"resume": True, "epochs": 5, "resize": "stretch"}))


def test_resume_without_a_saved_point_trains_from_the_start(drawn, tmp_path, settings_for):
    """Guards against a job script with resume=true that fails at its first start or after a very early kill."""
    settings = settings_for(drawn, output_dir=str(tmp_path), resume=True, epochs=1)
    Run.create(settings, (drawn / checkpoint.LABELS).read_text().split())
    assert train.train(settings).state["finished"]
    assert config.load(base=settings.run / "config.yaml").resume
