"""Curves: ROC, precision-recall, reliability and coverage, and the areas under them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

# Equally wide bins of confidence. Source: Guo et al. 2017 (arXiv:1706.04599), section 5.
BINS = 15
# False positive rates at which the ROC curves of the classes are averaged.
GRID = np.linspace(0, 1, 501)

# By class index, or "micro" and "macro".
Curves = dict[int | str, tuple[np.ndarray, np.ndarray]]
AVERAGES = ("macro", "weighted", "micro")


def reliability(confidences: np.ndarray, correct: np.ndarray, bins: int = BINS) -> list[dict[str, Any]]:
    """Groups predictions by confidence into equally wide bins over 0..1.

    Args:
        confidences: Highest probabilities, float [N].
        correct: Whether the predictions are correct, bool [N].
        bins: Number of bins.

    Returns:
        The bins that are not empty: low and high edge, count, mean confidence, accuracy, and its 95 %
        interval (low, high).

    Source: Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference", for the interval.
    """
    indices = np.minimum((confidences * bins).astype(int), bins - 1)
    return [
        {
            "low": index / bins,
            "high": (index + 1) / bins,
            "count": int((inside := indices == index).sum()),
            "confidence": float(confidences[inside].mean()),
            "accuracy": float(correct[inside].mean()),
            "interval": binomtest(int(correct[inside].sum()), int(inside.sum())).proportion_ci(0.95, "wilson")[:2],
        }
        for index in np.unique(indices).tolist()
    ]


def expected_calibration_error(confidences: np.ndarray, correct: np.ndarray, bins: int = BINS) -> float:
    """Mean gap between confidence and accuracy over the bins of `reliability`, weighted by their counts, 0..1.

    Source: Naeini et al. 2015, "Obtaining Well Calibrated Probabilities Using Bayesian Binning"; Guo et al. 2017.
    """
    rows = reliability(confidences, correct, bins)
    return sum(row["count"] * abs(row["confidence"] - row["accuracy"]) for row in rows) / len(confidences)


def coverage_curve(confidences: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy of the accepted images by coverage, when the least confident images are rejected first.

    Returns:
        Coverages in (0, 1] and accuracies, both float [N].
    """
    order = np.argsort(-confidences, kind="stable")
    counts = np.arange(1, len(order) + 1)
    return counts / len(order), np.cumsum(correct[order]) / counts


def ranking_scores(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, dict[int | str, float]]:
    """Areas under the one-vs-rest ROC curves and average precisions of probabilities [N, C].

    Returns:
        `roc_auc` and `average_precision`, each by class index, with "macro" (mean over classes), "weighted" (by
        support) and "micro" (all pairs of image and class pooled); empty where the labels are of one class only.
    """
    columns = list(_one_vs_rest(probabilities, labels))
    scores: dict[str, dict[int | str, float]] = {}
    for name, function in (("roc_auc", roc_auc_score), ("average_precision", average_precision_score)):
        found: dict[int | str, float] = {index: float(function(truth, score)) for index, truth, score in columns}
        if found:
            by_class, support = list(found.values()), [truth.sum() for _, truth, _ in columns]
            found |= {"macro": float(np.mean(by_class)), "weighted": float(np.average(by_class, weights=support))}
            found["micro"] = float(function(*_pooled(probabilities, labels)))
        scores[name] = found
    return scores


def roc_curves(probabilities: np.ndarray, labels: np.ndarray) -> Curves:
    """ROC curves of probabilities [N, C]: by class index, "micro" and "macro", each (false, true positive rates)."""
    curves: Curves = {i: roc_curve(truth, score)[:2] for i, truth, score in _one_vs_rest(probabilities, labels)}
    if curves:
        mean = np.mean([np.interp(GRID, *curve) for curve in curves.values()], axis=0)
        # Every curve begins at the origin; interpolation would take the top of a vertical first step.
        curves["macro"] = np.concatenate([[0], GRID]), np.concatenate([[0], mean])
        curves["micro"] = roc_curve(*_pooled(probabilities, labels))[:2]
    return curves


def precision_recall_curves(probabilities: np.ndarray, labels: np.ndarray) -> Curves:
    """Precision-recall curves of probabilities [N, C]: by class index and "micro", each (recalls, precisions)."""
    curves: Curves = {i: _precision_recall(truth, score) for i, truth, score in _one_vs_rest(probabilities, labels)}
    if curves:
        curves["micro"] = _precision_recall(*_pooled(probabilities, labels))
    return curves


def _precision_recall(truth: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    precision, recall, _ = precision_recall_curve(truth, score, drop_intermediate=True)
    return recall, precision


def _one_vs_rest(probabilities: np.ndarray, labels: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yields index, truth bool [N] and score float [N] of each class that some, but not all, labels [N] are of."""
    for index in range(probabilities.shape[1]):
        truth = labels == index
        if 0 < truth.sum() < len(labels):
            yield index, truth, probabilities[:, index]


def _pooled(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every (image, class) pair as one binary decision, for micro averages."""
    return (labels[:, None] == np.arange(probabilities.shape[1])).ravel(), probabilities.ravel()
