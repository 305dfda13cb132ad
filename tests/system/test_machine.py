"""Threads and device follow the settings, and a seed fixes every random number generator."""

import random

import numpy as np
import paddle
import pytest

import config
from system import machine
from system.errors import UserError
from system.settings import Settings


def settings(**values) -> Settings:
    return config.load(None, [f"{key}={value}" for key, value in values.items()])


@pytest.mark.effect("threads")
def test_threads_follow_the_setting(monkeypatch):
    """Guards against idle cores, and against processes of one machine that compete for cores."""
    monkeypatch.setattr(machine, "cores", lambda: 8)
    monkeypatch.delenv("PADDLE_LOCAL_SIZE", raising=False)
    assert machine.threads(settings(threads="auto")) == 8
    assert machine.threads(settings(threads=3)) == 3
    monkeypatch.setenv("PADDLE_LOCAL_SIZE", "2")
    assert machine.threads(settings(threads="auto")) == 4
    monkeypatch.setenv("PADDLE_LOCAL_SIZE", "20")
    assert machine.threads(settings(threads="auto")) == 1


def test_threads_are_set_before_paddle_loads(command, tmp_path):
    """Guards against a paddle that uses one thread because the variable was set after its import."""
    script = tmp_path / "asks.py"
    script.write_text(
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "import config\nfrom system import machine\n"
        "assert 'paddle' not in sys.modules\n"
        "machine.prepare(config.load(None, ['threads=2']))\n"
        "assert 'paddle' in sys.modules\n"
        "print(os.environ['OMP_NUM_THREADS'])\n"
    )
    ended = command(script, str(config.DEFAULTS.parent), cwd=tmp_path, OMP_NUM_THREADS="7")
    assert (ended.status, ended.out) == (0, "2\n"), ended
    assert "OMP_NUM_THREADS" not in ended.err


@pytest.mark.effect("device")
def test_a_missing_gpu_is_refused(monkeypatch):
    """Guards against training on the CPU without notice, and against paddle's page-long error."""
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: False)
    with pytest.raises(UserError, match="device=gpu: this paddle is the CPU build; use device=cpu"):
        machine.select_device(settings(device="gpu"))
    assert machine.select_device(settings(device="auto")) == "cpu"
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="device=gpu:1: paddle sees 1 GPU"):
        machine.select_device(settings(device="gpu:1"))


def test_a_seed_fixes_every_generator():
    """Guards against a seed that does not reach paddle, NumPy or Python."""

    def draws() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(paddle.rand([1])[0])

    machine.seed_all(3)
    first = draws()
    machine.seed_all(3)
    assert draws() == first
    machine.seed_all(4)
    assert all(new != old for new, old in zip(draws(), first, strict=True))
