"""Where an export appears: whole or not at all, and without leavings of exports that were killed."""

import contextlib
import os
import re
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from inference.description import DESCRIPTION
from system.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# Names of the folders beside the target: one in the making, and the older export while it is replaced.
MAKING, REPLACED = "exporting", "replaced"
LEAVINGS = re.compile(rf"\.(?P<name>.+)\.(?P<kind>{MAKING}|{REPLACED})\.\d+")


@contextlib.contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """Gives an empty folder that takes the target's place if the block ends well, and is gone in every other case.

    Raises:
        UserError: The target is a folder that no export made, or its parent cannot be written.
    """
    if target.exists() and not (target / DESCRIPTION).is_file():
        raise UserError(f"{target}: this folder is no export, so it is not replaced; choose another export_dir")
    temporary = target.with_name(f".{target.name}.{MAKING}.{os.getpid()}")
    with _ended_by_sigterm():
        try:
            sweep(target.parent)
            temporary.mkdir(parents=True)
            with _locked(temporary):
                yield temporary
                _replace(target, temporary)
        except OSError as error:
            raise UserError(f"{target}: cannot be written ({error.strerror}); choose another export_dir") from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def sweep(parent: Path) -> None:
    """Removes what killed exports left in a folder; an older export whose successor never came is put back."""
    for folder in sorted(parent.iterdir()) if parent.is_dir() else ():
        matched = LEAVINGS.fullmatch(folder.name)
        if not matched or not folder.is_dir():
            continue
        # The lock goes with the process that held it, however that ended; a number of a process may be another's.
        with _locked(folder) as ours:
            if not ours:
                continue
            target = parent / matched["name"]
            if matched["kind"] == REPLACED and not target.exists():
                os.replace(folder, target)
            else:
                shutil.rmtree(folder, ignore_errors=True)


def _replace(target: Path, temporary: Path) -> None:
    """Puts a finished folder in place; an older export leaves only when the new one is whole."""
    old = target.with_name(f".{target.name}.{REPLACED}.{os.getpid()}")
    if not target.exists():
        os.replace(temporary, target)
        return
    with _locked(target):
        os.replace(target, old)
        os.replace(temporary, target)
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Holds a folder for this process; tells whether nobody else does."""
    if fcntl is None:
        yield False
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = True
        # Held by another, or a file system without locks.
        except OSError:
            ours = False
        yield ours
    finally:
        os.close(handle)


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Makes SIGTERM end the block as an exception does, so that it cleans up; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _: object) -> None:
        print("stopped by SIGTERM", file=sys.stderr)
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
