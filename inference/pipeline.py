"""Decoding beside inference: threads read the next images while the network works on these."""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
from PIL import Image

from imaging.images import ImageError, read_image

# Batches whose images are decoded before they are needed: enough to bridge a slow disk, little memory.
BATCHES_AHEAD = 3


class Model(Protocol):
    """What scores: a run or an export."""

    class_names: list[str]
    threshold: float | None

    def transform(self, image: Image.Image) -> np.ndarray:
        """Turns an image into uint8 [3, H, W]."""

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Turns uint8 [N, 3, H, W] into probabilities float32 [N, C]."""


def answers(
    items: Iterable[tuple[int, str]], model: Model, batch_size: int, max_pixels: int, workers: int
) -> Iterator[list[tuple[int, str, np.ndarray | ImageError]]]:
    """Predicts batch by batch, in order; memory does not grow with the number of images.

    Args:
        items: Index and path of each image.
        workers: Threads that decode; Pillow and Paddle Inference let go of the interpreter while they work.

    Yields:
        Batches of (index, path, probabilities float32 [C] or the error that kept the image from being read).
    """

    def read(path: str) -> np.ndarray | ImageError:
        try:
            return model.transform(read_image(path, max_pixels))
        except ImageError as error:
            return error
        except MemoryError:
            return ImageError(path, "too_much_memory", "resizing it needs more memory than there is; shrink it")

    iterator = iter(items)
    waiting: deque[tuple[int, str, Future]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        while True:
            for index, path in itertools.islice(iterator, BATCHES_AHEAD * batch_size - len(waiting)):
                waiting.append((index, path, pool.submit(read, path)))
            if not waiting:
                return
            batch = [waiting.popleft() for _ in range(min(batch_size, len(waiting)))]
            yield _predict(model, [(index, path, future.result()) for index, path, future in batch])
    finally:
        pool.shutdown(cancel_futures=True)


def _predict(
    model: Model, batch: list[tuple[int, str, np.ndarray | ImageError]]
) -> list[tuple[int, str, np.ndarray | ImageError]]:
    images = [pixels for _, _, pixels in batch if isinstance(pixels, np.ndarray)]
    rows = iter(model.predict(np.stack(images)) if images else ())
    return [(index, path, next(rows) if isinstance(pixels, np.ndarray) else pixels) for index, path, pixels in batch]
