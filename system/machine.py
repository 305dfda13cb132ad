"""Device, threads and seeds; the only module that sets environment variables, before paddle is imported."""

import contextlib
import ctypes
import functools
import gc
import importlib.metadata
import importlib.util
import io
import os
import platform
import random
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from system import language, processor
from system.errors import UserError
from system.settings import Settings

# mallopt's parameter numbers in glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
# Threads that network=cnn gains from: 1.1 times one with batches of 32, 1.3 with 128 (measured on 2 cores).
MAX_THREADS_CNN = 2
# The setting that makes Paddle's MKL compute with AVX2 on AMD, and what MKL then says of the processor.
MKL_VARIABLE, MKL_AVX2 = "MKL_DEBUG_CPU_TYPE", 5
# Views save a transpose's copy and then pay for it twelvefold when a matrix product makes it (3.2.2, CPU).
STRIDE_FLAG = "FLAGS_use_stride_kernel"
# Warnings that concern nobody here: nothing compiles C++, bars are text, and the others are about what is meant or what
# Paddle itself does.
IGNORED = (
    "No ccache found",
    "When training, we now always track",
    "Value do not have 'place' interface",
    "To copy construct from a tensor",
    "IProgress not found",
    r"\s*Non compatible API",
)


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


def has_openvino() -> bool:
    """Returns whether this paddle was built with OpenVINO; paddle itself is not imported."""
    found = importlib.util.find_spec("paddle")
    if not found or not found.origin:
        return False
    return any((Path(found.origin).parent / "libs").glob("*openvino_intel_cpu_plugin*"))


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
    """Sets the environment variables that paddle reads on import, imports it, and hides warnings that mean nothing.

    Every command that uses paddle calls this first. Where paddle is imported already, as in a notebook, it sets what
    can still be set; `describe` says what is in force.
    """
    language.choose(settings.language)
    is_late = "paddle" in sys.modules
    for message in IGNORED:
        warnings.filterwarnings("ignore", message=message)
    # Paddle would set 1 and leave every other core idle.
    os.environ["OMP_NUM_THREADS"] = str(threads(settings))
    if settings.cpu_speedups:
        os.environ.setdefault(STRIDE_FLAG, "0")
        if processor.is_amd():
            # Paddle's MKL takes a slow path on AMD unless AVX2 is forced: 2.6 times slower for ResNet50. It asks once,
            # at its first computation.
            os.environ.setdefault(MKL_VARIABLE, str(MKL_AVX2))
        _keep_memory()
    # Hides log lines about executors and oneDNN that are for paddle's developers; warnings are still shown.
    os.environ.setdefault("GLOG_minloglevel", "1")
    # Paddle prints advice to use one thread wherever OMP_NUM_THREADS is above 1.
    with contextlib.redirect_stderr(io.StringIO()), contextlib.nullcontext() if is_late else _no_collections():
        import paddle
    if is_late:
        if (openmp := _paddle_library("libiomp5.so")) is not None:
            openmp.omp_set_num_threads(threads(settings))
        paddle.set_flags({STRIDE_FLAG: os.environ.get(STRIDE_FLAG, "1") not in ("0", "false")})
    # Paddle's own handler prints a C++ traceback at SIGTERM, which is no fault.
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def _no_collections() -> Iterator[None]:
    """Keeps the garbage collector from going through what an import makes, again and again and once more at the exit.

    None of it is garbage. Without this `import paddle` takes a quarter more processor time (3.2.2).
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


@functools.cache
def _paddle_library(name: str) -> ctypes.CDLL | None:
    """A library that paddle has loaded; None where this build of paddle has none of that name."""
    import paddle

    try:
        return ctypes.CDLL(str(Path(paddle.__file__).parent / "libs" / name))
    except OSError:
        return None


def _threads_in_force(settings: Settings) -> int:
    openmp = _paddle_library("libiomp5.so")
    return openmp.omp_get_max_threads() if openmp else threads(settings)


def _is_mkl_fast() -> bool:
    """Whether Paddle's MKL computes with AVX2 on this AMD processor: what it says itself, where it can be asked."""
    detect = getattr(_paddle_library("libmklml_intel.so"), "mkl_serv_cpu_detect", None)
    return detect() == MKL_AVX2 if detect else os.environ.get(MKL_VARIABLE) == str(MKL_AVX2)


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
    """Describes device, threads and speed-ups in a few words: those in force, whoever imported paddle."""
    if device != "cpu":
        return device
    count = _threads_in_force(settings)
    text = f"cpu, {count} thread{'s' * (count > 1)}"
    if not settings.cpu_speedups:
        return f"{text}, plain paddle (cpu_speedups=false)"
    text += ", faster layers and memory"
    if not processor.is_amd():
        return text
    if _is_mkl_fast():
        return f"{text}, MKL's fast path on AMD"
    return f"{text}; MKL's slow path on AMD, for paddle computed before machine.prepare: restart, and call that first"


def seed_all(seed: int) -> None:
    """Seeds Python, NumPy and paddle, so that the same settings give the same weights."""
    import numpy as np
    import paddle

    random.seed(seed)
    np.random.seed(seed)
    paddle.seed(seed)
