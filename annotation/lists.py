"""Label lists and the label map: their format, and the only code that reads them.

A list has one `path<TAB>index` per line; labels.txt one class name per line, whose index is its line number from 0.
"""

import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from system.errors import UserError, problems, shorten
from system.files import read_lines
from system.publishing import write_text
from system.settings import Settings

SPLITS = ("train", "valid", "test")
LABELS = "labels.txt"
GROUPS = "groups.tsv"
CORRECTED = "corrected.tsv"
CHANGE_COLUMNS = ("path", "split", "label_before", "label")


@dataclass(frozen=True)
class Sample:
    """One row of a list.

    Attributes:
        path: As written in the list.
        file: Where the file was found.
        label: Index of the class.
    """

    path: str
    file: Path
    label: int


def name_fault(path: str) -> str:
    """Returns why a path or class name cannot be written to a list; "" if it can."""
    # A quick test for nearly all names: a walk checks every file.
    if path.isascii() and path.isprintable() and path.strip():
        return ""
    if any(character in path for character in "\t\n\r"):
        return "a tab or a line break in its name"
    if path.startswith("\ufeff"):
        return "a byte order mark at the start of its name"
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return "a byte in its name that is not UTF-8"
    return "" if path.strip() else "a blank name"


def read_labels(path: str | os.PathLike) -> list[str]:
    """Reads the label map.

    Returns:
        Class names, in the order of their indices.

    Raises:
        UserError: The file is missing or empty, or has a blank line, a tab, or a repeated name.
    """
    names = read_lines(path)
    if not names:
        raise UserError(f"{path}: there is no class in it; write one class name per line")
    wrong = [f"line {i} is blank" for i, name in enumerate(names, 1) if not name.strip()]
    wrong += [f"line {i} contains a tab" for i, name in enumerate(names, 1) if "\t" in name]
    wrong += [f"line {i} repeats {name}" for i, name in enumerate(names, 1) if name.strip() and name in names[: i - 1]]
    if wrong:
        raise problems(str(path), wrong, "write every class name once, one per line")
    return names


def read_list(path: str | os.PathLike, num_classes: int) -> list[Sample]:
    """Reads a list and locates its files.

    A relative path is tried from the current folder, then from the list's folder, then from that folder's parent.

    Args:
        num_classes: Indices must be below it.

    Raises:
        UserError: A line has no tab or a wrong index, an image has two, a file is missing, or the list is empty.
    """
    path = Path(path)
    rows, wrong = [], []
    labels: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), 1):
        name, separator, index = line.rpartition("\t")
        if not separator or not name:
            wrong.append(f"line {number} is not PATH<TAB>INDEX")
        elif (label := parse_index(index.strip(), num_classes)) is None:
            wrong.append(f"line {number} has index {shorten(index.strip())!r}, not 0 to {num_classes - 1}")
        elif labels.setdefault(name, label) != label:
            wrong.append(f"line {number} gives {shorten(name)} index {label}, an earlier line {labels[name]}")
        else:
            rows.append((name, label))
    if wrong:
        raise problems(str(path), wrong, "run `python annotate.py` again or correct these lines")
    if not rows:
        raise UserError(f"{path}: no image is listed; put images there and run `python annotate.py`")
    return _locate(path, rows)


def parse_index(text: str, num_classes: int) -> int | None:
    """Returns the index of a class that a list names, 0 to num_classes - 1; None if it is none."""
    # Without leading zeros and by length first: Python refuses to convert thousands of digits.
    digits = text.lstrip("0") or text[-1:]
    if not digits.isdecimal() or len(digits) > len(str(num_classes)):
        return None
    return int(digits) if int(digits) < num_classes else None


def _is_file(path: Path) -> bool:
    # os.path answers for names that no file can have (too long, a null byte) too; Path.is_file raises.
    return os.path.isfile(path)


def _find(path: Path, name: str) -> Path | None:
    """Finds a file that a list names; None if it is missing."""
    places = (Path(), path.parent, path.parent.parent)
    return next((place / name for place in places if _is_file(place / name)), None)


def _locate(path: Path, rows: Sequence[tuple[str, int]]) -> list[Sample]:
    samples, missing = [], []
    for name, label in rows:
        file = _find(path, name)
        if file is None:
            missing.append(f"{shorten(name)} is missing")
        else:
            samples.append(Sample(name, file, label))
    if missing:
        raise problems(str(path), missing, "put the files back or run `python annotate.py` again")
    return samples


