"""Replacement of files: one whole or not at all, several of a folder all together or not at all."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from system import windows
from system.errors import UserError

REMEDY = "close the program that has it open, or " * windows.IS_WINDOWS + "check the disk and the folder's rights"
# Names of a plan while it is carried out, and while it is undone.
PLAN, UNDO = ".publishing", ".publishing.undo"
NEW = ".new"


class _Row(NamedTuple):
    """A file of a plan: its name, those of its new and its old content beside it ("": there is none)."""

    new: str
    name: str
    old: str | None  # None: written by a release that kept no old content


class Publication:
    """The files of one `publishing`."""

    def __init__(self, folder: Path):
        # Unique names, so that no process carries out an older plan with a half-written new file.
        self.folder, self.mark = folder, f"{os.getpid()}-{secrets.token_hex(4)}{NEW}"
        self.files: dict[str, IO[str]] = {}
        self.removed: list[str] = []

    def open(self, name: str) -> IO[str]:
        """Opens the new content of a file for writing, by the file's name in the folder; UTF-8, Unix line ends."""
        file = open(self.folder / self._new(name), "w", encoding="utf-8", newline="\n")  # noqa: SIM115 - closed together
        self.files[name] = file
        return file

    def remove(self, name: str) -> None:
        """Makes a file of the folder go when the others are replaced."""
        self.removed.append(name)

    def _new(self, name: str) -> str:
        return f".{name}.{self.mark}"

    def carry_out(self) -> None:
        """Flushes all new files, keeps the old ones at hand, writes the plan and carries it out.

        Raises:
            OSError: A file cannot be written or replaced; all files are as they were.
        """
        for file in self.files.values():
            _flush(file)
        names = [*sorted(self.files), *sorted(set(self.removed) - set(self.files))]
        rows = [_Row(self._new(name) if name in self.files else "", name, self._keep(name)) for name in names]
        if not rows:
            return
        draft = self.folder / f"{PLAN}.{self.mark}"
        try:
            with open(draft, "w", encoding="utf-8") as file:
                file.write("".join(f"{row.new}\t{row.name}\t{row.old}\n" for row in rows))
                _flush(file)
            windows.replace(draft, self.folder / PLAN)
            sync_folder(self.folder)
        finally:
            draft.unlink(missing_ok=True)
        if error := _finish(self.folder):
            raise error

    def _keep(self, name: str) -> str:
        """Keeps the content of a file that will be replaced, under another name."""
        target, old = self.folder / name, self.folder / f".{name}.old.{self.mark}"
        if target.is_dir():
            raise IsADirectoryError(21, "Is a directory", str(target))
        if not os.path.lexists(target):
            return ""
        try:
            os.link(target, old)
        except OSError:
            # File systems without hard links.
            old.write_bytes(target.read_bytes())
        return old.name

    def discard(self) -> None:
        """Removes what `carry_out` has not put in place, unless a plan still needs it."""
        for file in self.files.values():
            file.close()
        if not any((self.folder / plan).exists() for plan in (PLAN, UNDO)):
            _remove_leftovers(self.folder, self.mark)


