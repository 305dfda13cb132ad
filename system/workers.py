"""Worker processes that load images: how many, whether there is memory to send batches by, and their death."""

import contextlib
import os
import sys
from collections.abc import Iterator

from system.errors import UserError
from system.machine import cores
from system.settings import Settings

# What paddle says when a worker process has died, depending on what the main thread does at that moment.
DEATHS = ("DataLoader", "Blocking queue is killed")


@contextlib.contextmanager
def reporting_dead_workers() -> Iterator[None]:
    """Makes a UserError of the death of a worker process, which paddle raises wherever the main thread is at work.

    Raises:
        UserError: A worker was killed, by the system for want of memory for example.
    """
    try:
        yield
    except (SystemError, RuntimeError) as error:
        if not any(words in str(error) for words in DEATHS):
            raise
        text = " ".join(str(error).split()).partition(" (at ")[0]
        raise UserError(
            f"num_workers: a process that reads images has ended ({text}), perhaps for want of memory; lower "
            "num_workers or batch_size, or set num_workers=0"
        ) from None


def shared_memory_is_large() -> bool:
    """Whether /dev/shm holds a few batches per worker; containers often have 64 MB, which kills workers."""
    try:
        state = os.statvfs("/dev/shm")
    except (OSError, AttributeError):
        return False
    return state.f_bavail * state.f_frsize >= 1 << 30


def choose_workers(settings: Settings, device: str) -> int:
    """Number of worker processes: the setting, or 0 on the CPU, which the network keeps busy.

    Raises:
        UserError: The setting is above 0 on a system where Paddle has none.
    """
    has_none = sys.platform in ("win32", "darwin")
    if settings.num_workers != "auto":
        if settings.num_workers and has_none:
            raise UserError(
                f"num_workers={settings.num_workers}: Paddle reads in processes on Linux only; use num_workers=auto"
            )
        return settings.num_workers
    return 0 if device == "cpu" or has_none else max(1, min(8, cores() - 1))
