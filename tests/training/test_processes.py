"""train.py starts several processes itself: they are like one in what is said, saved and resumed."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import paddle
import pytest

import config
import train
from models.checkpoint import Run
from system import machine
from system.errors import UserError
from training import process_count, processes, setup, step_speed

ROOT = Path(train.__file__).parent
SECONDS = 120
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Paddle trains in several processes on Linux only")


def numbers_of(run: Run) -> dict[str, np.ndarray]:
    """Weights, moments and validations of a run, by name."""
    files = [paddle.load(str(run.path / name)) for name in ("best.pdparams", "last.pdparams", "last.pdopt")]
    found = {key: np.asarray(value) for file in files for key, value in file.items() if not isinstance(value, dict)}
    return found | {key: np.array(values) for key, values in run.history().items() if "train" not in key}


@pytest.mark.effect("processes")
def test_two_processes_that_are_killed_go_on_bit_for_bit(data, tmp_path, arguments_for, settings_for, command):
    """Guards against processes that outlive the command, and a resumed run that another number of them trains."""
    for name in ("train.txt", "valid.txt"):  # one image less, which two processes cannot share equally
        (data / name).write_text("".join((data / name).read_text("utf-8").splitlines(True)[1:]), "utf-8")
    changes = {"processes": 2, "epochs": 2, "save_every_minutes": 1e-9}
    whole, killed = (Run(tmp_path / name / "short") for name in ("whole", "killed"))
    line = {run: arguments_for(data, **changes, output_dir=str(run.path.parent)) for run in (whole, killed)}
    ended = command("train.py", *line[whole], cwd=tmp_path)
    assert (ended.status, ended.err) == (0, ""), ended
    assert ", 2 processes\n" in ended.out and ended.out.count("next: ") == 1
    assert (whole.settings.processes, whole.settings.batch_size, whole.state["steps_per_epoch"]) == (2, 6, 3)

    process = subprocess.Popen([sys.executable, str(ROOT / "train.py"), *line[killed]], cwd=tmp_path)
    while process.poll() is None and not killed.state:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not killed.state["finished"]
    with pytest.raises(UserError, match="processes was 2, is 1"):
        setup.open_run(settings_for(data, **changes | {"processes": 1, "resume": True},
                                    output_dir=str(killed.path.parent)), whole.class_names)  # fmt: skip
    ended = command("train.py", *line[killed], "processes=auto", "resume=true", cwd=tmp_path)
    assert ended.status == 0 and "processes: 2 (as the run was begun)" in ended.out, ended
    found = numbers_of(killed)
    for key, value in numbers_of(whole).items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)


# What a process does in the place of a training: its rank is known, and the words are those of a UserError.
MEMBER = """
import os, signal, sys, time
sys.path.insert(0, sys.argv[1])
from system import cli
from system.errors import UserError
from training import processes

def main():
    with processes.membership():
        if os.environ["PADDLE_TRAINER_ID"] == "0":
            FIRST
        else:
            SECOND

