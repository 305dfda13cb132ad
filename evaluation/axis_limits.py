"""Axis limits of ROC and precision-recall curves: the part of the plane where they differ."""

import math
from collections.abc import Sequence

import numpy as np

# Where limits end: what counts as 1, and right edges of ROC curves.
ALMOST = 0.995
EDGES = (0.02, 0.05, 0.1, 0.2, 0.5)

# (left, right) and (low, high).
Limits = tuple[tuple[float, float], tuple[float, float]]


def roc_limits(shown: Sequence[tuple[np.ndarray, np.ndarray]]) -> Limits:
    """The part of the plane where ROC curves differ.

    It begins at the top of the lowest first step, and ends where the last curve has found nearly every image.
    """
    low = min(true[false == 0].max() for false, true in shown)
    right = max(false[np.argmax(true >= ALMOST)] for false, true in shown)
    return (0, next((edge for edge in EDGES if edge >= right), 1)), (_tenth_below(low), 1)


def precision_recall_limits(shown: Sequence[tuple[np.ndarray, np.ndarray]]) -> Limits:
    """The part of the plane where precision-recall curves differ; each (recalls, precisions)."""
    left = min(recall[precision >= ALMOST].max(initial=0) for recall, precision in shown)
    # At full recall every curve falls to the share of the class; what counts is where it begins to fall.
    low = min(min(precision[recall == 1].max(), *precision[recall < 1]) for recall, precision in shown)
    return (_tenth_below(left), 1), (_tenth_below(low), 1)


def _tenth_below(value: float) -> float:
    return min(9, max(0, math.ceil(10 * value) - 1)) / 10