def read_split(settings: Settings, split: str) -> tuple[list[Sample], list[str]]:
    """Reads the list of one split, and the label map.

    Returns:
        The samples in the order of the list, and the class names.

    Raises:
        UserError: A file is missing or malformed.
    """
    class_names = read_labels(settings.lists / LABELS)
    return read_samples(settings, split, len(class_names)), class_names


def read_samples(settings: Settings, split: str, num_classes: int) -> list[Sample]:
    """Reads the list of one split.

    Raises:
        UserError: The file is missing or malformed; or it lies in a data folder, and its images in another one, as
            after the folder was copied with its lists.
    """
    file = settings.lists / f"{split}.txt"
    samples = read_list(file, num_classes)
    if settings.lists_dir is None:
        is_inside = _inside(settings.data_dir)
        outside = [sample.file for sample in samples if not is_inside(sample.file)]
        if outside:
            raise UserError(
                f"{file}: {len(outside):,} of {len(samples):,} images lie outside data_dir={settings.data_dir} "
                f"(the first is {outside[0]}), so it was made for another folder; run `python annotate.py "
                f"data_dir={settings.data_dir}`, or set lists_dir={settings.data_dir} to use it as it is"
            )
    return samples


def read_groups(settings: Settings, samples: Sequence[Sample]) -> list[int]:
    """Reads which images belong together, as copies or by `group_by`, so that no fold may divide them.

    Returns:
        A number from 0 for each image: those of one group share it, every other image has one of its own.

    Raises:
        UserError: groups.tsv is malformed, or missing although `group_by` is set. Lists that annotate.py has not
            written have none: every image stands alone.
    """
    file = settings.lists / GROUPS
    groups: dict[str, str] = {}
    is_needed = settings.group_by != "none" or file.exists()
    for number, line in enumerate(read_lines(file) if is_needed else [], 1):
        path, _, group = line.rpartition("\t")
        if not path or not group:
            raise UserError(f"{file}: line {number} is not PATH<TAB>GROUP; run `python annotate.py` again")
        groups[path] = group
    numbers: dict[str | int, int] = {}
    return [numbers.setdefault(groups.get(sample.path, index), len(numbers)) for index, sample in enumerate(samples)]


@dataclass(frozen=True)
class Change:
    """A row of corrected.tsv: what a correction changes in a list.

    Attributes:
        path: As in the lists.
        file: Where it was found; None: it has gone.
        before: Index of its class before; None: it was in no list.
        label: Index of its class now; None: it is in no list.
    """

    path: str
    file: Path | None
    before: int | None
    label: int | None


def read_changes(settings: Settings, split: str, class_names: Sequence[str]) -> list[Change]:
    """Reads what corrections change in the list of one split; nothing where there is no corrected.tsv.

    Raises:
        UserError: The file is malformed.
    """
    file = settings.lists / CORRECTED
    indices: dict[str, int | None] = {"": None} | {name: index for index, name in enumerate(class_names)}
    changes = []
    for number, line in enumerate(read_lines(file)[1:] if file.exists() else [], 2):
        path, of_split, *labels = line.split("\t") if line.count("\t") == len(CHANGE_COLUMNS) - 1 else [""] * 4
        if not path or not indices.keys() >= set(labels):
            raise UserError(f"{file}: line {number} is not {' '.join(CHANGE_COLUMNS)}; run `python annotate.py` again")
        if of_split == split:
            before, label = (indices[name] for name in labels)
            changes.append(Change(path, _find(file, path), before, label))
    return changes


def _inside(folder: str) -> Callable[[Path], bool]:
    """Returns a function that tells whether a file lies in a folder, by its path or behind links."""
    places = {spelling: spelling(folder) for spelling in (os.path.abspath, os.path.realpath)}

    @functools.cache
    def is_inside(parent: str) -> bool:
        return any(
            os.path.join(spelling(parent), "").startswith(os.path.join(place, "")) for spelling, place in places.items()
        )

    return lambda file: is_inside(os.path.dirname(file))


def list_digest(samples: Iterable[Sample]) -> str:
    """Returns a number that changes with any path, label, or the order of a list; SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(f"{sample.path}\t{sample.label}\n".encode())
    return digest.hexdigest()


def write_list(path: str | os.PathLike, rows: Iterable[tuple[str, int]]) -> None:
    """Writes `path<TAB>index` rows, sorted by path; the file is replaced whole or not at all.

    Raises:
        UserError: The folder cannot be written to, or a path does not fit into a list.
    """
    rows = sorted(rows)
    wrong = [f"{name!r} has {name_fault(name)}" for name, _ in rows if name_fault(name)]
    if wrong:
        raise problems(str(path), wrong, "rename these files")
    write_text(path, "".join(f"{name}\t{label}\n" for name, label in rows))