cli.command(main)
"""
FAILS, WAITS = "raise UserError('image: is gone; restore it')", "time.sleep(60)"
LINE = "image: is gone; restore it\n"
# What rank 0 does and what rank 1 does; exit status, standard output and standard error of the command.
ENDS = {
    "well": ("print('epoch')", "print('epoch')", 0, "epoch\n", ""),
    "the second fails": (WAITS, FAILS, 1, "", LINE),
    "both fail": (f"time.sleep(1); {FAILS}", FAILS, 1, "", LINE),
    "the first fails": (FAILS, WAITS, 1, "", LINE),
    "the second is killed": (WAITS, "os.kill(os.getpid(), 9)", 137, "", "processes: one of them was killed, perhaps"),
    "the first is killed": ("os.kill(os.getpid(), 9)", WAITS, 137, "", "processes: one of them was killed, perhaps"),
    "a signal": (
        f"signal.signal(15, lambda *_: sys.exit(143)); os.kill(os.getppid(), 15); {WAITS}", WAITS, 143, "", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
def test_processes_end_together_and_say_why_once(tmp_path, capfd, monkeypatch, name):
    """Guards against a job that waits for a process that has gone, and an error that nobody sees, or sees twice."""
    first, second, status, out, err = ENDS[name]
    (tmp_path / "member.py").write_text(MEMBER.replace("FIRST", first).replace("SECOND", second))
    monkeypatch.setattr(processes, "GRACE", 2)
    handlers, started = signal.getsignal(signal.SIGTERM), time.monotonic()
    assert processes.run([str(tmp_path / "member.py"), str(ROOT)], 2) == status
    said = capfd.readouterr()
    assert said.out == out and said.err.startswith(err) and said.err.count("\n") == (1 if err else 0), said
    assert time.monotonic() - started < SECONDS / 4 and signal.getsignal(signal.SIGTERM) == handlers


@pytest.fixture
def auto(settings_for, tmp_path, monkeypatch, capfd):
    """Returns a function: speeds of one and two, changed settings -> the choice of `auto`, and what it printed."""
    monkeypatch.setattr(machine, "cores", lambda: 4)

    def choose(one: float = 0, two: float = 0, **changes) -> tuple[int, str]:
        settings = settings_for(
            "data", **{"processes": "auto", "batch_size": 32, "cache_dir": str(tmp_path / "cache"), **changes}
        )
        seconds = {count: 32 / speed if speed else math.inf for count, speed in ((1, one), (2, two))}
        monkeypatch.setattr(process_count, "seconds_per_step", lambda line, count: seconds[count])
        capfd.readouterr()
        return process_count.choose(settings, []), capfd.readouterr().out

    return choose


def test_auto_takes_two_where_they_are_faster_and_remembers_it(auto, tmp_path):
    """Guards against another choice at each start, and one that was made for another network or another batch."""
    assert auto(100.0, 111.0) == (2, "processes: measuring the speed of one and of two\n"
        "processes: 2 (images/s in one: 100, in two: 111; measured now)\n")  # fmt: skip
    assert auto() == (2, "processes: 2 (images/s in one: 100, in two: 111; measured before)\n")
    assert auto(100.0, 109.0, batch_size=64)[0] == 1
    assert auto(100.0, 99.0, network="resnet50")[0] == 1
    assert auto(100.0, 99.0, amp="bf16")[0] == 1
    assert auto(100.0, 99.0, image_shape=[3, 32, 24])[0] == 1
    assert auto()[0] == 2 and len(json.loads((tmp_path / "cache" / "processes.json").read_text())) == 5


@pytest.mark.parametrize("damage", ["{", "[]", "null", '{"KEY": [1.0]}', '{"KEY": [1.0, -2.0]}', '{"KEY": "ab"}'])
def test_a_damaged_memory_is_measured_anew(auto, tmp_path, damage):
    """Guards against a torn file that stops every training, or decides it."""
    auto(100.0, 150.0)
    file = tmp_path / "cache" / "processes.json"
    (key,) = json.loads(file.read_text())
    file.write_text(damage.replace('"KEY"', json.dumps(key)))
    assert auto(100.0, 99.0)[0] == 1
    assert auto()[0] == 1


def test_a_memory_that_cannot_be_kept_is_said(auto, tmp_path):
    """Guards against a training that a read-only folder stops, or that is measured again without a word."""
    (tmp_path / "file").write_text("")
    number, said = auto(100.0, 150.0, cache_dir=str(tmp_path / "file"))
    assert number == 2 and "measured now, and again next time, for " in said


def test_speeds_that_cannot_be_measured_train_in_one(auto):
    """Guards against a machine without gloo on which nothing trains."""
    number, said = auto(100.0, 0.0)
    assert (number, said.splitlines()[-1]) == (1, "processes: 1 (the speed of two could not be measured)")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"freeze": True, "pretrained": True}, "frozen"),
        ({"folds": 3}, "folds"),
        ({"batch_size": 14}, "below 16"),
        ({"batch_size": 17}, "cannot be divided"),
        ({"device": "gpu"}, "share a CPU"),
    ],
)
def test_auto_is_one_where_two_gain_nothing(auto, changes, reason):
    """Guards against a measurement, or a refusal, where `auto` need only take one."""
    number, said = auto(**changes)
    assert number == 1 and reason in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [("batch_size", 32, "batch_size=33"), ("device", "gpu", "device=cpu"), ("platform", "darwin", "Linux only")],
)
def test_a_number_that_is_not_possible_is_refused(settings_for, monkeypatch, setting, value, reason):
    """Guards against a number that is silently another one."""
    changes = {"processes": 3, "batch_size": 33}
    if setting == "platform":
        monkeypatch.setattr(sys, "platform", value)
    else:
        changes[setting] = value
    with pytest.raises(UserError, match="processes=3: ") as refusal:
        process_count.choose(settings_for("data", **changes), [])
    assert reason in str(refusal.value)


def test_one_core_trains_in_one_process(auto, monkeypatch):
    """Guards against two processes that take turns on one core."""
    monkeypatch.setattr(machine, "cores", lambda: 1)
    assert auto() == (1, "processes: 1 (there is one core)\n")


def test_a_program_trains_in_its_own_process(settings_for):
    """Guards against a run of train.train() that says it was trained in several, with a part of the batch."""
    settings = setup.checked_settings(settings_for("data", processes="auto"))
    assert settings.processes == 1 and processes.images_per_process(settings) == 6
    with pytest.raises(UserError, match="only the command"):
        setup.checked_settings(settings_for("data", processes=2))


def test_steps_are_measured(settings_for, monkeypatch):
    """Guards against a measurement that fails, and so never chooses two."""
    monkeypatch.setattr(step_speed, "SECONDS", 0.0)
    assert step_speed.seconds_per_step(settings_for("data")) > 0


@pytest.mark.slow
def test_auto_measures_and_trains(drawn, tmp_path, arguments_for, command):
    """Guards against an option that measures nothing on a real machine."""
    arguments = arguments_for(drawn, processes="auto", batch_size=16)
    ended = command("train.py", *arguments, cwd=tmp_path)
    assert ended.status == 0 and "; measured now)" in ended.out, ended
    number = Run(tmp_path / "output" / "short").settings.processes
    assert number in (1, 2) and f"processes: {number} (images/s in one: " in ended.out
    assert os.listdir(tmp_path / ".cache") == ["processes.json"]
    assert config.load(None, arguments).processes == "auto"
