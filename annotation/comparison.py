"""Comparison of image files: pixel digests, overlay differences. Runs in the worker processes."""

import hashlib
import math
import os
from functools import cache

import numpy as np
from PIL import Image

from annotation.verdicts import MIN_SIDE, cosines, shrink
from imaging.images import ImageError, open_image, read_image
from imaging.resizing import resize_box

COMPARED = 32  # px, side of two images that are overlaid
MAX_DIFFERENCE = 0.06  # overlay difference up to which two images are near-copies
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
    """Overlay difference of each pair of files, exact up to MAX_DIFFERENCE; NO_MATCH for a file that cannot be read."""
    return [_difference(first, second, max_pixels) for first, second in pairs]


def _difference(first: bytes, second: bytes, max_pixels: int) -> float:
    try:
        one, two = (shrink(open_image(os.fsdecode(path), max_pixels, least=MIN_SIDE)) for path in (first, second))
    except (ImageError, MemoryError):
        return NO_MATCH
    return overlay_difference(one, two, MAX_DIFFERENCE)


# Crops that a copy may show, as fractions of the sides (left, top, right, bottom); the first is the whole image.
SPANS = [(0.0, 1.0)] + [(at * cut, 1 - (1 - at) * cut) for cut in (0.05, 0.1, 0.15) for at in (0.0, 0.5, 1.0)]
WINDOWS = [(0, 0)] + [(x, y) for low in (1, 4, 7) for x in range(low, low + 3) for y in range(low, low + 3)]
ACROSS, DOWN = np.transpose(WINDOWS)
LOWEST = 12  # frequencies in either direction that bound the correlation of a view
COSINES = cosines(LOWEST, COMPARED) / math.sqrt(2 * COMPARED)  # rows of the DCT-II of a side, orthonormal
COSINES[0] /= math.sqrt(2)
LONGEST = 256  # px, side up to which images are bounded: it takes a matrix of side x side
ROUNDING = 1.01  # levels by which a resize may be off: half of one for the width, half for the height


def overlay_difference(first: Image.Image, second: Image.Image, limit: float = 2.0) -> float:
    """Compares each image with crops of the other.

    Args:
        limit: Above it, the result is only known to be above it: crops that provably correlate less are not compared.

    Returns:
        1 - r, where r is the highest correlation of all pixels and channels, whatever brightness and contrast.
    """
    wholes = [_view(image, 0) for image in (first, second)]
    bounds = np.stack([_bounds(wholes[0], second), _bounds(wholes[1], first)])
    highest = -1.0
    for place in np.argsort(-bounds, axis=None).tolist():
        side, window = divmod(place, len(WINDOWS))
        bound = float(bounds[side, window])
        if bound <= highest:
            break
        if 1 - bound > limit:
            return 1 - bound
        highest = max(highest, _correlation(wholes[side], _view((second, first)[side], window)))
    return 1 - highest


def _view(image: Image.Image, window: int) -> np.ndarray:
    """A window as float64 [COMPARED * COMPARED, 3], less the mean of each channel."""
    (left, right), (top, bottom) = (SPANS[span] for span in WINDOWS[window])
    box = (left * image.width, top * image.height, right * image.width, bottom * image.height)
    pixels = np.asarray(resize_box(image, (COMPARED, COMPARED), box), np.float64).reshape(-1, 3)
    # Means are per channel: with a single mean, two blue skies would correlate whatever flies there. They are a product
    # because numpy takes three times as long for the mean of a narrow array.
    return pixels - np.full((1, len(pixels)), 1 / len(pixels)) @ pixels


def _correlation(one: np.ndarray, two: np.ndarray) -> float:
    one, two = one.ravel(), two.ravel()
    return float(one @ two / max(np.sqrt((one @ one) * (two @ two)), 1e-9))


def _bounds(whole: np.ndarray, image: Image.Image) -> np.ndarray:
    """Bounds the correlations of a view with the windows of an image from above, float64 [windows].

    A view is the sum of its low frequencies and of the rest, which are orthogonal. The low ones are computed for all
    windows at once; the rest can at most agree with that of the view, and rounding can turn them by a small angle only.
    """
    if max(image.size) > LONGEST:
        return np.ones(len(WINDOWS))
    one = _project(whole.reshape(COMPARED, COMPARED, 3), COSINES, COSINES).ravel()
    others = _project(np.asarray(image, np.float32), _waves(image.width), _waves(image.height))
    others = others.reshape(len(SPANS), LOWEST, 3, len(SPANS), LOWEST)[ACROSS, :, :, DOWN].astype(np.float64)
    others[:, 0, :, 0] = 0  # the means
    others = others.reshape(len(WINDOWS), -1)
    norm, norms = math.sqrt(max(one @ one, 1e-9)), np.sqrt(np.maximum((others**2).sum(axis=1), 1e-9))
    cosine = np.maximum(0, np.minimum(others @ one / (norms * norm), 1))
    turn = np.minimum(1, ROUNDING * math.sqrt(whole.size) / norms)  # sine of the angle
    turned = cosine * np.sqrt(1 - turn**2) + turn * np.sqrt(1 - cosine**2)
    turned = np.where(cosine**2 + turn**2 < 1, turned, 1)
    share = norm**2 / max(whole.ravel() @ whole.ravel(), 1e-9)
    return np.sqrt(np.maximum(turned**2 * share + 1 - share, 0)) + 1e-6


def _project(pixels: np.ndarray, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Multiplies [height, width, 3] with a matrix from either side, to [across, 3, down] in two dimensions."""
    columns = across @ pixels.transpose(1, 2, 0).reshape(pixels.shape[1], -1)
    return columns.reshape(-1, len(pixels)) @ down.T


@cache
def _waves(side: int) -> np.ndarray:
    """Matrix from the pixels along a side to the low frequencies of each span, float32 [SPANS * LOWEST, side]."""
    pixels = Image.fromarray(np.eye(side, dtype=np.float32))
    spans = [resize_box(pixels, (COMPARED, side), (start * side, 0, end * side, side)) for start, end in SPANS]
    return np.concatenate([COSINES @ np.asarray(span).T for span in spans]).astype(np.float32)
