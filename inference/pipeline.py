"""Prediction pipeline: threads decode the next images while the network works on the current batch."""

import itertools
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from imaging.images import ImageError
from inference.interfaces import Model
from inference.ranking import predicted_class, rank_classes
from inference.sources import ImageSource, SkippedFiles, find_images, find_sources, have_labels
from system import machine, progress
from system.settings import Settings

# Batches whose images are decoded before they are needed: enough to bridge a slow disk, little memory.
BATCHES_AHEAD = 3
# Index of an image, where it is from, and its probabilities float32 [C] or the error that kept it from being read.
Prediction = tuple[int, ImageSource, np.ndarray | ImageError]
# Called with each image that was predicted, and its probabilities float32 [C].
OnPrediction = Callable[[ImageSource, np.ndarray], None]
# Predicts the images that inputs name, calls a function with each, and returns how many could not be read.
PredictAll = Callable[[Sequence[str], Model, Settings, OnPrediction], int]


class ImagePrediction(NamedTuple):
    """The prediction for one image.

    Attributes:
        path: Of the image.
        prediction: Name of its class, or "none of these"; "" where it could not be read.
        probabilities: By name of the class, the likeliest first.
        label: Name of the class that a list gives it; None where none does.
        error: Why it could not be read; "" where it could.
    """

    path: str
    prediction: str
    probabilities: dict[str, float]
    label: str | None
    error: str


def predict_inputs(inputs: Sequence[str], model: Model, settings: Settings) -> list[ImagePrediction]:
    """Predicts the images that inputs name, as predict.py finds them.

    Raises:
        UserError: A list cannot be read, or its labels are not of the model's classes.
    """
    names = model.class_names
    have_labels(inputs, names)
    skipped = SkippedFiles()
    found: list[ImagePrediction] = []
    items = enumerate(find_sources(inputs, skipped, len(names)))
    workers = decoding_threads(settings)
    with progress_bar(inputs, is_shown=True) as bar:
        for batch in predict_images(items, model, settings.batch_size, settings.max_pixels, workers):
            bar.update(len(batch))
            found += [_named(source, result, model) for _, source, result in batch]
    if str(skipped):
        print(skipped, file=sys.stderr)
    return found


def _named(source: ImageSource, result: np.ndarray | ImageError, model: Model) -> ImagePrediction:
    names = model.class_names
    label = None if source.label is None else names[source.label]
    if isinstance(result, ImageError):
        return ImagePrediction(source.path, "", {}, label, f"{result.reason}: {result.detail}")
    ranked = dict(rank_classes(result, names, len(names)))
    return ImagePrediction(source.path, predicted_class(result, names, model.threshold), ranked, label, "")


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
    """Makes a progress bar on stderr; images are only counted if it is shown, on a terminal or in a notebook."""
    is_shown = is_shown and progress.is_shown()
    total = sum(1 for _ in find_images(inputs)) if is_shown else None
    return tqdm(total=total, unit=" images", disable=not is_shown)
