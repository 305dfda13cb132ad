"""Image cache: decoded, reduced images in memory or in one file, so that epochs need not decode again."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import threading
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from system.errors import UserError
from system.files import HAS_LOCKS, locked
from system.machine import cores
from system.publishing import replacing

# Raise it when the file's layout or the way images are reduced changes.
LAYOUT = 2
# The file holds the pixels, a row (offset, height, width, CRC-32 of the pixels) per image, and this: LAYOUT, number of
# rows, their checksum.
FOOTER = np.dtype([("layout", "<i8"), ("count", "<i8"), ("checksum", "<i8")])
COLUMNS = 4
# Files under construction; those of a process that was killed are removed by the next one.
UNFINISHED = re.compile(r"\..+\.(pixels|npy)\.\d+")


class ImageCache:
    """Images uint8 [height, width, 3] by their index in a list.

    Attributes:
        table: int64 [N, 3]: offset of each image's first byte, its height and width.
        size: Of all images, in bytes.
    """

    def __init__(self, table: np.ndarray):
        self.table = table
        self.size = int((table[:, 1] * table[:, 2] * 3).sum())
        self._is_uniform = len(table) > 0 and bool((table[:, 1:] == table[0, 1:]).all())

    def __len__(self) -> int:
        return len(self.table)

    def _bytes(self, offset: int, count: int) -> np.ndarray:
        """Returns a part of the pixels, uint8 [count]; read-only."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> np.ndarray:
        """Returns one image, uint8 [height, width, 3]; read-only."""
        offset, height, width = self.table[index].tolist()
        return self._bytes(offset, height * width * 3).reshape(height, width, 3)

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Returns several images, uint8 [N, height, width, 3], as a copy; all images must be of one size.

        Raises:
            ValueError: They are not.
        """
        if not self._is_uniform:
            raise ValueError("images of several sizes cannot be taken as one array")
        return np.stack([self[index] for index in indices.tolist()])

    def has_size(self, height: int, width: int) -> bool:
        """Whether every image has this size."""
        return self._is_uniform and self.table[0, 1:].tolist() == [height, width]


class MemoryCache(ImageCache):
    """Images in one array, uint8 [bytes]."""

    def __init__(self, pixels: np.ndarray, table: np.ndarray):
        super().__init__(table)
        self.pixels = pixels

    def _bytes(self, offset: int, count: int) -> np.ndarray:
        return self.pixels[offset : offset + count]

    def take(self, indices: np.ndarray) -> np.ndarray:
        """See ImageCache; in one step."""
        if not self._is_uniform:
            return super().take(indices)
        height, width = self.table[0, 1:].tolist()
        return self.pixels.reshape(-1, height, width, 3)[indices]


class DiskCache(ImageCache):
    """Images in a file. It is read, not memory-mapped: a mapped file that is cut short ends the process."""

    def __init__(self, file: Path, table: np.ndarray):
        super().__init__(table)
        self.file = file
        self.handle = open(file, "rb", buffering=0)  # noqa: SIM115 - open as long as the cache is
        self.lock = threading.Lock()

    def __reduce__(self) -> tuple:
        return DiskCache, (self.file, self.table)

    def _bytes(self, offset: int, count: int) -> np.ndarray:
        if hasattr(os, "pread"):
            data = os.pread(self.handle.fileno(), count, offset)
        else:  # Windows
            with self.lock:
                self.handle.seek(offset)
                data = self.handle.read(count)
        if len(data) != count:
            raise UserError(f"{self.file}: was cut short while it was in use; run the command again")
        return np.frombuffer(data, np.uint8)

    def is_sound(self, checksums: np.ndarray) -> bool:
        """Compares every image with its CRC-32, with one thread per core."""

        def is_whole(index: int) -> bool:
            return zlib.crc32(self[index].data) == checksums[index]

        with ThreadPoolExecutor(cores()) as pool:
            return all(pool.map(is_whole, range(len(self)), chunksize=64))


def key(files: Sequence[Path], transform_key: str) -> str:
    """Identifies the content of a cache: the files as they are now, the transform, and the release of Pillow.

    Raises:
        UserError: A file is gone.
    """
    digest = hashlib.sha256(json.dumps([LAYOUT, transform_key, PIL.__version__]).encode())
    for file in files:
        try:
            state = file.stat()
        except OSError as error:
            raise UserError(f"{file}: cannot be read ({error.strerror}); run `python annotate.py` again") from None
        digest.update(f"{file.resolve()}\n{state.st_size} {state.st_mtime_ns} {state.st_ctime_ns}\n".encode())
    return digest.hexdigest()[:20]


def estimate(files: Sequence[Path], cached_size: Callable[[tuple[int, int]], tuple[int, int]]) -> int:
    """Estimates the size of a cache in bytes from the headers of at most 200 images, spread over the list."""
    sample = files[:: max(1, len(files) // 200)]
    total = 0
    for file in sample:
        try:
            with Image.open(file) as image:
                width, height = cached_size(image.size)
                total += width * height * 3
        # Errors are reported when the file is read.
        except Exception:
            continue
    return round(total * len(files) / max(1, len(sample)))


def free_memory() -> int:
    """Memory available without swapping, in bytes."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 4 << 30


