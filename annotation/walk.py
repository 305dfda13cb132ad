"""The walk through the class folders: every file in them."""

import contextlib
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from annotation.folders import HIDDEN, WHOLE, holds_images, is_image
from annotation.label_match import Assigned, Labelled
from annotation.layout import Layout
from annotation.lists import name_fault
from imaging.folders import HIDDEN as HIDDEN_KIND
from imaging.folders import is_skipped
from imaging.folders import walk as walk_files
from system.errors import problems

OTHER_FILES = "files beside the images, which no row names"
MAX_VANISHED = 0.01  # fraction of the files that may be deleted during a run


@dataclass
class Found:
    """One file.

    Attributes:
        path: Relative to the data folder, with `/`, in the bytes of the file system.
        split: That of its folder; WHOLE if there are no split folders.
        changed: Its times of change, as the file system tells them: of its bytes, and of anything about it.
        reason: Code of why it is left out undecoded; "" if it is to be decoded.
    """

    path: bytes
    split: str = ""
    class_name: str = ""
    size: int = 0
    changed: str = ""
    reason: str = ""
    detail: str = ""


@dataclass
class Walk:
    """Counts of a walk, and a digest that changes with any file's path, size or time of change.

    Attributes:
        skipped: Kind -> files and folders that are ignored.
        left_out: Folder that holds images but is ignored, relative to the data folder -> why.
        usable: Files that could be opened when they were seen.
        folders: Folder that was read, relative to the data folder -> its time of change.
    """

    skipped: Counter = field(default_factory=Counter)
    left_out: dict[str, str] = field(default_factory=dict)
    usable: int = 0
    folders: dict[str, int] = field(default_factory=dict)
    files: int = 0
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha1)


def walk(layout: Layout, seen: Walk) -> Iterator[Found]:
    """Yields every file of every class folder, its subfolders included, without a list in memory.

    With `labels_file`, every image below the data folder instead, and what rows name without there being an image.

    Args:
        seen: Updated with every file.

    Raises:
        UserError: A class folder of the training split has no file.
    """
    if layout.labelled:
        yield from _walk_labelled(layout.data_dir, layout.labelled, seen)
        return
    empty = []
    for split, folder in layout.folders.items():
        # A link to one of these would add the images of every class to one class.
        above = {(status.st_dev, status.st_ino) for status in map(os.stat, (layout.data_dir, layout.data_dir / folder))}
        for class_name in layout.class_names:
            place = os.path.join(folder, class_name)
            before = seen.files
            for found in _walk_folder(layout.data_dir, place, seen, set(above)):
                found.split, found.class_name = split, class_name
                yield _count(seen, found)
            if seen.files == before and split in ("train", WHOLE):
                empty.append(f"{(layout.data_dir / place).as_posix()} has no image")
    if empty:
        raise problems(str(layout.data_dir), empty, "put images there or remove the class from every split")


def _walk_labelled(data_dir: Path, labelled: Labelled, seen: Walk) -> Iterator[Found]:
    gone = dict.fromkeys(labelled.images)
    unnamed = Assigned("", "", "unlabelled", "no row of labels_file names it")
    usable = 0
    for found in _walk_folder(data_dir, "", seen, set()):
        # All files, as refuse_vanished counts them again.
        usable += not found.reason
        if found.path in labelled.own:
            continue
        name = os.fsdecode(found.path)
        assigned = labelled.images.get(found.path)
        if not assigned and not found.reason and not is_image(os.path.join(data_dir, name), os.path.basename(name)):
            seen.skipped[OTHER_FILES] += 1
            continue
        gone.pop(found.path, None)
        yield _count(seen, _assign(found, assigned or unnamed))
    seen.usable = usable
    lost = Assigned("", "", "missing", "it was there when the rows were read")
    for path, assigned in (*labelled.strays.items(), *((path, lost) for path in gone)):
        yield _count(seen, _assign(Found(path), assigned))


def _assign(found: Found, assigned: Assigned) -> Found:
    found.split, found.class_name = assigned.split, assigned.class_name
    if assigned.reason and not found.reason:
        # Not the file's own times: once it has a label, it must be decoded.
        found.reason, found.detail, found.changed = assigned.reason, assigned.detail, assigned.reason
    return found


