"""Image sources of a command line: files, folders, patterns and lists."""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from imaging.folders import walk
from imaging.formats import sniff, suffixes
from system.errors import UserError

LIST_SUFFIXES = (".txt", ".tsv")
NO_IMAGE = "not images"
BYTES_SNIFFED, NAMES_SHOWN = 16, 3


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
    """Finds image files: as named, in folders and below, by pattern, and from lists; in the same order each time.

    Folders are walked as annotate.py walks them. Memory holds the names of one folder at most, so there may be any
    number.

    Args:
        skipped: Told what in the folders is skipped.

    Yields:
        Paths.

    Raises:
        UserError: An argument names nothing, or a list cannot be read.
    """
    for argument in arguments:
        if os.path.isdir(argument):
            yield from _in_folder(argument, skipped or SkippedFiles())
        elif argument.lower().endswith(LIST_SUFFIXES):
            yield from _in_list(Path(argument))
        elif os.path.lexists(argument) or not glob.has_magic(argument):
            # A missing file is reported like an unreadable one, when its turn comes.
            yield argument
        else:
            found = sorted(glob.glob(argument, recursive=True))
            if not found:
                raise UserError(f"{argument}: no file matches; check the pattern")
            yield from (path for path in found if os.path.isfile(path))


def _in_folder(folder: str, skipped: SkippedFiles) -> Iterator[str]:
    found = False
    for parent, entry in walk(Path(), folder, set(), skipped.add, in_order=True):
        if isinstance(entry, OSError):
            skipped.add(parent, f"folders that cannot be read: {entry.strerror}")
        elif _is_image(entry):
            found = True
            yield os.path.join(parent, entry.name)
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


def _in_list(path: Path) -> Iterator[str]:
    """Reads `path` or `path<TAB>index` lines; relative paths are found as lists.read_list finds them."""
    places = (Path(), path.parent, path.parent.parent)
    found = False
    try:
        # Only \n ends a line: other characters at which Python splits may be part of a name.
        with open(path, encoding="utf-8-sig", newline="\n") as file:
            for line in file:
                name = line.removesuffix("\n").removesuffix("\r")
                name, separator, index = name.rpartition("\t") if "\t" in name else (name, "", "")
                if separator and not index.strip().isdecimal():
                    raise UserError(f"{path}: {line.strip()!r} is not PATH or PATH<TAB>INDEX; correct this line")
                if name:
                    found = True
                    yield next((str(place / name) for place in places if (place / name).is_file()), name)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path and its rights") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: this is not UTF-8; save the list as UTF-8") from None
    if not found:
        raise UserError(f"{path}: no image is listed; write one path per line")
