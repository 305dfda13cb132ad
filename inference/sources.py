"""Image sources of a command line: files, folders, patterns and lists."""

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from imaging.images import suffixes
from system.errors import UserError

LIST_SUFFIXES = (".txt", ".tsv")


def find_images(arguments: Iterable[str]) -> Iterator[str]:
    """Finds image files: as named, in folders and below, by pattern, and from lists; in the same order each time.

    Memory holds the names of one folder at most, so there may be any number.

    Yields:
        Paths.

    Raises:
        UserError: An argument names nothing, or a list cannot be read.
    """
    for argument in arguments:
        if os.path.isdir(argument):
            yield from _in_folder(argument)
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


def _in_folder(folder: str) -> Iterator[str]:
    found = False
    endings = tuple(suffixes())
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(endings):
                found = True
                yield os.path.join(parent, name)
    if not found:
        raise UserError(f"{folder}: no image in this folder; name another")


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
