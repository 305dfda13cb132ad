"""Files: atomic replacement of one or of several together, locks, SHA-256, YAML."""

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import yaml

from system.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

HAS_LOCKS = fcntl is not None
REMEDY = "check the disk and the folder's rights"
PLAN = ".publishing"
NEW = ".new"
# Settings are two deep, descriptions of exports six.
MAX_NESTING = 50
# Python refuses to print much longer integers.
MAX_BITS = 1000


@contextmanager
def publishing(folder: str | os.PathLike, remedy: str = REMEDY) -> Iterator[Callable[[str], IO[str]]]:
    """Replaces several text files of a folder together: even if this process is killed, all are old or all are new.

    When the block ends, the new files are flushed to the disk, a plan is written that lists them, and each is renamed
    to its place. If the process is killed in between, the next reader carries the plan out (`finish_publishing`). When
    the block raises, nothing changes. One process at a time may publish into a folder.

    Args:
        remedy: What the error advises.

    Yields:
        A function that opens a new file for writing, by its name in the folder.

    Raises:
        UserError: The folder cannot be written to.
    """
    folder = Path(folder)
    # Unique names, so that no process carries out an older plan with a half-written new file.
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
                _flush(file)
            _carry_out(folder, mark, sorted(files))
        finally:
            for name, file in files.items():
                file.close()
                (folder / f".{name}.{mark}").unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{error.filename or folder}: cannot be written ({error.strerror}); {remedy}") from None


def _flush(file: IO[str]) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()


def _carry_out(folder: Path, mark: str, names: list[str]) -> None:
    draft = folder / f"{PLAN}.{mark}"
    try:
        with open(draft, "w", encoding="utf-8") as file:
            file.write("".join(f".{name}.{mark}\t{name}\n" for name in names))
            _flush(file)
        os.replace(draft, folder / PLAN)
        sync_folder(folder)
    finally:
        draft.unlink(missing_ok=True)
    finish_publishing(folder)


def finish_publishing(folder: str | os.PathLike) -> None:
    """Completes a `publishing` that was killed after its plan was written; several processes may do so at once."""
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
    # The plan may only go once the renaming has reached the disk.
    sync_folder(folder)
    plan.unlink(missing_ok=True)


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
        os.replace(temporary, path)
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


def read_lines(path: str | os.PathLike) -> list[str]:
    """Reads the lines of a UTF-8 text file, with or without a byte order mark.

    Raises:
        UserError: The file is missing or is not UTF-8.
    """
    finish_publishing(Path(path).parent)
    try:
        # Bytes, since text mode would turn a carriage return within a name into a line end.
        text = Path(path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run `python annotate.py` first") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path and its rights") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    # str.splitlines would also split at form feeds and other characters that file names may contain.
    return text.replace("\r\n", "\n").removesuffix("\n").split("\n") if text else []


@contextmanager
def locked(path: str | os.PathLike) -> Iterator[bool]:
    """Locks a folder, or a file that is created if missing, for this process; does not wait.

    The lock ends with the block or with the process, however that ends.

    Yields:
        True if this process holds the lock. False if another one does, the file system has no locks, or the operating
        system has none (HAS_LOCKS).

    Raises:
        OSError: The path cannot be opened.
    """
    if fcntl is None:
        yield False
        return
    handle = os.open(path, os.O_RDONLY if os.path.isdir(path) else os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        except OSError:
            held = False
        yield held
    finally:
        os.close(handle)


def file_digest(path: str | os.PathLike) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def parse_yaml(text: str) -> Any:
    """Reads a YAML text of plain values: scalars, lists and mappings.

    Raises:
        DuplicateKeyError: A mapping has a key twice; YAML's own loaders keep the last one without a word.
        yaml.YAMLError: It is not YAML, a tag does not fit its value, a date does not exist, or it is nested more than
            MAX_NESTING deep.
    """
    loader = _PlainLoader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


class DuplicateKeyError(yaml.constructor.ConstructorError):
    """A mapping has a key twice."""


class _PlainLoader(yaml.SafeLoader):
    """Raises YAMLError for whatever cannot be read; PyYAML lets the errors of its conversions through."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise yaml.composer.ComposerError(
                None, None, f"nested more than {MAX_NESTING} deep", self.peek_event().start_mark
            )
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        # Conversions by tag: int(""), a date that does not exist, a timestamp that is none, a truth value not known.
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            raise yaml.constructor.ConstructorError(None, None, str(error), node.start_mark) from None
        if isinstance(value, int) and value.bit_length() > MAX_BITS:
            raise yaml.constructor.ConstructorError(None, None, "an integer of this length", node.start_mark)
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise DuplicateKeyError(None, None, f"{key.value} is set twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a YAML file of settings.

    Raises:
        UserError: The file is missing, is not YAML, has a key twice, or is not a mapping.
    """
    try:
        content = parse_yaml(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name an existing YAML file with --config") from None
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{path}: line {line}: {error.problem}; write each setting once, as `key: value`") from None
    except (yaml.YAMLError, ValueError) as error:
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        where = f" in line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}: this is not YAML{where}; write one `key: value` per line") from None
    if not isinstance(content or {}, dict):
        raise UserError(f"{path}: there are no settings in it; write one `key: value` per line")
    return content or {}
