"""Comparison of image files: pixel digests, overlay differences. Runs in the worker processes."""

import hashlib
import os
from functools import cache

import numpy as np
from PIL import Image

from annotation.verdicts import MIN_SIDE, shrink
from imaging.images import ImageError, open_image, read_image
from imaging.resizing import resize_box

COMPARED = 32  # px, side of two images that are overlaid
NO_MATCH = 9.0  # stands for the difference from an image that can no longer be decoded


def pixel_digests(paths: list[bytes], max_pixels: int) -> list[bytes]:
    """SHA-1 of the pixels as training reads them; b"" for a file that can no longer be read."""
    return [_pixel_digest(path, max_pixels) for path in paths]


def _pixel_digest(path: bytes, max_pixels: int) -> bytes:
    try:
        image = read_image(os.fsdecode(path), max_pixels)
    except (ImageError, MemoryError):
        return b""
    return hashlib.sha1(repr(image.size).encode() + image.tobytes(), usedforsecurity=False).digest()


def differences(pairs: list[tuple[bytes, bytes]], max_pixels: int) -> list[float]:
    """Overlay difference of each pair of files, 0 (equal) to 2; NO_MATCH for a file that can no longer be read."""
    return [_difference(first, second, max_pixels) for first, second in pairs]


def _difference(first: bytes, second: bytes, max_pixels: int) -> float:
    try:
        pair = [shrink(open_image(os.fsdecode(path), max_pixels, least=MIN_SIDE)) for path in (first, second)]
    except (ImageError, MemoryError):
        return NO_MATCH
    return overlay_difference(*pair)


# Crops that a copy may show, as fractions of the sides (left, top, right, bottom); the first is the whole image.
WINDOWS = [(0.0, 0.0, 1.0, 1.0)] + [
    (x * cut, y * cut, 1 - (1 - x) * cut, 1 - (1 - y) * cut)
    for cut in (0.05, 0.1, 0.15)
    for x in (0.0, 0.5, 1.0)
    for y in (0.0, 0.5, 1.0)
]


def _views(image: Image.Image) -> np.ndarray:
    size = (COMPARED, COMPARED)
    boxes = [(a * image.width, b * image.height, c * image.width, d * image.height) for a, b, c, d in WINDOWS]
    views = b"".join(resize_box(image, size, box).tobytes() for box in boxes)
    return np.frombuffer(views, np.uint8).reshape(len(WINDOWS), -1).astype(np.float64)


def overlay_difference(first: Image.Image, second: Image.Image) -> float:
    """Compares each image with crops of the other.

    Returns:
        1 - r, where r is the highest correlation of all pixels and channels, whatever brightness and contrast.
    """
    one, two = _views(first), _views(second)
    return float(1 - max(_correlations(one[0], two).max(), _correlations(two[0], one).max()))


def _correlations(view: np.ndarray, others: np.ndarray) -> np.ndarray:
    # Means are per channel: with a single mean, two blue skies would correlate whatever flies there. One side is
    # centred, so the means of the other cancel in the products; only its norms need them.
    means = view.reshape(-1, 3).mean(axis=0)
    view = (view.reshape(-1, 3) - means).ravel()
    squares = np.einsum("ij,ij->i", others, others) - ((others @ _channels()) ** 2).sum(axis=1) / COMPARED**2
    return others @ view / np.maximum(np.sqrt(np.maximum(squares, 0) * (view @ view)), 1e-9)


@cache
def _channels() -> np.ndarray:
    """Matrix that sums each channel of flattened pixels, float64 [COMPARED * COMPARED * 3, 3]."""
    return np.tile(np.eye(3), (COMPARED**2, 1))
