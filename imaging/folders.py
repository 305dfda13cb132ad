"""The walk through folders of images, the same for every command. Imports no decoder, so that re-runs stay quick."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

SKIPPED = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "icon\r"})
# Why something is skipped.
HIDDEN, LINKED = "hidden or created by an operating system", "linked folders seen already"


def is_skipped(name: str) -> bool:
    """Returns True for hidden files and for those that operating systems create."""
    return name.startswith(".") or name.lower() in SKIPPED


def walk(
    top: Path,
    start: str,
    visited: set[tuple[int, int]],
    on_skipped: Callable[[str, str], None],
    on_folder: Callable[[str, os.stat_result], None] | None = None,
    in_order: bool = False,
) -> Iterator[tuple[str, os.DirEntry | OSError]]:
    """Yields every file in a folder and below it: each folder's own files, then those of its subfolders by name.

    Memory holds the names of one folder at most, and no folder is walked twice: a link to one above would never end.

    Args:
        top: Folder that paths are relative to.
        start: Where the walk starts.
        visited: Device and number of folders that were walked already; updated.
        on_skipped: Called with path and reason of what is hidden, of an operating system, or linked twice.
        on_folder: Called with path and status of each folder.
        in_order: Yields the files of a folder by name.

    Yields:
        The folder, and an entry that is no folder; or the error that kept the folder from being read.
    """
    waiting = [start]
    while waiting:
        folder, subfolders = waiting.pop(), []
        try:
            status = os.stat(top / folder)
            if (status.st_dev, status.st_ino) in visited:
                on_skipped(folder, LINKED)
                continue
            visited.add((status.st_dev, status.st_ino))
            if on_folder:
                on_folder(folder, status)
            with os.scandir(top / folder) as found:
                for entry in sorted(found, key=lambda one: one.name) if in_order else found:
                    if is_skipped(entry.name):
                        on_skipped(os.path.join(folder, entry.name), HIDDEN)
                    elif entry.is_dir():
                        subfolders.append(os.path.join(folder, entry.name))
                    else:
                        yield folder, entry
        except OSError as error:
            yield folder, error
        waiting += sorted(subfolders, reverse=True)
