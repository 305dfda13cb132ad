"""Signals: SIGTERM, SIGHUP and Ctrl-C end a training only after it has been saved."""

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

from training import processes
from training.session import Session


@contextlib.contextmanager
def deferred(session: Session) -> Iterator[None]:
    """Notes a signal in `session.interrupted_by`, on which StepCheckpoint saves and exits; a second one acts at once.

    Rank 0 saves and then ends the job, so the other processes ignore the signals and wait for it. SIGHUP is not
    handled under paddle's launcher: a terminal that closes ends it too, and nobody would be left to end the others.
    Outside the main thread Python allows no signal handlers, and nothing is changed.
    """
    before: dict[int, Any] = {}
    terminals = [stream for stream in (1, 2) if os.isatty(stream)]

    def restore() -> None:
        while before:
            signal.signal(*before.popitem())

    def note(number: int, frame: object) -> None:
        if session.rank == 0:
            session.interrupted_by = signal.Signals(number)
            restore()
            if session.interrupted_by.name == "SIGHUP":
                _discard_output(terminals)

    try:
        with contextlib.suppress(ValueError):
            for number in _signals(session.processes == 1 or processes.is_member()):
                before[number] = signal.signal(number, note)
        yield
    finally:
        restore()


def _discard_output(streams: list[int]) -> None:
    """Sends output to nowhere: writing to a terminal that has closed is an error, which would come before the save."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(nowhere, stream)
    os.close(nowhere)


def _signals(hangs_up: bool) -> list[int]:
    chosen: list[int] = [signal.SIGINT, signal.SIGTERM]
    # Windows has no SIGHUP, and under nohup it is ignored and has to stay so.
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None and hangs_up and signal.getsignal(hangup) is not signal.SIG_IGN:
        chosen.append(hangup)
    return chosen