def refuse_vanished(layout: Layout, seen: Walk) -> None:
    """Raises an error if the data folder, a class folder or many files have gone since the walk.

    Files are counted again only where a folder has changed.

    Raises:
        UserError: They have.
    """
    expected = [os.path.join(folder, name) for folder in layout.folders.values() for name in layout.class_names]
    if layout.labelled:
        expected = []
    gone = sorted(path for path in {*expected, *seen.folders} if not (layout.data_dir / path).is_dir())
    wrong = [f"{(layout.data_dir / path).as_posix()} has gone" for path in gone]
    if not wrong and any(os.stat(layout.data_dir / path).st_mtime_ns != at for path, at in seen.folders.items()):
        again = Walk()
        for path in sorted(seen.folders):
            _count_again(layout.data_dir, path, again)
        lost = seen.usable - again.usable
        if lost > max(1, MAX_VANISHED * seen.usable):
            wrong = [f"{lost:,} of {seen.usable:,} files have gone"]
    if wrong:
        remedy = "nothing was written; see that the disk or the share is there, and run annotate.py again"
        raise problems(str(layout.data_dir), wrong, remedy)


def _count_again(data_dir: Path, folder: str, again: Walk) -> None:
    """Counts the files of one folder, without those below it."""
    # A folder that cannot be read any more has lost its files.
    with contextlib.suppress(OSError), os.scandir(data_dir / folder) as entries:
        for entry in entries:
            if not is_skipped(entry.name) and not entry.is_dir():
                again.usable += not _found(b"", entry, name_fault(folder) if folder else "").reason


def _walk_folder(data_dir: Path, folder: str, seen: Walk, visited: set[tuple[int, int]]) -> Iterator[Found]:
    """Yields the files of a folder, not yet counted, without split and class."""

    def skip(path: str, reason: str) -> None:
        seen.skipped[reason] += 1
        if reason == HIDDEN_KIND and os.path.isdir(data_dir / path) and holds_images(data_dir / path):
            seen.left_out[path] = HIDDEN
            seen.digest.update(os.fsencode(path) + b"\0")

    def note(path: str, status: os.stat_result) -> None:
        seen.folders[path] = status.st_mtime_ns

    here, prefix, fault = None, b"", ""
    for parent, entry in walk_files(data_dir, folder, visited, skip, note):
        if parent != here:
            here, prefix, fault = parent, _bytes(os.path.join(parent, "")), name_fault(parent) if parent else ""
        if isinstance(entry, OSError):
            yield Found(_bytes(parent), reason="no_permission", detail=_unreadable(entry))
        else:
            yield _found(prefix, entry, fault)


def _unreadable(error: OSError) -> str:
    return f"the folder cannot be read ({error.strerror}); check its rights"


def _bytes(path: str) -> bytes:
    return os.fsencode(path.replace(os.sep, "/"))


def _found(prefix: bytes, entry: os.DirEntry, folder_fault: str) -> Found:
    found = Found(prefix + os.fsencode(entry.name))
    try:
        status = entry.stat()
        found.size, found.changed = status.st_size, f"{status.st_mtime_ns} {status.st_ctime_ns}"
        if not stat.S_ISREG(status.st_mode):
            found.reason, found.detail = "not_a_file", "this is a pipe, a socket or a device; remove it"
    except FileNotFoundError:
        found.reason, found.detail = "missing", "a broken link, or a file that was just deleted"
    except OSError as error:
        found.reason, found.detail = "unreadable", f"cannot be read ({error.strerror}); check the link"
    fault = name_fault(entry.name) or folder_fault
    if fault:
        found.reason, found.detail = "bad_name", f"there is {fault}, which does not fit into a list; rename it"
    return found


def _count(seen: Walk, found: Found) -> Found:
    seen.files += 1
    seen.usable += not found.reason
    seen.digest.update(b"%s\0%d\0%s\0" % (found.path, found.size, found.changed.encode()))
    return found
