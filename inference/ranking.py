"""Ranking: from probabilities to class names."""

from collections.abc import Sequence

import numpy as np

# The prediction for an image whose highest probability is below the model's threshold.
NONE_OF_THESE = "none of these"


def rank_classes(probabilities: np.ndarray, class_names: Sequence[str], top_k: int) -> list[tuple[str, float]]:
    """Sorts classes by probability, the likeliest first, at most top_k; probabilities are float [C]."""
    order = (-probabilities).argsort(kind="stable")[:top_k]
    return [(class_names[i], float(probabilities[i])) for i in order]


def predicted_class(
    probabilities: Sequence[float] | np.ndarray, class_names: Sequence[str], threshold: float | None
) -> str:
    """Returns the likeliest class of an image, or "none of these" if its probability is below the threshold."""
    best = int(np.argmax(probabilities))
    return NONE_OF_THESE if is_rejected(float(probabilities[best]), threshold) else class_names[best]


def is_rejected(probability: float, threshold: float | None) -> bool:
    """Returns True if an image with this highest probability is none of the classes; threshold None: never."""
    return threshold is not None and probability < threshold


def columns_of_classes(class_names: Sequence[str], others: Sequence[str]) -> list[str]:
    """Names the columns of the classes in a table; a class called like one of the others gets underscores behind it."""
    taken = {*others, *class_names}
    columns = []
    for name in class_names:
        column = name
        while name in others and column in taken:
            column += "_"
        taken.add(column)
        columns.append(column)
    return columns
