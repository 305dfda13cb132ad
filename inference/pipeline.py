"""Prediction pipeline: threads decode the next images while the network works on the current batch."""

import itertools
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from tqdm import tqdm

from imaging.images import ImageError
from inference.interfaces import Model
from inference.sources import ImageSource, find_images
from system import machine
from system.settings import Settings

# Batches whose images are decoded before they are needed: enough to bridge a slow disk, little memory.
BATCHES_AHEAD = 3
# Index of an image, where it is from, and its probabilities float32 [C] or the error that kept it from being read.
Prediction = tuple[int, ImageSource, np.ndarray | ImageError]
# Called with each image that was predicted, and its probabilities float32 [C].
OnPrediction = Callable[[ImageSource, np.ndarray], None]
# Predicts the images that inputs name, calls a function with each, and returns how many could not be read.
PredictAll = Callable[[Sequence[str], Model, Settings, OnPrediction], int]


def predict_images(
    items: Iterable[tuple[int, ImageSource]], model: Model, batch_size: int, max_pixels: int, workers: int
) -> Iterator[list[Prediction]]:
    """Predicts batch by batch, in order; memory does not grow with the number of images.

    Args:
        items: Index of each image, and where it is from.
        workers: Threads that decode; Pillow and Paddle Inference release the GIL while they work.

    Yields:
        Batches of predictions.
    """

    def read(path: str) -> np.ndarray | ImageError:
        try:
            return model.transform.read(path, max_pixels)
        except ImageError as error:
            return error
        except MemoryError:
            return ImageError(path, "too_much_memory", "resizing it needs more memory than there is; shrink it")

    iterator = iter(items)
    waiting: deque[tuple[int, ImageSource, Future]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        while True:
            for index, source in itertools.islice(iterator, BATCHES_AHEAD * batch_size - len(waiting)):
                waiting.append((index, source, pool.submit(read, source.path)))
            if not waiting:
                return
            batch = [waiting.popleft() for _ in range(min(batch_size, len(waiting)))]
            yield _predict(model, [(index, source, future.result()) for index, source, future in batch])
    finally:
        pool.shutdown(cancel_futures=True)


def _predict(model: Model, batch: list[Prediction]) -> list[Prediction]:
    """Replaces the pixels of a batch by their probabilities."""
    images = [pixels for _, _, pixels in batch if isinstance(pixels, np.ndarray)]
    rows = iter(model.predict(np.stack(images)) if images else ())
    return [(index, source, next(rows) if isinstance(found, np.ndarray) else found) for index, source, found in batch]


def decoding_threads(settings: Settings) -> int:
    """Number of threads that decode: the setting num_workers, or by default one per computing thread, at least 2."""
    if settings.num_workers == "auto" or settings.num_workers == 0:
        return max(2, machine.threads(settings))
    return settings.num_workers


def progress_bar(inputs: Sequence[str], is_shown: bool) -> tqdm:
    """Makes a progress bar on stderr; images are only counted if it is shown, on a terminal."""
    is_shown = is_shown and sys.stderr.isatty()
    total = sum(1 for _ in find_images(inputs)) if is_shown else None
    return tqdm(total=total, unit=" images", disable=not is_shown)
