"""Paths in files of labels: which file below the data folder each means."""

import ntpath
import os
import posixpath
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from annotation.label_rows import Row, quote
from imaging.folders import walk
from system.errors import shorten

NO_PATH = ("no_path", "bad_row")  # reasons of rows of which it is not known which image they mean


class Finder:
    """Finds paths among the files below the data folder.

    Attributes:
        by_end: Rows whose path was found by its end alone, and what was found.
    """

    def __init__(self, data_dir: Path, own: Iterable[Path]):
        self.data_dir, self.by_end = data_dir, list[str]()
        self.root = os.path.realpath(data_dir)
        # Both, since the data folder may be a link.
        roots = dict.fromkeys((self.root, os.path.abspath(data_dir)))
        self.starts = [root.replace(os.sep, "/").rstrip("/") + "/" for root in roots]
        self.own = frozenset(os.fsencode(self.relative(path)) for path in own)
        self.files: dict[str, str] = {}  # path, also in its composed Unicode form -> path
        self.names: dict[str, list[str]] = {}
        self.places: dict[Path, list[str]] = {}
        for folder, entry in walk(data_dir, "", set(), lambda path, reason: None):
            if not isinstance(entry, OSError):
                self._add(os.path.join(folder, entry.name).replace(os.sep, "/"))

    def _add(self, path: str) -> None:
        if os.fsencode(path) in self.own:
            return
        self.files[path] = path
        if not path.isascii():
            self.files.setdefault(_composed(path), path)
        self.names.setdefault(_composed(posixpath.basename(path)), []).append(path)

    def relative(self, path: str | os.PathLike) -> str:
        """Returns a path relative to the data folder, with `/`; unchanged on another drive of Windows."""
        try:
            return os.path.relpath(os.path.realpath(path), self.root).replace(os.sep, "/")
        except ValueError:
            return os.fspath(path)

    def find(self, row: Row) -> str:
        """Returns the file that a row means, relative to the data folder; "", and refuses the row, if there is none."""
        if row.reason in NO_PATH:
            return ""
        for text in dict.fromkeys((row.path, row.path.replace("\\", "/"))):
            for place in self._places_of(row.file):
                if found := self._look_up(os.path.normpath(os.path.join(place, text))):
                    return found
        several: list[str] = []
        is_elsewhere = self._is_outside(row) or row.path.startswith(tuple(self.starts))
        for end, anywhere in () if is_elsewhere else _ends(row.path):
            found = self._look_up(os.path.join(self.root, end))
            several = [found] if found else self.names.get(_composed(end), []) if anywhere else []
            if several:
                break
        if len(several) == 1:
            if row.path != posixpath.basename(several[0]):
                self.by_end.append(f"{row.path} is {several[0]}")
            return several[0]
        row.reason, row.detail = self._why_none(row, several)
        return ""

    def _places_of(self, file: Path) -> list[str]:
        """Folders where a relative path may begin."""
        if file not in self.places:
            folder = os.path.realpath(file.parent)
            # The last two are where lists of annotate begin.
            self.places[file] = [folder, self.root, os.path.realpath("."), os.path.dirname(folder)]
        return self.places[file]

    def _look_up(self, path: str) -> str:
        path = path.replace(os.sep, "/")
        start = next((one for one in self.starts if path.startswith(one)), None)
        if start is None:
            return ""
        path = path[len(start) :]
        return self.files.get(path) or self.files.get(_composed(path), "")

    def _why_none(self, row: Row, several: list[str]) -> tuple[str, str]:
        path = quote(row.path)
        if several:
            named = shorten(", ".join(sorted(several)))
            return "several_files", f"{row.where}: {path} fits {len(several)} files ({named}); write its folder too"
        if self._is_outside(row):
            remedy = "set data_dir to a folder that holds all images"
            return "outside", f"{row.where}: {path} is outside {self.data_dir.as_posix()}, or hidden; {remedy}"
        return "not_found", f"{row.where}: there is no {path} beside the file of labels or in data_dir"

    def _is_outside(self, row: Row) -> bool:
        return any(os.path.isfile(os.path.join(place, row.path)) for place in self._places_of(row.file)[:2])

    def path_of_stray(self, row: Row) -> str:
        """Returns what stands for the image of a row in rejects.tsv, relative to the data folder."""
        if row.reason in NO_PATH:
            return f"{self.relative(row.file)} line {row.line}"
        path = row.path.replace("\\", "/")
        if "://" not in path and posixpath.isabs(path):
            return posixpath.relpath(path, self.root.replace(os.sep, "/"))
        return path


def _composed(path: str) -> str:
    return path if path.isascii() else unicodedata.normalize("NFC", path)


def _ends(path: str) -> Iterator[tuple[str, bool]]:
    """Yields ends of a path that may lie below the data folder, and whether anywhere there or only at its top.

    A file name alone and the name in a URL or an upload of Label Studio may lie anywhere; a path of another machine, or
    of Label Studio's local files, keeps its order of folders.
    """
    text = path.replace("\\", "/")
    is_foreign, anywhere, is_upload = posixpath.isabs(text) or ntpath.isabs(path), "/" not in text, False
    if "://" in text or text.startswith(("/data/upload/", "/data/local-files/")):
        try:
            parts = urlsplit(text)
            named = parse_qs(parts.query).get("d", [""])[0] if "/local-files" in parts.path else ""
        except ValueError:
            return
        is_foreign, anywhere, is_upload = True, not named, "/upload/" in parts.path
        text = named or unquote(parts.path)
    folders = [part for part in text.split("/") if part not in ("", ".")]
    if not folders or ".." in folders or not (is_foreign or anywhere):
        return
    yield from (("/".join(folders[start:]), anywhere) for start in range(len(folders)))
    # Label Studio puts eight digits of its own before the name of an uploaded file.
    if is_upload and folders[-1][8:9] == "-":
        yield folders[-1][9:], True
