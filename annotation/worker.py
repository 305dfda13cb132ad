"""A process that decodes images for another one: batches come in on stdin, results go out on stdout.

A decoder that crashes, hangs or eats memory takes this process with it and nothing else.
"""

import os
import pickle
import sys
import warnings

from annotation import verdicts

TASKS = {
    "judge": verdicts.judge,
    "pixel_digests": verdicts.pixel_digests,
    "differences": verdicts.differences,
    "thumbnails": verdicts.thumbnails,
}


READY = "ready"
# An image in decoding: 4 bytes a pixel, and as much again for each of turning, transparency and conversion.
BYTES_A_PIXEL = 16
LEAST_MEMORY_BYTES = 2 << 30


def limit_memory(limit_bytes: int) -> None:
    """Makes every allocation beyond the limit fail; does nothing on a system that knows no such limit."""
    try:
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, hard))
    except (ImportError, ValueError, OSError):
        pass


def main() -> None:
    """Answers batches until stdin ends; the last argument is max_pixels."""
    max_pixels = int(sys.argv[-1])
    # What a library prints must not get between the results.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    limit_memory(max(LEAST_MEMORY_BYTES, BYTES_A_PIXEL * max_pixels))
    # Starting may take long on a busy machine; the time limit is for the images.
    pickle.dump(READY, replies)
    replies.flush()
    while True:
        try:
            task, items, options = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(TASKS[task](items, max_pixels, **options), replies, protocol=pickle.HIGHEST_PROTOCOL)
        replies.flush()
