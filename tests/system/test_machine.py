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
        "import config\nfrom system import machine, processor\n"
        "assert 'paddle' not in sys.modules\n"
        "machine.prepare(config.load(None, ['threads=2']))\n"
        "assert 'paddle' in sys.modules\n"
        "print(os.environ['OMP_NUM_THREADS'])\n"
        "print(machine.describe(config.load(), 'cpu'), '; AMD' * processor.is_amd())\n"
    )
    ended = command(script, str(config.DEFAULTS.parent), cwd=tmp_path, OMP_NUM_THREADS="7")
    assert (ended.status, ended.out.splitlines()[0]) == (0, "2"), ended
    line = ended.out.splitlines()[1]
    assert line.startswith("cpu, 2 threads, faster layers and memory") and "slow path" not in line
    assert ("MKL's fast path" in line) == line.endswith("AMD ; AMD"), line
    assert "OMP_NUM_THREADS" not in ended.err


PADDLE_FIRST = """
import os, sys; sys.path.insert(0, sys.argv[1])
for name in ("OMP_NUM_THREADS", "MKL_DEBUG_CPU_TYPE", "FLAGS_use_stride_kernel"):
    os.environ.pop(name, None)
import paddle
import config
from system import machine, processor
settings = config.load(None, ["threads=2"])
if sys.argv[2] == "computed":
    (paddle.ones([8, 8]) @ paddle.ones([8, 8])).numpy()
machine.prepare(settings)
paddle.nn.Conv2D(3, 4, 3)(paddle.ones([1, 3, 9, 9]))
print(paddle.get_flags("FLAGS_use_stride_kernel"), processor.is_amd())
print(machine.describe(settings, "cpu"))
"""


@pytest.mark.parametrize("before", ["imported", "computed"])
def test_what_can_still_be_set_is_set_when_paddle_came_first(command, tmp_path, before):
    """Guards against a notebook that computes with one thread, and against a line that claims what is not in force."""
    (tmp_path / "first.py").write_text(PADDLE_FIRST)
    ended = command("first.py", str(config.DEFAULTS.parent), before, cwd=tmp_path, root=tmp_path)
    assert ended.status == 0, ended.err
    flags, line = ended.out.splitlines()
    assert "False" in flags and line.startswith("cpu, 2 threads, faster layers and memory")
    if flags.endswith("True"):
        is_fast = line.endswith("MKL's fast path on AMD")
        assert is_fast == (before == "imported") and ("MKL's slow path" in line) == (before == "computed"), line


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
