"""Predictions on the terminal: one line per image."""

import sys
from collections.abc import Sequence

import numpy as np

from imaging.images import ImageError
from inference.interfaces import Model
from inference.pipeline import OnPrediction, decoding_threads, predict_images
from inference.ranking import NONE_OF_THESE, is_rejected, predicted_class, rank_classes
from inference.sources import ImageSource, SkippedFiles, find_sources, have_labels
from system.settings import Settings
from system.text import counted, inflect


class Matches:
    """Counts the predictions of images with a label, and those that are their label; "none of these" never is.

    Attributes:
        labelled: Number of predictions of images with a label.
        matching: Number of those that match.
    """

    def __init__(self) -> None:
        self.labelled = self.matching = 0

    def add(self, prediction: str, label: str | None) -> None:
        """Counts the predicted class of an image whose class is `label`; None: it has none."""
        self.labelled += label is not None
        self.matching += prediction == label

    def __str__(self) -> str:
        """One line, "" if no image has a label."""
        share = self.matching / max(1, self.labelled)
        match = inflect(self.matching, "matches its label", "match their labels")
        line = f"{self.matching} of {counted(self.labelled, 'prediction')} {match} ({share:.1%})"
        return line if self.labelled else ""


def print_predictions(inputs: Sequence[str], model: Model, settings: Settings, on_prediction: OnPrediction) -> int:
    """Predicts the images of inputs and prints a line for each.

    Returns:
        Number of images that could not be read.

    Raises:
        UserError: A list cannot be read, or its labels are not of the model's classes.
    """
    predicted = failed = 0
    have_labels(inputs, model.class_names)
    skipped, matches = SkippedFiles(), Matches()
    items = enumerate(find_sources(inputs, skipped, len(model.class_names)))
    for batch in predict_images(items, model, settings.batch_size, settings.max_pixels, decoding_threads(settings)):
        for _, source, result in batch:
            print_line(source, result, model, settings.top_k)
            if isinstance(result, ImageError):
                failed += 1
            else:
                predicted += 1
                matches.add(predicted_class(result, model.class_names, model.threshold), label_of(source, model))
                on_prediction(source, result)
    if str(skipped):
        print(skipped, file=sys.stderr)
    if failed:
        print(f"{counted(predicted, 'image')} predicted, {failed} could not be read", file=sys.stderr)
    if str(matches):
        print(matches, file=sys.stderr)
    return failed


def label_of(source: ImageSource, model: Model) -> str | None:
    """Returns the class that a list gives an image; None if none does."""
    return None if source.label is None else model.class_names[source.label]


def print_line(source: ImageSource, result: np.ndarray | ImageError, model: Model, top_k: int) -> None:
    """Prints the likeliest classes of an image and its label, or on stderr why it could not be read."""
    if isinstance(result, ImageError):
        print(result, file=sys.stderr)
        return
    label, line = label_of(source, model), format_prediction(result, model.class_names, model.threshold, top_k)
    if label is not None:
        is_wrong = predicted_class(result, model.class_names, model.threshold) != label
        line += f" (label: {label}{', WRONG' if is_wrong else ''})"
    print(f"{source.path}: {line}")


def format_prediction(
    probabilities: np.ndarray, class_names: Sequence[str], threshold: float | None, top_k: int
) -> str:
    """Formats the likeliest classes in one line, after "none of these" if the image is rejected."""
    ranked = rank_classes(probabilities, class_names, top_k)
    text = ", ".join(f"{name} {probability:.4f}" for name, probability in ranked)
    return f"{NONE_OF_THESE} ({text})" if is_rejected(ranked[0][1], threshold) else text
