"""Image cache: decoded, reduced images in memory or in one file, so that epochs need not decode again."""

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from system.errors import UserError
from system.machine import cores
from system.publishing import replacing

# Raise it when the file's layout or the way images are reduced changes.
LAYOUT = 1
# The file holds the pixels, a row (offset, height, width) per image, and this: LAYOUT, number of rows, their checksum.
FOOTER = np.dtype([("layout", "<i8"), ("count", "<i8"), ("checksum", "<i8")])


class ImageCache:
    """Images uint8 [height, width, 3] by their index in a list.

    Attributes:
        table: int64 [N, 3]: offset of each image's first byte, its height and its width.
    """

    def __init__(self, pixels: np.ndarray, table: np.ndarray):
        self.pixels, self.table = pixels, table
        self._stack: np.ndarray | None = None
        if len(table) and (table[:, 1:] == table[0, 1:]).all():
            height, width = table[0, 1:].tolist()
            self._stack = pixels[: len(table) * height * width * 3].reshape(-1, height, width, 3)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> np.ndarray:
        """Returns one image, uint8 [height, width, 3]; read-only."""
        offset, height, width = self.table[index].tolist()
        return self.pixels[offset : offset + height * width * 3].reshape(height, width, 3)

    def take(self, indices: np.ndarray) -> np.ndarray:
        """Returns several images, uint8 [N, height, width, 3], as a copy; all images must be of one size.

        Raises:
            ValueError: They are not.
        """
        if self._stack is None:
            raise ValueError("images of several sizes cannot be taken as one array")
        return self._stack[indices]

    def has_size(self, height: int, width: int) -> bool:
        """Whether every image has this size."""
        return self._stack is not None and self._stack.shape[1:3] == (height, width)


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
        digest.update(f"{file.resolve()}\n{state.st_size} {state.st_mtime_ns}\n".encode())
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
    return ImageCache(np.concatenate([image.reshape(-1) for image in images]), _table([i.shape for i in images]))


def _table(shapes: Sequence[tuple[int, ...]]) -> np.ndarray:
    sides = np.asarray(shapes, np.int64).reshape(len(shapes), 3)[:, :2]
    sizes = sides.prod(axis=1) * 3
    return np.column_stack([np.cumsum(sizes) - sizes, sides])


def on_disk(folder: str | os.PathLike, name: str, files: Sequence[Path], read: Callable, size: int) -> ImageCache:
    """Memory-maps the cache file `folder/name`; writes it first if it is missing or damaged.

    Args:
        size: Its estimated size in bytes.

    Raises:
        UserError: The folder cannot be written to or has no room.
        ImageError: An image cannot be read.
    """
    file = Path(folder) / name
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


def _write(file: Path, files: Sequence[Path], read: Callable[[Path], np.ndarray]) -> None:
    shapes = []
    with replacing(file) as temporary, open(temporary, "wb") as handle, ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(files), 256):
            for image in pool.map(read, files[start : start + 256]):
                handle.write(image.tobytes())
                shapes.append(image.shape)
        rows = _table(shapes).astype("<i8").tobytes()
        # The table starts at a multiple of 8 bytes, as a memory map of it must.
        handle.write(b"\0" * (-handle.tell() % 8))
        handle.write(rows)
        handle.write(np.array([(LAYOUT, len(shapes), zlib.crc32(rows))], FOOTER).tobytes())


def load(file: Path, count: int) -> ImageCache | None:
    """Memory-maps a cache file of `count` images; returns None if it is missing or damaged."""
    try:
        content = np.memmap(file, np.uint8, "r")
    except (OSError, ValueError):
        return None
    if len(content) < FOOTER.itemsize + 24 * count:
        return None
    footer = content[-FOOTER.itemsize :].view(FOOTER)[0]
    rows = content[-FOOTER.itemsize - 24 * count : -FOOTER.itemsize]
    if footer["layout"] != LAYOUT or footer["count"] != count or footer["checksum"] != zlib.crc32(rows.tobytes()):
        return None
    table = rows.view("<i8").reshape(count, 3).copy()
    used = int(table[-1, 0] + table[-1, 1] * table[-1, 2] * 3) if count else 0
    if used + -used % 8 + rows.nbytes + FOOTER.itemsize != len(content):
        return None
    return ImageCache(content, table)
