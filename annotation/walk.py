"""The data folder: which folders are splits and classes, and all files in them."""

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from annotation.lists import LABELS, SPLITS, name_fault, read_labels
from annotation.names import written_files
from system.errors import UserError, problems
from system.settings import Settings

FOLDER_NAMES = {"train": ("train",), "valid": ("valid", "val", "validation"), "test": ("test",)}
WHOLE = "all"  # the split of a data folder that has class folders only
SKIPPED = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "icon\r"})


@dataclass
class Layout:
    """Structure of the data folder.

    Attributes:
        data_dir: The data folder, as in the settings.
        folders: Split -> its folder, relative to data_dir; WHOLE -> "" where there are only class folders.
        class_names: The label map.
        labels_kept: True if labels.txt existed and set the order of the classes.
        loose_files: Files beside the class folders, relative to data_dir; without those that annotate writes.
    """

    data_dir: Path
    folders: dict[str, str]
    class_names: list[str]
    labels_kept: bool
    loose_files: list[str]


@dataclass
class Found:
    """One file.

    Attributes:
        path: Relative to the data folder, with `/`, in the bytes of the file system.
        split: That of its folder; WHOLE if there are no split folders.
        reason: Code of why it is left out undecoded; "" if it is to be decoded.
    """

    path: bytes
    split: str
    class_name: str
    size: int = 0
    mtime_ns: int = 0
    reason: str = ""
    detail: str = ""


@dataclass
class Walk:
    """Counts of a walk, and a digest that changes with any file's path, size or time of change."""

    skipped: Counter = field(default_factory=Counter)
    files: int = 0
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha1)


def is_skipped(name: str) -> bool:
    """Returns True for hidden files and for those that operating systems create."""
    return name.startswith(".") or name.lower() in SKIPPED


def find_layout(settings: Settings) -> Layout:
    """Finds the folders of splits and classes, and checks every split's class folders against the label map.

    Raises:
        UserError: The data folder is missing or empty, or its folders are inconsistent.
    """
    data_dir = Path(settings.data_dir)
    if name_fault(data_dir.as_posix()):
        raise UserError(f"{data_dir}: there is {name_fault(data_dir.as_posix())}; rename the data folder")
    if not data_dir.is_dir():
        raise UserError(f"{data_dir}: no such folder; set data_dir=FOLDER to one with train/CLASS/")
    folders = _split_folders(data_dir)
    classes = {split: _classes(data_dir / folder) for split, folder in folders.items()}
    first = WHOLE if WHOLE in folders else "train"
    if not classes[first]:
        raise UserError(f"{data_dir / folders[first]}: no class folder in it; put images into train/CLASS/")
    labels_file = settings.lists / LABELS
    labels_kept = labels_file.exists()
    class_names = read_labels(labels_file) if labels_kept else sorted(classes[first])
    _check_classes(data_dir, folders, classes, class_names, labels_file if labels_kept else None)
    return Layout(data_dir, folders, class_names, labels_kept, _loose_files(data_dir, folders.values()))


def _folders_in(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_dir() and not is_skipped(entry.name)]
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}); check the folder's rights") from None


def _split_folders(data_dir: Path) -> dict[str, str]:
    inside = set(_folders_in(data_dir))
    found = {split: [name for name in FOLDER_NAMES[split] if name in inside] for split in SPLITS}
    double = [names for names in found.values() if len(names) > 1]
    if double:
        raise UserError(f"{data_dir}: {' and '.join(double[0])} are the same split; keep one of them")
    known = {names[0] for names in found.values() if names}
    # A class may be called "train" (bus, plane, train): that folder has no folders in it, and others beside it.
    if not known or (inside - known and not any(_folders_in(data_dir / name) for name in known)):
        return {WHOLE: ""}
    if not found["train"]:
        raise UserError(f"{data_dir}: {', '.join(sorted(known))} but no train folder; name one train/")
    return {split: names[0] for split, names in found.items() if names}


def _classes(folder: Path) -> list[str]:
    names = _folders_in(folder)
    wrong = [f"class folder {name!r} has {name_fault(name)}" for name in sorted(names) if name_fault(name)]
    if wrong:
        raise problems(str(folder), wrong, "rename it; class names are written to labels.txt")
    return names


