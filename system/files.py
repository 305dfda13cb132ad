"""Files: replaced whole or not at all, several together where they belong together, and their SHA-256."""

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import yaml

from system.errors import UserError

PLAN = ".publishing"
NEW = ".new"


@contextmanager
def publishing(folder: str | os.PathLike) -> Iterator[Callable[[str], IO[str]]]:
    """Replaces several text files of a folder together: whenever we are killed, all are old or all are new.

    The block gets a function that opens a new file by its name in the folder. When the block ends, the new files
    are complete on the disk, a plan is put down, and each takes its place; whoever comes upon the plan later carries
    it out (`finish_publishing`). When the block raises, nothing has changed. One process at a time may publish.

    Raises:
        UserError: The folder cannot be written to.
    """
    folder = Path(folder)
    # A name of its own for every publication, so that nobody carries out an old plan with half a new file.
    mark = f"{os.getpid()}-{secrets.token_hex(4)}{NEW}"
    files: dict[str, IO[str]] = {}

    def open_new(name: str) -> IO[str]:
        files[name] = open(  # noqa: SIM115 - closed below, all together
            folder / f".{name}.{mark}", "w", encoding="utf-8", newline="\n"
        )
        return files[name]

    try:
        folder.mkdir(parents=True, exist_ok=True)
        finish_publishing(folder)
        for left_behind in folder.glob(f".*{NEW}"):
            left_behind.unlink(missing_ok=True)
        try:
            yield open_new
            for file in files.values():
                _settle(file)
            _put_down(folder, mark, sorted(files))
        finally:
            for name, file in files.items():
                file.close()
                (folder / f".{name}.{mark}").unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(error.filename or folder, error) from None


def _settle(file: IO[str]) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()


def _unwritable(where: str | os.PathLike, error: OSError) -> UserError:
    return UserError(f"{where}: cannot be written ({error.strerror}); set lists_dir to a folder of yours")


def _put_down(folder: Path, mark: str, names: list[str]) -> None:
    draft = folder / f"{PLAN}.{mark}"
    try:
        with open(draft, "w", encoding="utf-8") as file:
            file.write("".join(f".{name}.{mark}\t{name}\n" for name in names))
            _settle(file)
        os.replace(draft, folder / PLAN)
    finally:
        draft.unlink(missing_ok=True)
    finish_publishing(folder)


def finish_publishing(folder: str | os.PathLike) -> None:
    """Carries out what a killed `publishing` had planned; several processes may do so at once."""
    plan = Path(folder) / PLAN
    try:
        rows = [line.split("\t") for line in plan.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return
    for new, name in rows:
        try:
            os.replace(plan.with_name(new), plan.with_name(name))
        except FileNotFoundError:
            pass
    plan.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Replaces a file whole or not at all: a reader sees the old text or the new one, whenever we are killed.

    Raises:
        UserError: The folder cannot be written to.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            with open(temporary, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
                _settle(file)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); check the disk and the folder's rights"
        ) from None


def file_digest(path: str | os.PathLike) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _sha256(file)


def _sha256(file: Any) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def read_yaml(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a YAML file that holds settings.

    Raises:
        UserError: The file is missing, is no YAML, or holds something else than settings.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name an existing YAML file with --config") from None
    except (yaml.YAMLError, ValueError) as error:
        line = f" in line {error.problem_mark.line + 1}" if getattr(error, "problem_mark", None) else ""
        raise UserError(f"{path}: this is not YAML{line}; write one `key: value` a line") from None
    if not isinstance(content or {}, dict):
        raise UserError(f"{path}: this holds no settings; write one `key: value` a line")
    return content or {}
