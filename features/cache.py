"""Cache of features: arrays in .npy files with a checksum, in memory or memory-mapped."""

import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from imaging.cache import free_memory, remove_unfinished
from system.errors import UserError
from system.files import locked
from system.publishing import replacing
from system.settings import Settings

# numpy reads a .npy file as far as its array goes; behind it stands its CRC-32, in so many bytes.
CHECKSUM = 4
CHUNK = 1 << 24  # bytes that are checked at once


def load(file: Path, count: int) -> np.ndarray | None:
    """Opens a file of `count` rows, float32 [N, D]; returns None if it is missing or damaged."""
    try:
        rows = np.load(file, mmap_mode="r")
        whole = rows.dtype == np.float32 and rows.ndim == 2 and len(rows) == count
        with open(file, "rb") as handle:
            handle.seek(-CHECKSUM, os.SEEK_END)
            kept = handle.read()
            if not whole or handle.tell() != rows.offset + rows.nbytes + CHECKSUM:
                return None
        step = max(1, CHUNK // max(1, rows[:1].nbytes))
        if kept != _checksum(rows[start : start + step] for start in range(0, count, step)):
            return None
    except (OSError, ValueError, EOFError, SyntaxError):
        return None
    return rows if _is_large(rows.nbytes) else np.array(rows)


def build(
    file: Path, shape: tuple[int, int], compute: Callable[[], Iterator[np.ndarray]], settings: Settings
) -> np.ndarray:
    """Makes an array float32 of this shape, and keeps it in a file as `cache` asks for.

    Args:
        compute: Yields the rows, some at a time, in their order.

    Returns:
        The rows; memory-mapped where they would take more than a quarter of the free memory and may be kept.

    Raises:
        UserError: cache=disk, and the folder cannot be written to or has no room; and what `compute` raises.
    """
    size, keep = 4 * shape[0] * shape[1], settings.cache in ("auto", "disk")
    if not keep:
        return _in_memory(shape, compute)
    # What is large is written as it is computed, and never in memory as a whole.
    rows = None if _is_large(size) else _in_memory(shape, compute)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        remove_unfinished(file.parent)
        if (free := shutil.disk_usage(file.parent).free) < size:
            raise OSError(f"{size >> 20} MB are needed, {free >> 20} MB are free")
        with replacing(file) as temporary, locked(temporary):
            _write(temporary, shape, compute() if rows is None else [rows])
    except OSError as error:
        reason = error.strerror or str(error)
        if settings.cache == "disk":
            raise UserError(f"{file}: cannot be written ({reason}); set cache_dir, or use cache=none") from None
        print(f"features: not kept, {file.parent} cannot be written to ({reason})")
    if rows is None:
        rows = load(file, shape[0])
    return _in_memory(shape, compute) if rows is None else rows


def _write(file: Path, shape: tuple[int, int], chunks: Iterable[np.ndarray]) -> None:
    # Not memory-mapped: a full disk would end the process.
    with open(file, "wb") as handle:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(handle, header)

        def written() -> Iterator[np.ndarray]:
            for chunk in chunks:
                handle.write(chunk.data)
                yield chunk

        handle.write(_checksum(written()))


def _in_memory(shape: tuple[int, int], compute: Callable[[], Iterator[np.ndarray]]) -> np.ndarray:
    rows, start = np.empty(shape, np.float32), 0
    for chunk in compute():
        rows[start : start + len(chunk)] = chunk
        start += len(chunk)
    return rows


def _is_large(size: int) -> bool:
    return size > free_memory() / 4


def _checksum(chunks: Iterable[np.ndarray]) -> bytes:
    crc = 0
    for chunk in chunks:
        crc = zlib.crc32(np.ascontiguousarray(chunk).data, crc)
    return crc.to_bytes(CHECKSUM, "little")
