"""Number of processes that a network is trained in on this CPU: what is possible, and what is faster."""

import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import config
from system import machine
from system.errors import UserError
from system.publishing import finish_publishing
from system.settings import Settings
from training import processes
from training.measurements import circumstances, paddle_build, remember, remembered

# `auto` chooses between one and two: each process has its own batch norm, and more than two have not been measured.
SEVERAL = 2
# Two have to be so much faster than one, and each has to have so many images for batch norm.
GAIN, LEAST_IMAGES = 1.1, 8
FILE = "processes.json"
# Settings that the ratio of the speeds depends on.
SPEED = ("network", "image_shape", "batch_size", "amp", "threads", "cpu_speedups")
# Seconds after which a measurement is given up.
LIMIT = 300


def choose(settings: Settings, line: Sequence[str]) -> int:
    """Chooses in how many processes to train; with `auto` prints which and why.

    Args:
        line: The command, which with --measure measures the speed.

    Returns:
        The number: of the setting; with `auto` the one of the run that is resumed, else the faster one.

    Raises:
        UserError: So many are not possible here.
    """
    number = settings.processes
    if number == "auto":
        number, reason = _of_run(settings) or _without_measuring(settings) or _faster(settings, line)
        print(f"processes: {number} ({reason})", flush=True)
    if number > 1 and (obstacle := _obstacle(settings, number)):
        raise UserError(f"processes={number}: {obstacle}")
    return number


def _of_run(settings: Settings) -> tuple[int, str] | None:
    folder = settings.run / "fold1" if settings.folds else settings.run
    finish_publishing(folder)
    if not (settings.resume and (folder / "state.json").is_file()):
        return None
    number = config.load(base=folder / "config.yaml").processes
    return None if number == "auto" else (number, "as the run was begun")


def _obstacle(settings: Settings, number: int) -> str:
    """Returns why a step cannot be divided among so many processes, with a remedy; "" if it can."""
    if sys.platform != "linux":
        return "Paddle trains in several processes on Linux only; use processes=1"
    if settings.device.startswith("gpu") or (settings.device == "auto" and "gpu" in paddle_build()):
        return "they share a CPU; use device=cpu, processes=1, or paddle.distributed.launch for several GPUs"
    if rest := settings.batch_size % number:
        size = settings.batch_size
        return f"batch_size={size} cannot be divided among them; use batch_size={size - rest + number}, or processes=1"
    return ""


def _without_measuring(settings: Settings) -> tuple[int, str] | None:
    """Returns 1 and why, where several processes are not possible or known to gain nothing."""
    if settings.freeze:
        return 1, "the features of a frozen network are computed in one"
    if settings.folds:
        return 1, "folds are trained in one unless a number is set"
    if machine.cores() < SEVERAL:
        return 1, "there is one core"
    if settings.batch_size < SEVERAL * LEAST_IMAGES:
        return 1, f"batch_size is below {SEVERAL * LEAST_IMAGES}"
    obstacle, _, _ = _obstacle(settings, SEVERAL).partition("; ")
    return (1, obstacle) if obstacle else None


def _faster(settings: Settings, line: Sequence[str]) -> tuple[int, str]:
    """Returns the faster number of processes, and both speeds, which are measured once per machine and network."""
    file = Path(settings.cache_dir) / FILE
    key = circumstances(*(f"{name}={getattr(settings, name)}" for name in SPEED))
    known = remembered(file)
    speeds, when = _sound(known.get(key)), "measured before"
    if speeds is None:
        print("processes: measuring the speed of one and of two", flush=True)
        speeds = _sound([settings.batch_size / seconds_per_step(line, count) for count in (1, SEVERAL)])
        if speeds is None:
            return 1, "the speed of two could not be measured"
        when = "measured now" + remember(file, known | {key: speeds})
    one, several = speeds
    return SEVERAL if several >= GAIN * one else 1, f"images/s in one: {one:.3g}, in two: {several:.3g}; {when}"


def seconds_per_step(line: Sequence[str], count: int) -> float:
    """Measures a step of `count` processes on made-up images; infinite if that failed."""
    silent = [subprocess.DEVNULL] * count
    with processes.started([*line, "--measure"], count, subprocess.PIPE, silent) as members:
        try:
            output, _ = members[0].communicate(timeout=LIMIT)
            return float(output.splitlines()[-1])
        except (subprocess.TimeoutExpired, ValueError, IndexError):
            return math.inf


def _sound(found: Any) -> list[float] | None:
    """Returns images/s in one process and in several, if that is what was found."""
    is_pair = isinstance(found, list) and len(found) == 2 and all(isinstance(one, float) for one in found)
    return found if is_pair and min(found) > 0 and math.isfinite(sum(found)) else None