@contextmanager
def publishing(folder: str | os.PathLike, remedy: str = REMEDY) -> Iterator[Publication]:
    """Replaces and removes several files of a folder together: all are old or all are new, whatever happens.

    When the block ends, the new files are flushed to the disk, a plan is written that lists them, and each is renamed
    to its place. If one cannot be replaced (another program has it open on Windows, it is immutable, the disk fails),
    those that were are put back. If the process is killed in between, the next reader carries the plan out
    (`finish_publishing`). When the block raises, nothing changes. One process at a time may publish into a folder.

    Args:
        remedy: What the error advises.

    Raises:
        UserError: A file cannot be written or replaced.
    """
    folder = Path(folder)
    publication = Publication(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        finish_publishing(folder)
        _remove_leftovers(folder)
        try:
            yield publication
            publication.carry_out()
        finally:
            publication.discard()
    except OSError as error:
        raise UserError(f"{error.filename or folder}: cannot be written ({error.strerror}); {remedy}") from None


def _remove_leftovers(folder: Path, mark: str = NEW) -> None:
    for left_behind in folder.glob(f".*{mark}"):
        left_behind.unlink(missing_ok=True)


def _flush(file: IO[str]) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()


def finish_publishing(folder: str | os.PathLike) -> None:
    """Completes, or undoes, a `publishing` that was killed after its plan was written; several processes may do so.

    Raises:
        UserError: A file cannot be replaced, and another that belongs with it cannot be put back.
    """
    _finish(Path(folder))


def _finish(folder: Path) -> OSError | None:
    """Carries out or undoes the plan of a folder, if there is one; returns the error for which it was undone."""
    failure = None
    rows = _read_plan(folder / UNDO)
    if rows:
        _undo(folder, rows, OSError())
    elif rows := _read_plan(folder / PLAN):
        failure = _replace(folder, rows)
        if failure:
            _undo(folder, rows, failure)
    else:
        return None
    # The plan may only go once the renaming has reached the disk.
    sync_folder(folder)
    with contextlib.suppress(OSError):  # a reader without rights, for whom nothing has changed
        for plan in (UNDO, PLAN):
            (folder / plan).unlink(missing_ok=True)
        for name in (name for row in rows for name in (row.new, row.old) if name):
            (folder / name).unlink(missing_ok=True)
    return failure


def _read_plan(plan: Path) -> list[_Row]:
    try:
        rows = [line.split("\t") for line in plan.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return []
    return [_Row(new, name, old[0] if old else None) for new, name, *old in rows]


def _replace(folder: Path, rows: list[_Row]) -> OSError | None:
    """Puts the new files of a plan in place; returns the error at the first one that cannot be."""
    for row in rows:
        try:
            _put(folder, row.new, row.name)
        except OSError as error:
            return OSError(error.errno, error.strerror, str(folder / row.name))
    return None


def _put(folder: Path, source: str, name: str) -> None:
    """Puts a file in the place of another, or removes that one ("" as source); another process may have done so."""
    with contextlib.suppress(FileNotFoundError):
        if source:
            windows.replace(folder / source, folder / name)
        else:
            (folder / name).unlink()


def _undo(folder: Path, rows: list[_Row], failure: OSError) -> None:
    """Puts back the files that were replaced before one could not be."""
    done = [row for row in rows if not (folder / (row.new or row.name)).exists()]
    try:
        if done:
            # From here on the plan is undone, also by the next process if this one is killed.
            with contextlib.suppress(FileNotFoundError):
                os.replace(folder / PLAN, folder / UNDO)
        for row in done:
            if row.old is None:
                raise failure
            _put(folder, row.old, row.name)
    except OSError as error:
        raise UserError(
            f"{failure.filename or error.filename}: cannot be replaced ({failure.strerror or error.strerror}), and "
            "files that belong with it were; close the program that has it open, or mend its rights, and run this again"
        ) from None


def sync_folder(folder: str | os.PathLike) -> None:
    """Flushes the names in a folder to the disk, so that a rename outlasts a power cut, where the system can do so."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(handle)
    except OSError:  # some network file systems
        pass
    finally:
        os.close(handle)


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Replaces a file whole or not at all: a reader sees the old one or the new one, even if this process is killed.

    Yields:
        A path in the same folder for the block to write to. When the block ends, that file is flushed to the disk and
        renamed to `path`; when it raises, the file is removed and `path` stays as it was.

    Raises:
        OSError: The folder cannot be written to.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        # Windows refuses to flush a file that is open for reading only.
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        windows.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str, remedy: str = REMEDY) -> None:
    """Replaces a text file whole or not at all, in UTF-8 with Unix line ends.

    Args:
        remedy: What the error advises.

    Raises:
        UserError: The folder cannot be written to.
    """
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); {remedy}") from None
