"""Worker process that decodes images: batches arrive on stdin, results are written to stdout.

A decoder that crashes, hangs or exhausts memory ends this process and no other.
"""

import os
import pickle
import sys
import warnings
from collections.abc import Callable
from typing import Any

from annotation.comparison import differences, pixel_digests
from annotation.thumbnails import thumbnails
from annotation.verdicts import verify

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

TASKS: dict[str, Callable[..., list[Any]]] = {
    "verify": verify,
    "pixel_digests": pixel_digests,
    "differences": differences,
    "thumbnails": thumbnails,
}
READY = "ready"
# Decoding takes 4 bytes per pixel, and as much again for each of rotation, transparency and conversion.
BYTES_PER_PIXEL = 16
MIN_MEMORY_BYTES = 2 << 30


def limit_memory(limit_bytes: int) -> None:
    """Makes every allocation beyond the limit fail, where the operating system supports it."""
    if resource is None:
        return
    try:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, hard))
    except (ValueError, OSError):
        pass


def main() -> None:
    """Processes batches until stdin ends; the last argument is max_pixels."""
    max_pixels = int(sys.argv[-1])
    # Results have stdout to themselves: what a library prints goes to stderr.
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    limit_memory(max(MIN_MEMORY_BYTES, BYTES_PER_PIXEL * max_pixels))
    # Starting may take long on a busy machine, and is not part of the time limit for images.
    pickle.dump(READY, results)
    results.flush()
    while True:
        try:
            task, items, options = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(TASKS[task](items, max_pixels, **options), results, protocol=pickle.HIGHEST_PROTOCOL)
        results.flush()
