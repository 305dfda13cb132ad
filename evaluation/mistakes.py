"""Mistakes: the most confident wrong predictions, the worst of each class, the most confused pairs of classes."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from evaluation.predictions import Predictions


@dataclass(frozen=True)
class Pair:
    """A class that is mistaken for another one.

    Attributes:
        label: Index of the true class.
        predicted: Index of the predicted class.
        count: Number of images.
        share: Of all images of the label, 0..1.
        examples: Their rows in the list, the most confident first.
    """

    label: int
    predicted: int
    count: int
    share: float
    examples: list[int]


def most_confident(predictions: Predictions, count: int) -> list[int]:
    """Rows of the wrong predictions with the highest confidence, at most count."""
    wrong = np.flatnonzero(~predictions.correct)
    return wrong[np.argsort(-predictions.confidences[wrong], kind="stable")][:count].tolist()


def worst_of_classes(predictions: Predictions, count: int, without: Collection[int] = ()) -> list[int]:
    """For each class the wrong prediction with the lowest probability of the label; the weakest classes first.

    Args:
        without: Rows that are shown elsewhere; the next worst of their class takes their place.

    Returns:
        Rows in the list, one per class, at most count.
    """
    of_label = predictions.probabilities[np.arange(len(predictions.labels)), predictions.labels]
    found = []
    for index in np.unique(predictions.labels):
        rows = np.flatnonzero(predictions.labels == index)
        wrong = rows[~predictions.correct[rows] & ~np.isin(rows, list(without))]
        if len(wrong):
            found.append((predictions.correct[rows].mean(), int(wrong[of_label[wrong].argmin()])))
    return [row for _, row in sorted(found)[:count]]


def confused_pairs(predictions: Predictions, count: int, examples: int) -> list[Pair]:
    """The pairs (label, predicted) with the most wrong predictions, at most count, each with a few examples."""
    num_classes, order = len(predictions.class_names), most_confident(predictions, len(predictions.labels))
    codes = predictions.labels * num_classes + predictions.predicted
    pairs, counts = np.unique(codes[order], return_counts=True)
    support = np.bincount(predictions.labels, minlength=num_classes)
    return [
        Pair(
            int(pairs[i] // num_classes),
            int(pairs[i] % num_classes),
            int(counts[i]),
            float(counts[i] / support[pairs[i] // num_classes]),
            [row for row in order if codes[row] == pairs[i]][:examples],
        )
        for i in np.argsort(-counts, kind="stable")[:count]
    ]
