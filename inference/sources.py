"""Image sources of a command line: files, folders, patterns and lists."""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from annotation.lists import LABELS, parse_index, read_labels
from imaging.folders import walk
from imaging.formats import sniff, suffixes
from system.errors import UserError, shorten
from system.windows import slashed

LIST_SUFFIXES = (".txt", ".tsv")
NO_IMAGE = "not images"
BYTES_SNIFFED, NAMES_SHOWN = 16, 3


class ImageSource(NamedTuple):
    """An image to predict.

    Attributes:
        path: Where it lies.
        label: Index of its class, as a list says; None where none does.
    """

    path: str
    label: int | None = None


class SkippedFiles:
    """Files and folders that were skipped while images were looked for, by reason."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.names: dict[str, list[str]] = {}

    def add(self, path: str, reason: str) -> None:
        """Counts one, and keeps the names of the first few."""
        self.counts[reason] += 1
        names = self.names.setdefault(reason, [])
        if len(names) < NAMES_SHOWN:
            names.append(path)

    def __str__(self) -> str:
        """One line, "" if nothing was skipped."""
        parts = [
            f"{count} {reason} ({', '.join(self.names[reason])}{', ...' if count > NAMES_SHOWN else ''})"
            for reason, count in self.counts.items()
        ]
        return f"skipped: {'; '.join(parts)}" if parts else ""


def find_images(arguments: Iterable[str], skipped: SkippedFiles | None = None) -> Iterator[str]:
    """Yields the paths of `find_sources`."""
    for source in find_sources(arguments, skipped):
        yield source.path


def find_sources(
    arguments: Iterable[str], skipped: SkippedFiles | None = None, num_classes: int | None = None
) -> Iterator[ImageSource]:
    """Finds image files: as named, in folders and below, by pattern, and from lists; in the same order each time.

    Folders are walked as annotate.py walks them. Memory holds the names of one folder at most, so there may be any
    number.

    Args:
        skipped: Told what in the folders is skipped.
        num_classes: Labels in lists must be below it; None: they are not read.

    Raises:
        UserError: An argument names nothing, or a list cannot be read.
    """
    for argument in arguments:
        if os.path.isdir(argument):
            yield from map(ImageSource, _in_folder(argument, skipped or SkippedFiles()))
        elif _is_list(argument):
            yield from _in_list(Path(argument), num_classes)
        elif os.path.lexists(argument) or not glob.has_magic(argument):
            # A missing file is reported like an unreadable one, when its turn comes.
            yield ImageSource(argument)
        else:
            found = sorted(glob.glob(argument, recursive=True))
            if not found:
                raise UserError(f"{argument}: no file matches; check the pattern")
            yield from (ImageSource(slashed(path)) for path in found if os.path.isfile(path))


def have_labels(arguments: Iterable[str], class_names: Sequence[str]) -> bool:
    """Checks the lists among the arguments before any image is predicted; returns whether they give labels.

    Raises:
        UserError: A list cannot be read, or its labels are not of these classes.
    """
    found = False
    for path in map(Path, filter(_is_list, arguments)):
        # All lines are read: each is checked.
        with_label = sum(source.label is not None for source in _rows(path, len(class_names)))
        labels = path.parent / LABELS
        if with_label and labels.is_file() and read_labels(labels) != list(class_names):
            raise UserError(
                f"{path}: its indices are those of {labels}, whose classes are not the model's; list paths without "
                "indices, or name a model of these classes"
            )
        found |= with_label > 0
    return found


def _is_list(argument: str) -> bool:
    return argument.lower().endswith(LIST_SUFFIXES) and not os.path.isdir(argument)


def _in_folder(folder: str, skipped: SkippedFiles) -> Iterator[str]:
    found = False
    for parent, entry in walk(Path(), folder, set(), skipped.add, in_order=True):
        if isinstance(entry, OSError):
            skipped.add(parent, f"folders that cannot be read: {entry.strerror}")
        elif _is_image(entry):
            found = True
            yield slashed(os.path.join(parent, entry.name))
        else:
            skipped.add(os.path.join(parent, entry.name), NO_IMAGE)
    if not found:
        raise UserError(f"{folder}: no image in this folder; name another")


def _is_image(entry: os.DirEntry) -> bool:
    """Tells by suffix, or by the first bytes; what is no regular file is said when its turn comes."""
    if entry.name.lower().endswith(tuple(suffixes())) or not entry.is_file():
        return True
    try:
        with open(entry.path, "rb") as file:
            head = file.read(BYTES_SNIFFED)
    except OSError:
        return True
    return bool(sniff(head)) or head.startswith(b"BM")


def _in_list(path: Path, num_classes: int | None) -> Iterator[ImageSource]:
    """Finds the images of a list; relative paths are found as lists.read_list finds them."""
    places = (Path(), path.parent, path.parent.parent)
    found = False
    for name, label in _rows(path, num_classes):
        found = True
        yield ImageSource(next((str(place / name) for place in places if (place / name).is_file()), name), label)
    if not found:
        raise UserError(f"{path}: no image is listed; write one path per line")


def _rows(path: Path, num_classes: int | None) -> Iterator[ImageSource]:
    """Reads `path` or `path<TAB>index` lines, paths as they are written."""
    try:
        # Only \n ends a line: other characters at which Python splits may be part of a name.
        with open(path, encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, 1):
                name = line.removesuffix("\n").removesuffix("\r")
                name, separator, index = name.rpartition("\t") if "\t" in name else (name, "", "")
                if separator and not index.strip().isdecimal():
                    raise UserError(f"{path}: {line.strip()!r} is not PATH or PATH<TAB>INDEX; correct this line")
                label = parse_index(index.strip(), num_classes) if separator and num_classes else None
                if separator and num_classes and label is None:
                    raise UserError(
                        f"{path}: line {number} has index {shorten(index.strip())}, but the model's classes are 0 to "
                        f"{num_classes - 1}; correct the list, or list paths without indices"
                    )
                if name:
                    yield ImageSource(name, label)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path and its rights") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: this is not UTF-8; save the list as UTF-8") from None
