"""The folder OUT.parts: what each process has predicted so far, so that a killed job goes on where it stopped.

Every process appends to a file of its own, one line per image: index (with a label INDEX:LABEL), path, error,
probabilities, separated by tabs.
Lines of one file are in the order of their index. A last line without its end was torn by a kill and does not count.
"""

import contextlib
import heapq
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.sources import ImageSource
from system.errors import UserError
from system.files import locked
from system.publishing import write_text

# Bytes that are searched at once for the end of the last whole line.
BLOCK = 65536


@dataclass(frozen=True)
class Row:
    """The prediction of one image.

    Attributes:
        index: Position of the image in the job, from 0.
        path: As the job names it.
        error: Why there is no prediction; "" if there is one.
        probabilities: One per class; empty if there is no prediction.
        label: Index of the image's class, as the job names it; None if it names none.
    """

    index: int
    path: str
    error: str
    probabilities: tuple[float, ...]
    label: int | None = None

    def line(self) -> str:
        """Formats the row as a line of a part."""
        values = (f"{value:.8f}" for value in self.probabilities)
        index = str(self.index) if self.label is None else f"{self.index}:{self.label}"
        return "\t".join((index, _escape(self.path), _escape(self.error), *values)) + "\n"

    @classmethod
    def parse(cls, line: str) -> "Row":
        """Reads what `line` wrote."""
        index, path, error, *values = line.removesuffix("\n").split("\t")
        index, _, label = index.partition(":")
        known = int(label) if label else None
        return cls(int(index), _unescape(path), _unescape(error), tuple(map(float, values)), known)


def _named(image: Row | ImageSource) -> str:
    return repr(image.path) if image.label is None else f"{image.path!r} with label {image.label}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    pieces = (piece.replace("\\t", "\t").replace("\\n", "\n").replace("\\r", "\r") for piece in text.split("\\\\"))
    return "\\".join(pieces)


class Parts:
    """The part of one process, and the folder that it shares with the others; a context manager that lets go of it.

    Attributes:
        folder: OUT.parts.
        rank: Of this process, from 0.
        world: Number of processes; image i belongs to process i modulo world.
        total: Number of images that `remaining` has gone through.
        resumed: Number of those that belong to this process and were predicted earlier.
    """

    def __init__(self, out: str | os.PathLike, job: dict[str, Any], rank: int, world: int):
        """Opens the folder, or creates it.

        Args:
            out: The file that the parts are merged into.
            job: What the predictions depend on; a folder begun with another job is not continued.

        Raises:
            UserError: The folder cannot be written to, is another job's, or another process works on this part.
        """
        self.out, self.rank, self.world = Path(out), rank, world
        self.folder = self.out.with_name(f"{self.out.name}.parts")
        self.total = self.resumed = 0
        self._held = contextlib.ExitStack()
        name = f"part-{rank:05d}-of-{world:05d}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._claim(job)
            self.done = self.folder / f"{name}.done"
            self.done.unlink(missing_ok=True)
            self.part = self.folder / f"{name}.tsv"
            if not self._lock(self.part):
                raise UserError(f"{self.part}: another process works on it; wait, or choose another --out")
            self.file = self._held.enter_context(self.part.open("a+b"))
        except OSError as error:
            raise UserError(f"{self.folder}: cannot be written ({error.strerror}); choose another --out") from None
        self._cut_torn_line()
        # Parts grow while others work; this process goes by what is in them now.
        self.known = {path: path.stat().st_size for path in sorted(self.folder.glob("part-*.tsv"))}

    def __enter__(self) -> "Parts":
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def _claim(self, job: dict[str, Any]) -> None:
        file = self.folder / "job.json"
        text = json.dumps(job, indent=1, ensure_ascii=True, sort_keys=True) + "\n"
        if not file.is_file():
            write_text(file, text)
        if file.read_text(encoding="utf-8") != text:
            raise UserError(
                f"{self.folder}: an unfinished job of another model or other images; finish it, delete that folder, "
                f"or choose another --out"
            )

    def _lock(self, path: Path) -> bool:
        """Locks a file until this object lets go; returns False if another process holds it."""
        return self._held.enter_context(locked(path)) is not False

    def _cut_torn_line(self) -> None:
        size = end = self.file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - BLOCK)
            self.file.seek(start)
            cut = self.file.read(end - start).rfind(b"\n")
            if cut >= 0:
                end = start + cut + 1
                break
            end = start
        if end < size:
            self.file.truncate(end)

    def remaining(self, sources: Iterable[ImageSource]) -> Iterator[tuple[int, ImageSource]]:
        """Picks the images that this process has to predict: its share, less what any part holds already.

        Raises:
            UserError: A part holds another image or label at this position, so the list or folder has changed since.
        """
        self.total = self.resumed = 0
        rows = _merged(self.known)
        row = next(rows, None)
        for index, source in enumerate(sources):
            self.total = index + 1
            while row and row.index < index:
                row = next(rows, None)
            if row and row.index == index:
                if (row.path, row.label) != source:
                    raise UserError(
                        f"{self.folder}: image {index} was {_named(row)} and is {_named(source)} now; the images have "
                        f"changed since the job began, delete that folder to begin again"
                    )
                self.resumed += index % self.world == self.rank
            elif index % self.world == self.rank:
                yield index, source

    def add(self, rows: Sequence[Row]) -> None:
        """Writes rows so that a kill of this process cannot lose them any more.

        Raises:
            UserError: The disk is full.
        """
        try:
            self.file.write("".join(row.line() for row in rows).encode("utf-8", "surrogateescape"))
            self.file.flush()
        except OSError as error:
            raise UserError(
                f"{self.file.name}: cannot be written ({error.strerror}); free some space and go on"
            ) from None

    def finish(self) -> bool:
        """Marks this part as complete.

        Returns:
            True if all parts are complete and this process is to merge them.

        Raises:
            UserError: The disk is full.
        """
        self._held.close()
        try:
            write_text(self.done, f"{self.total}\n")
            markers = [self.folder / f"part-{rank:05d}-of-{self.world:05d}.done" for rank in range(self.world)]
            return all(marker.is_file() for marker in markers) and self._lock(self.folder / "merge.lock")
        except (OSError, UserError):
            if self.folder.is_dir():
                raise
            # Another process has merged meanwhile and removed the folder.
            return False

    def rows(self) -> Iterator[Row]:
        """Reads all parts as one, in the order of the images.

        Raises:
            UserError: An image has no row: a part of another machine is not here.
        """
        expected = 0
        for row in _merged({path: path.stat().st_size for path in sorted(self.folder.glob("part-*.tsv"))}):
            if row.index < expected:
                continue
            if row.index > expected:
                break
            expected += 1
            yield row
        if expected != self.total:
            raise UserError(
                f"{self.folder}: image {expected} of {self.total} has no prediction; bring all machines' parts into "
                f"this folder and run the same command once more"
            )

    def remove(self) -> None:
        """Deletes the folder, once its content is in the output file."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _merged(sizes: dict[Path, int]) -> Iterator[Row]:
    return heapq.merge(*(_read(path, size) for path, size in sizes.items()), key=lambda row: row.index)


def _read(path: Path, size: int) -> Iterator[Row]:
    with open(path, "rb") as file:
        for line in file:
            size -= len(line)
            if size < 0 or not line.endswith(b"\n"):
                return
            try:
                yield Row.parse(line.decode("utf-8", "surrogateescape"))
            except ValueError:
                raise UserError(
                    f"{path}: {line[:40]!r} is no row; delete this file, its images are predicted again"
                ) from None
