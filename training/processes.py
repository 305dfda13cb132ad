"""Several processes that train one network on this CPU: their start, their signals and their end.

They are told of each other as `python -m paddle.distributed.launch` tells its own. That launcher is not used: it mixes
both outputs of a process in a log, prints lines of its own, and writes the whole environment to the disk.
"""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

from system import cli, machine
from system.errors import UserError
from system.settings import Settings

# Holds the id of the process that started this one.
PARENT = "TRAIN_PROCESSES_PARENT"
PR_SET_PDEATHSIG = 1  # Linux's sys/prctl.h
# Seconds between looks at the processes; that they have to end by themselves.
POLL, GRACE = 0.05, 5
# What a process that failed writes last; how much of what it said is shown.
FAILED, MOST_SAID = b"\0failed\n", 1 << 20


def is_member() -> bool:
    """Returns whether train.py has started this process as one of several."""
    return PARENT in os.environ


def is_launched() -> bool:
    """Returns whether train.py or paddle's launcher has started this process, as one of several or on its own."""
    return "PADDLE_TRAINER_ID" in os.environ


def of_this_process(settings: Settings) -> Settings:
    """Returns the settings of a training that computes in this process; only the command starts several.

    Raises:
        UserError: Another number of processes was asked for.
    """
    if is_member() or settings.processes == 1:
        return settings
    if settings.processes != "auto":
        raise UserError(
            f"processes={settings.processes}: only the command `python train.py` starts processes; in a program or "
            "notebook, and with paddle.distributed.launch, use processes=1"
        )
    return settings.model_copy(update={"processes": 1})


def images_per_process(settings: Settings) -> int:
    """Images of a step that each process computes."""
    return settings.batch_size if settings.processes == "auto" else settings.batch_size // settings.processes


@contextlib.contextmanager
def membership() -> Iterator[None]:
    """Ends this process with the one that started it; if it fails and is not the first, it says why and waits for that.

    Gloo aborts the first process, with a trace of C++, when another one is gone.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(os.environ[PARENT]):
        raise SystemExit(1)
    try:
        yield
    except Exception as error:
        if not machine.rank()[0]:
            raise
        if isinstance(error, UserError):
            cli.report(error)
        else:
            traceback.print_exc()
        os.write(2, FAILED)
        signal.pause()


def run(line: Sequence[str], count: int) -> int:
    """Trains in `count` processes and returns their exit status.

    The first one has this one's output, and gets its signals; what the others say is shown if they fail alone.
    """
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(1, count)]
        first, *others = stack.enter_context(started(line, count, None, [None, *files]))
        for number in _forwarded():
            handler = signal.signal(number, lambda number, frame: first.send_signal(number))
            stack.callback(signal.signal, number, handler)
        while (status := _ended(first, POLL)) is None:
            said = [_end(file.fileno()) for file in files]
            # Most errors come to all, and the first process has said it, or is about to.
            if any(text.endswith(FAILED) for text in said) and (status := _ended(first, GRACE)) is not None:
                break
            for member, text in zip(others, said, strict=True):
                if text.endswith(FAILED) or member.poll():
                    first.kill()
                    return _tell(text.removesuffix(FAILED), member.poll() or 1)
        for member in others if status == 0 else ():
            _ended(member, GRACE)
        return _tell(b"", status)


def _end(descriptor: int) -> bytes:
    return os.pread(descriptor, MOST_SAID, max(0, os.fstat(descriptor).st_size - MOST_SAID))


def _forwarded() -> list[signal.Signals]:
    # Under nohup SIGHUP is ignored and has to stay so.
    return [signal.SIGINT, signal.SIGTERM] + [signal.SIGHUP] * (signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN)


def _ended(process: subprocess.Popen, seconds: float) -> int | None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(seconds)
    return None


def _tell(said: bytes, status: int) -> int:
    """Prints why a process has ended that has not said it on this terminal; returns the exit status, as shells do."""
    sys.stderr.write(said.decode(errors="replace"))
    if status == -signal.SIGKILL:
        print(
            "processes: one of them was killed, perhaps for want of memory; lower batch_size, or use processes=1",
            file=sys.stderr,
        )
    return 128 - status if status < 0 else status


@contextlib.contextmanager
def started(line: Sequence[str], count: int, output: int | None, errors: Sequence[Any]) -> Iterator[list]:
    """Starts processes of a command of ours, and ends those that are left when the block ends.

    Args:
        line: The command: a file of Python and its arguments.
        output: Standard output of the first; the others have none.
        errors: Standard error of each.
    """
    members: list[subprocess.Popen] = []
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(count)]
    try:
        for rank in range(count):
            member = subprocess.Popen(
                [sys.executable, *line, f"processes={count}"],
                env=_environment(rank, addresses),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if rank else output,
                stderr=errors[rank],
                # The terminal would send Ctrl-C to all of them.
                start_new_session=True,
            )
            members.append(member)
        yield members
    finally:
        for member in members:
            member.kill()
            member.wait()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def _environment(rank: int, addresses: Sequence[str]) -> dict[str, str]:
    own = {
        PARENT: str(os.getpid()),
        "PADDLE_DISTRI_BACKEND": "gloo",
        "PADDLE_TRAINER_ID": str(rank),
        "PADDLE_TRAINERS_NUM": str(len(addresses)),
        "PADDLE_LOCAL_SIZE": str(len(addresses)),
        "PADDLE_TRAINER_ENDPOINTS": ",".join(addresses),
        "PADDLE_CURRENT_ENDPOINT": addresses[rank],
        "PADDLE_MASTER": addresses[0],
        # Else it listens where the host's name leads, which may be nowhere, or the open network.
        "GLOO_SOCKET_IFNAME": "lo",
    }
    return {**os.environ, **own}
