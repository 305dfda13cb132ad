"""The folder of an export: it appears whole or not at all, and killed exports leave nothing for long."""

import contextlib
import os
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from inference.names import DESCRIPTION
from system.errors import UserError
from system.files import locked

# Names of the folders beside the target: the new export while it is written, and the old one while it is replaced.
WRITTEN, REPLACED = "exporting", "replaced"
LEFTOVERS = re.compile(rf"\.(?P<name>.+)\.(?P<kind>{WRITTEN}|{REPLACED})\.\d+")


@contextlib.contextmanager
def new_export(target: Path) -> Iterator[Path]:
    """Replaces an exported folder whole or not at all.

    Yields:
        An empty folder that takes the target's place when the block ends, and is removed when it raises.

    Raises:
        UserError: The target is a folder that no export made, or its parent cannot be written to.
    """
    if target.exists() and not (target / DESCRIPTION).is_file():
        raise UserError(f"{target}: this folder is no export, so it is not replaced; choose another export_dir")
    temporary = target.with_name(f".{target.name}.{WRITTEN}.{os.getpid()}")
    with _ended_by_sigterm(temporary):
        try:
            remove_leftovers(target.parent)
            temporary.mkdir(parents=True)
            with locked(temporary):
                yield temporary
                with _held_back(signal.SIGTERM):
                    _replace(target, temporary)
        except OSError as error:
            raise UserError(f"{target}: cannot be written ({error.strerror}); choose another export_dir") from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(parent: Path) -> None:
    """Removes what killed exports left in a folder; an old export whose successor never came is put back."""
    for folder in sorted(parent.iterdir()) if parent.is_dir() else ():
        matched = LEFTOVERS.fullmatch(folder.name)
        if not matched or not folder.is_dir():
            continue
        # The lock ends with its process, whatever ended that; the process number may be another's by now.
        with locked(folder) as is_abandoned:
            if not is_abandoned:
                continue
            target = parent / matched["name"]
            if matched["kind"] == REPLACED and not target.exists():
                os.replace(folder, target)
            else:
                shutil.rmtree(folder, ignore_errors=True)


def _replace(target: Path, temporary: Path) -> None:
    """Puts a finished folder in place; an old export is removed only once the new one is whole."""
    old = target.with_name(f".{target.name}.{REPLACED}.{os.getpid()}")
    if not target.exists():
        os.replace(temporary, target)
        return
    with locked(target):
        os.replace(target, old)
        os.replace(temporary, target)
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _ended_by_sigterm(temporary: Path) -> Iterator[None]:
    """Makes SIGTERM remove the unfinished folder and end the process; only the main thread can.

    The process ends in the handler: an exception would pass through whatever library runs at that moment, and paddle
    turns one into a traceback of its own while it traces a graph.
    """

    def end(number: int, _: object) -> None:
        shutil.rmtree(temporary, ignore_errors=True)
        os.write(2, b"stopped by SIGTERM\n")
        os._exit(128 + number)

    with _handled(signal.SIGTERM, end):
        yield


@contextlib.contextmanager
def _held_back(number: signal.Signals) -> Iterator[None]:
    """Delivers a signal that arrives in the block when the block has ended."""
    arrived = []
    with _handled(number, lambda *_: arrived.append(True)):
        yield
    if arrived:
        os.kill(os.getpid(), number)


@contextlib.contextmanager
def _handled(number: signal.Signals, handler: Callable[[int, Any], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)
