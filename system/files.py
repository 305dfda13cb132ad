"""Files: lines, locks, SHA-256."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from system.errors import UserError
from system.publishing import finish_publishing

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

HAS_LOCKS = fcntl is not None


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
def locked(path: str | os.PathLike, wait: bool = False) -> Iterator[bool | None]:
    """Locks a folder, or a file that is created if missing, for this process.

    The lock ends with the block or with the process, however that ends.

    Args:
        wait: Waits while another process, or thread, holds the lock.

    Yields:
        True if this process holds the lock, False if another one does; None if the file system has no locks, or the
        operating system has none (HAS_LOCKS).

    Raises:
        OSError: The path cannot be opened.
    """
    if fcntl is None:
        yield None
        return
    handle = os.open(path, os.O_RDONLY if os.path.isdir(path) else os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            held: bool | None = True
        except BlockingIOError:
            held = False
        except OSError:  # the file system has no locks
            held = None
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
