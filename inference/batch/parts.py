"""The folder OUT.parts: what each process has scored so far, so that a killed job goes on where it was.

Every process appends to a file of its own, one line an image: index, path, error, probabilities, tab between them.
Lines of one file stand in the order of their index. A line without its end was torn by a kill and does not count.
"""

import heapq
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from system.errors import UserError
from system.files import write_text

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@dataclass(frozen=True)
class Row:
    """One image's answer.

    Attributes:
        index: Place of the image in the job, from 0.
        path: As the job names it.
        error: Why there is no answer; "" where there is one.
        probabilities: One a class; empty where there is no answer.
    """

    index: int
    path: str
    error: str
    probabilities: tuple[float, ...]

    def line(self) -> str:
        """The row as a line."""
        values = (f"{value:.8f}" for value in self.probabilities)
        return "\t".join((str(self.index), _escape(self.path), _escape(self.error), *values)) + "\n"

    @classmethod
    def parse(cls, line: str) -> "Row":
        """Reads what `line` wrote."""
        index, path, error, *values = line.removesuffix("\n").split("\t")
        return cls(int(index), _unescape(path), _unescape(error), tuple(map(float, values)))


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    pieces = (piece.replace("\\t", "\t").replace("\\n", "\n").replace("\\r", "\r") for piece in text.split("\\\\"))
    return "\\".join(pieces)


class Parts:
    """The part of one process, and the folder it shares with the others.

    Attributes:
        folder: OUT.parts.
        rank: Of this process, from 0.
        world: Number of processes; image i belongs to process i modulo world.
    """

    def __init__(self, out: str | os.PathLike, job: dict[str, Any], rank: int, world: int):
        """Opens the folder, or makes it.

        Args:
            job: What the answers depend on; a folder begun with another job is not continued.

        Raises:
            UserError: The folder cannot be written, is another job's, or another process works on this part.
        """
        self.out, self.rank, self.world = Path(out), rank, world
        self.folder = self.out.with_name(f"{self.out.name}.parts")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._claim(job)
            name = f"part-{rank:05d}-of-{world:05d}"
            self.done = self.folder / f"{name}.done"
            self.done.unlink(missing_ok=True)
            self.file = open(self.folder / f"{name}.tsv", "a+b")  # noqa: SIM115 (stays open for the job)
        except OSError as error:
            raise UserError(f"{self.folder}: cannot be written ({error.strerror}); choose another --out") from None
        self._lock()
        self._cut_torn_line()
        # Parts grow while others work; what stands in them now is what this process goes by.
        self.known = {path: path.stat().st_size for path in sorted(self.folder.glob("part-*.tsv"))}

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

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{self.file.name}: another process works on it; wait, or choose another --out") from None

    def _cut_torn_line(self) -> None:
        size = end = self.file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 65536)
            self.file.seek(start)
            cut = self.file.read(end - start).rfind(b"\n")
            if cut >= 0:
                end = start + cut + 1
                break
            end = start
        if end < size:
            self.file.truncate(end)

    def left(self, paths: Iterable[str]) -> Iterator[tuple[int, str]]:
        """Picks the images that this process has to score: its share, less what any part holds already.

        Attributes `total` and `found` count what has gone by: all images, and those of this share scored earlier.

        Raises:
            UserError: A part holds another image at this place, so the list or folder has changed since.
        """
        self.total = self.found = 0
        scored = _merged(self.known)
        row = next(scored, None)
        for index, path in enumerate(paths):
            self.total = index + 1
            while row and row.index < index:
                row = next(scored, None)
            if row and row.index == index:
                if row.path != path:
                    raise UserError(
                        f"{self.folder}: image {index} was {row.path!r} and is {path!r} now; the images have "
                        f"changed since the job began, delete that folder to begin anew"
                    )
                self.found += index % self.world == self.rank
            elif index % self.world == self.rank:
                yield index, path

    def add(self, rows: Sequence[Row]) -> None:
        """Writes rows so that a kill of this process cannot lose them any more."""
        try:
            self.file.write("".join(row.line() for row in rows).encode("utf-8", "surrogateescape"))
            self.file.flush()
        except OSError as error:
            raise UserError(
                f"{self.file.name}: cannot be written ({error.strerror}); free some space and go on"
            ) from None

    def finish(self) -> bool:
        """Notes that this part is complete.

        Returns:
            Whether every process of the job has done so, and this one is to merge.
        """
        self.file.close()
        try:
            write_text(self.done, f"{self.total}\n")
            markers = [self.folder / f"part-{rank:05d}-of-{self.world:05d}.done" for rank in range(self.world)]
            if not all(marker.is_file() for marker in markers):
                return False
            self.merging = open(self.folder / "merge.lock", "w", encoding="utf-8")  # noqa: SIM115 (held while merging)
            if fcntl:
                fcntl.flock(self.merging, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (OSError, UserError):
            # Another process merges at this moment, or has merged and cleared the folder away.
            return False
        return True

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
                f"{self.folder}: image {expected} of {self.total} has no answer; bring all machines' parts into "
                f"this folder and give the same command once more"
            )

    def remove(self) -> None:
        """Deletes the folder, once its content stands in the output file."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _merged(sizes: dict[Path, int]) -> Iterator[Row]:
    return heapq.merge(*(_read(path, size) for path, size in sizes.items()), key=lambda row: row.index)


def _read(path: Path, size: int) -> Iterator[Row]:
    file: IO[bytes]
    with open(path, "rb") as file:
        for line in file:
            size -= len(line)
            if size < 0 or not line.endswith(b"\n"):
                return
            try:
                yield Row.parse(line.decode("utf-8", "surrogateescape"))
            except ValueError:
                raise UserError(
                    f"{path}: {line[:40]!r} is no row; delete this file, its images are scored anew"
                ) from None
