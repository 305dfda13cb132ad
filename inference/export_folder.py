"""The folder of an export: it appears whole or not at all, and killed exports leave nothing for long."""

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
    with _ended_by_sigterm():
        try:
            remove_leftovers(target.parent)
            temporary.mkdir(parents=True)
            with locked(temporary):
                yield temporary
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
def _ended_by_sigterm() -> Iterator[None]:
    """Makes SIGTERM raise SystemExit in the block, so that it cleans up; only the main thread can."""
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
