"""Predictions on the terminal: one line per image."""

import sys
from collections.abc import Callable, Sequence

import numpy as np

from imaging.images import ImageError
from inference.interfaces import Model
from inference.pipeline import decoding_threads, predict_images
from inference.ranking import NONE_OF_THESE, is_rejected, rank_classes
from inference.sources import SkippedFiles, find_images
from system.settings import Settings


def print_predictions(
    inputs: Sequence[str], model: Model, settings: Settings, on_prediction: Callable[[str, np.ndarray], None]
) -> int:
    """Predicts the images of inputs and prints a line for each.

    Args:
        on_prediction: Called with path and probabilities float32 [C] of each image.

    Returns:
        Number of images that could not be read.
    """
    predicted = failed = 0
    skipped = SkippedFiles()
    items = enumerate(find_images(inputs, skipped))
    for batch in predict_images(items, model, settings.batch_size, settings.max_pixels, decoding_threads(settings)):
        for _, path, result in batch:
            print_line(path, result, model, settings.top_k)
            if isinstance(result, ImageError):
                failed += 1
            else:
                predicted += 1
                on_prediction(path, result)
    if str(skipped):
        print(skipped, file=sys.stderr)
    if failed:
        print(f"{predicted} images predicted, {failed} could not be read", file=sys.stderr)
    return failed


def print_line(path: str, result: np.ndarray | ImageError, model: Model, top_k: int) -> None:
    """Prints the likeliest classes of an image, or on stderr why it could not be read."""
    if isinstance(result, ImageError):
        print(result, file=sys.stderr)
    else:
        print(f"{path}: {format_prediction(result, model.class_names, model.threshold, top_k)}")


def format_prediction(
    probabilities: np.ndarray, class_names: Sequence[str], threshold: float | None, top_k: int
) -> str:
    """Formats the likeliest classes in one line, after "none of these" if the image is rejected."""
    ranked = rank_classes(probabilities, class_names, top_k)
    text = ", ".join(f"{name} {probability:.4f}" for name, probability in ranked)
    return f"{NONE_OF_THESE} ({text})" if is_rejected(ranked[0][1], threshold) else text
