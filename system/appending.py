"""Rows appended to a file that several processes may write: each whole or not at all, and on the disk at once."""

import errno
import os
import threading
from collections.abc import Iterable
from pathlib import Path

from system.files import locked

# Where the system has no locks, at least the threads of a process take turns.
_LOCK = threading.Lock()


def append_rows(path: Path, header: str, rows: Iterable[str], max_bytes: int | None = None) -> int:
    """Appends rows to a text file, all or none; an empty file gets its header first.

    Args:
        header: First line of the file, without its line end; likewise the rows.
        max_bytes: A file larger than this takes no more rows; None: no limit.

    Returns:
        Number of bytes that were added.

    Raises:
        OSError: The file cannot be written, or is full (errno EFBIG); it is as it was.
    """
    # Unbuffered, so that what a full disk takes of a row is known at once, and taken back.
    with _LOCK, locked(path, wait=True), open(path, "ab+", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        if max_bytes is not None and size > max_bytes:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        start = "" if size else f"{header}\n"
        if size:
            # A file that an editor has saved may lack its last line end.
            file.seek(size - 1)
            start = "" if file.read(1) == b"\n" else "\n"
        data = (start + "".join(f"{row}\n" for row in rows)).encode()
        try:
            written = file.write(data)
            os.fsync(file.fileno())
        except OSError:
            file.truncate(size)
            raise
        if written != len(data):
            file.truncate(size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    return len(data)