def build(files: Sequence[Path], read: Callable[[Path], np.ndarray]) -> ImageCache:
    """Reads every image into memory, with one thread per core (decoders release the GIL).

    Raises:
        ImageError: An image cannot be read.
    """
    with ThreadPoolExecutor(cores()) as pool:
        images = list(pool.map(read, files))
    return MemoryCache(np.concatenate([image.reshape(-1) for image in images]), _table([i.shape for i in images]))


def _table(shapes: Sequence[tuple[int, ...]]) -> np.ndarray:
    sides = np.asarray(shapes, np.int64).reshape(len(shapes), 3)[:, :2]
    sizes = sides.prod(axis=1) * 3
    return np.column_stack([np.cumsum(sizes) - sizes, sides])


def on_disk(folder: str | os.PathLike, name: str, files: Sequence[Path], read: Callable, size: int) -> ImageCache:
    """Opens the cache file `folder/name`; writes it first if it is missing or damaged.

    Args:
        size: Its estimated size in bytes.

    Raises:
        UserError: The folder cannot be written to or has no room.
        ImageError: An image cannot be read.
    """
    file = Path(folder) / name
    remove_unfinished(file.parent)
    found = load(file, len(files))
    if found is not None:
        print(f"cache: {file} is up to date")
        return found
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(file.parent).free
        if size > free:
            raise UserError(
                f"cache_dir={folder}: the cache needs {size >> 20} MB, {free >> 20} MB are free; use cache=none"
            )
        _write(file, files, read)
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error.strerror}); set cache_dir, or use cache=none") from None
    written = load(file, len(files))
    if written is None:
        raise UserError(f"{file}: cannot be read back; set cache_dir to another disk, or use cache=none")
    return written


def remove_unfinished(folder: Path) -> None:
    """Removes the files that killed processes left in a cache folder."""
    for left in folder.iterdir() if folder.is_dir() else ():
        if UNFINISHED.fullmatch(left.name):
            # Where another process still writes it, Windows does not let it go.
            with contextlib.suppress(OSError), locked(left) as is_abandoned:
                if is_abandoned or not HAS_LOCKS:
                    left.unlink()


def _write(file: Path, files: Sequence[Path], read: Callable[[Path], np.ndarray]) -> None:
    shapes, checksums = [], []
    with (
        replacing(file) as temporary,
        locked(temporary),
        open(temporary, "wb") as handle,
        ThreadPoolExecutor(cores()) as pool,
    ):
        for start in range(0, len(files), 256):
            for image in pool.map(read, files[start : start + 256]):
                data = image.tobytes()
                handle.write(data)
                shapes.append(image.shape)
                checksums.append(zlib.crc32(data))
        rows = np.column_stack([_table(shapes), checksums]).astype("<i8").tobytes()
        handle.write(rows)
        handle.write(np.array([(LAYOUT, len(shapes), zlib.crc32(rows))], FOOTER).tobytes())


def load(file: Path, count: int) -> ImageCache | None:
    """Opens a cache file of `count` images; returns None if it is missing or damaged."""
    size = 8 * COLUMNS * count + FOOTER.itemsize
    try:
        with open(file, "rb") as handle:
            whole = handle.seek(0, os.SEEK_END)
            handle.seek(max(0, whole - size))
            end = handle.read()
    except OSError:
        return None
    if len(end) != size:
        return None
    rows, footer = end[: -FOOTER.itemsize], np.frombuffer(end[-FOOTER.itemsize :], FOOTER)[0]
    if footer["layout"] != LAYOUT or footer["count"] != count or footer["checksum"] != zlib.crc32(rows):
        return None
    table = np.frombuffer(rows, "<i8").reshape(count, COLUMNS)
    found = DiskCache(file, table[:, :3])
    return found if found.size + size == whole and found.is_sound(table[:, 3]) else None
