"""Device, threads and seeds; the only module that sets environment variables, before paddle is imported."""

import contextlib
import ctypes
import functools
import importlib.metadata
import io
import os
import platform
import random
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from system.errors import UserError
from system.settings import Settings

# mallopt's parameter numbers in glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
# Threads that network=cnn gains from: 1.1 times one with batches of 32, 1.3 with 128 (measured on 2 cores).
MAX_THREADS_CNN = 2


def cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def rank() -> tuple[int, int]:
    """Rank of this process and world size, as set by `python -m paddle.distributed.launch`."""
    return int(os.environ.get("PADDLE_TRAINER_ID") or 0), int(os.environ.get("PADDLE_TRAINERS_NUM") or 1)


def shares(count: int, threads: int) -> list[list[int]]:
    """Divides the cores among `count` processes, `threads` each; empty lists where there are too few cores."""
    if not hasattr(os, "sched_getaffinity") or count * threads > cores():
        return [[] for _ in range(count)]
    own = sorted(os.sched_getaffinity(0))
    return [own[index * threads : (index + 1) * threads] for index in range(count)]


def bind(own: Sequence[int]) -> None:
    """Pins this process to these cores; does nothing for an empty list.

    OpenVINO binds a process of one thread to the first core it may use: several such processes would share one core.
    """
    if own and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, own)


@functools.cache
def is_amd() -> bool:
    """Returns True on an AMD processor."""
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "AMD" in platform.processor()


def threads(settings: Settings) -> int:
    """Number of CPU threads per process: the setting, or all cores divided among the processes of this machine.

    network=cnn has too little work for more than MAX_THREADS_CNN: threads would wait longer than they compute.
    """
    if settings.threads != "auto":
        return max(1, settings.threads)
    local = int(os.environ.get("PADDLE_LOCAL_SIZE") or 1)
    share = max(1, cores() // local)
    return min(MAX_THREADS_CNN, share) if settings.network == "cnn" else share


def prepare(settings: Settings) -> None:
    """Sets the environment variables that paddle reads on import, then imports it.

    Every command that uses paddle calls this first; once paddle is imported, it does nothing.
    """
    if "paddle" in sys.modules:
        return
    # Paddle would set 1 and leave every other core idle.
    os.environ["OMP_NUM_THREADS"] = str(threads(settings))
    if settings.cpu_speedups:
        # Views save a transpose's copy and then pay for it twelvefold when a matrix product makes it (3.2.2, CPU).
        os.environ.setdefault("FLAGS_use_stride_kernel", "0")
        if is_amd():
            # Paddle's MKL takes a slow path on AMD unless AVX2 is forced: 2.6 times slower for ResNet50.
            os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")
        _keep_memory()
    # Hides log lines about executors and oneDNN that are for paddle's developers; warnings are still shown.
    os.environ.setdefault("GLOG_minloglevel", "1")
    # Paddle prints advice to use one thread wherever OMP_NUM_THREADS is above 1.
    with contextlib.redirect_stderr(io.StringIO()):
        import paddle  # noqa: F401
    # Paddle's own handler prints a C++ traceback at SIGTERM, which is no fault.
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    """The C library if it is glibc, whose allocator can be tuned."""
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def _keep_memory() -> None:
    """Makes the C library keep freed memory.

    By default it returns every large block to the kernel and takes it back at the next operator: a page fault for
    each 4 KiB of each activation, 12-15 % of a ResNet50 step on the CPU.
    """
    if libc := _glibc():
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, 1 << 30)


def release_memory() -> None:
    """Returns freed memory to the system that `prepare` lets the C library keep."""
    if libc := _glibc():
        libc.malloc_trim(0)


def return_large_blocks() -> None:
    """Makes the C library return every large block to the system once it is freed, and grow it without a copy.

    By default it keeps blocks of up to 32 MiB in its heap once it has freed one of that size.
    """
    if libc := _glibc():
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 20)


def share_one_heap() -> None:
    """Makes all threads allocate from one heap; to be called before any thread starts.

    By default glibc gives each thread a heap of its own, and each keeps what its largest images needed, so that memory
    grows over the first thousands of images: decoding alone peaked at 396 MiB that way, at 349 MiB with one heap.
    """
    if libc := _glibc():
        libc.mallopt(M_ARENA_MAX, 1)


def warn_of_two_builds() -> None:
    """Says on stderr that both builds of Paddle are installed: the one installed last has overwritten the other."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        builds = [f"{name} {importlib.metadata.version(name)}" for name in ("paddlepaddle", "paddlepaddle-gpu")]
        print(
            f"paddle: {' and '.join(builds)} are both installed and overwrite each other; "
            "`pip uninstall paddlepaddle paddlepaddle-gpu`, then install one of them",
            file=sys.stderr,
        )


def select_device(settings: Settings) -> str:
    """Selects the device of the settings for paddle.

    Returns:
        The device name, for example "cpu" or "gpu:0".

    Raises:
        UserError: A GPU is requested, but this paddle or machine has none.
    """
    import paddle

    gpus = paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
    wanted = settings.device
    if wanted == "auto":
        wanted = "gpu" if gpus else "cpu"
    if wanted.startswith("gpu"):
        if not paddle.is_compiled_with_cuda():
            raise UserError(
                f"device={wanted}: this paddle is the CPU build; use device=cpu or install paddlepaddle-gpu"
            )
        index = int(wanted.partition(":")[2] or os.environ.get("FLAGS_selected_gpus") or 0)  # noqa: SIM112
        if index >= gpus:
            raise UserError(f"device={wanted}: paddle sees {gpus} GPUs here; use device=cpu or another index")
        wanted = f"gpu:{index}"
    paddle.set_device(wanted)
    return wanted


def describe(settings: Settings, device: str) -> str:
    """Describes device, threads and speed-ups in a few words."""
    if device != "cpu":
        return device
    count = threads(settings)
    text = f"cpu, {count} thread{'s' * (count > 1)}"
    if not settings.cpu_speedups:
        return f"{text}, plain paddle (cpu_speedups=false)"
    return f"{text}, faster layers and memory" + (", MKL's fast path on AMD" if is_amd() else "")


def seed_all(seed: int) -> None:
    """Seeds Python, NumPy and paddle, so that the same settings give the same weights."""
    import numpy as np
    import paddle

    random.seed(seed)
    np.random.seed(seed)
    paddle.seed(seed)