def _loose_files(data_dir: Path, folders: Iterable[str]) -> list[str]:
    written = {*written_files("tsv"), *written_files("paddlex")}
    found = []
    for folder in folders:
        with os.scandir(data_dir / folder) as entries:
            names = [entry.name for entry in entries if entry.is_file() and not is_skipped(entry.name)]
        found += [os.path.join(folder, name) for name in names if name not in written]
    return sorted(found)


def refuse_loose_images(layout: Layout, suffixes: Iterable[str]) -> None:
    """Raises an error for images beside the class folders, which no split would contain.

    Args:
        suffixes: File name suffixes of images, lower case. Passed in, since knowing them means loading every decoder.

    Raises:
        UserError: There are such images.
    """
    loose = [name for name in layout.loose_files if name.lower().endswith(tuple(suffixes))]
    if loose:
        wrong = [f"{name} is in no class folder" for name in loose]
        raise problems(str(layout.data_dir), wrong, "move each into the folder of its class")


def _check_classes(
    data_dir: Path, folders: dict[str, str], classes: dict[str, list[str]], class_names: list[str], labels: Path | None
) -> None:
    wrong = []
    source = str(labels) if labels else "train"
    for split, folder in folders.items():
        missing = sorted(set(class_names) - set(classes[split]))
        unknown = sorted(set(classes[split]) - set(class_names))
        wrong += [f"{(data_dir / folder / name).as_posix()} is missing" for name in missing]
        wrong += [f"{(data_dir / folder / name).as_posix()} is not a class of {source}" for name in unknown]
    if wrong:
        remedy = "every split needs the same class folders (outside train they may be empty)"
        raise problems(
            str(data_dir), wrong, remedy + (f"; or delete {labels} to renumber the classes" if labels else "")
        )


def walk(layout: Layout, seen: Walk) -> Iterator[Found]:
    """Yields every file of every class folder, its subfolders included, without a list in memory.

    Args:
        seen: Updated with every file.

    Raises:
        UserError: A class folder of the training split has no file.
    """
    empty = []
    for split, folder in layout.folders.items():
        # A link to one of these would add the images of every class to one class.
        above = {(status.st_dev, status.st_ino) for status in map(os.stat, (layout.data_dir, layout.data_dir / folder))}
        for class_name in layout.class_names:
            place = os.path.join(folder, class_name)
            before = seen.files
            yield from _walk_folder(layout.data_dir, place, split, class_name, seen, set(above))
            if seen.files == before and split in ("train", WHOLE):
                empty.append(f"{(layout.data_dir / place).as_posix()} has no image")
    if empty:
        raise problems(str(layout.data_dir), empty, "put images there or remove the class from every split")


def _walk_folder(
    data_dir: Path, folder: str, split: str, class_name: str, seen: Walk, visited: set[tuple[int, int]]
) -> Iterator[Found]:
    subfolders, prefix, fault = [], _bytes(folder) + b"/", name_fault(folder)
    try:
        status = os.stat(data_dir / folder)
        # No folder is walked twice: a link to a folder above would never end.
        if (status.st_dev, status.st_ino) in visited:
            seen.skipped["linked folders seen already"] += 1
            return
        visited.add((status.st_dev, status.st_ino))
        with os.scandir(data_dir / folder) as entries:
            for entry in entries:
                if is_skipped(entry.name):
                    seen.skipped["hidden or created by an operating system"] += 1
                elif entry.is_dir():
                    subfolders.append(entry.name)
                else:
                    yield _count(seen, _found(prefix, entry, split, class_name, fault))
    except OSError as error:
        yield _count(seen, Found(_bytes(folder), split, class_name, reason="no_permission", detail=_unreadable(error)))
    for name in sorted(subfolders):
        yield from _walk_folder(data_dir, os.path.join(folder, name), split, class_name, seen, visited)


def _unreadable(error: OSError) -> str:
    return f"the folder cannot be read ({error.strerror}); check its rights"


def _bytes(path: str) -> bytes:
    return os.fsencode(path.replace(os.sep, "/"))


def _found(prefix: bytes, entry: os.DirEntry, split: str, class_name: str, folder_fault: str) -> Found:
    found = Found(prefix + os.fsencode(entry.name), split, class_name)
    try:
        status = entry.stat()
        found.size, found.mtime_ns = status.st_size, status.st_mtime_ns
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
    seen.digest.update(b"%s\0%d\0%d\0" % (found.path, found.size, found.mtime_ns))
    return found
