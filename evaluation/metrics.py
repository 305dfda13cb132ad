"""Measures: pure functions from logits and labels."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from scipy.special import log_softmax, softmax
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    precision_recall_curve,
    precision_recall_fscore_support,
    roc_auc_score,
    roc_curve,
)

# A top-k accuracy says something only while k is well below the number of classes.
TOP_K = 5
# Equally wide bins of confidence. Source: Guo et al. 2017 (arXiv:1706.04599), section 5.
BINS = 15
RESAMPLES = 1000
# Points of false positive rate at which the ROC curves of the classes are averaged.
GRID = np.linspace(0, 1, 501)

Curves = dict[int | str, tuple[np.ndarray, np.ndarray]]


def probabilities(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Softmax float64 [N, C] of logits [N, C] over a temperature above 0."""
    return softmax(logits.astype(np.float64) / temperature, axis=1)


def losses(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Cross-entropy in nats, float64 [N], of logits [N, C] over a temperature against labels int [N]."""
    scaled = log_softmax(logits.astype(np.float64) / temperature, axis=1)
    return -scaled[np.arange(len(labels)), labels]


def log_loss(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Mean cross-entropy in nats of logits [N, C] over a temperature against labels int [N]."""
    return float(losses(logits, labels, temperature).mean())


def among_top(logits: np.ndarray, labels: np.ndarray, top: int) -> np.ndarray:
    """Tells, bool [N], whose label is among the `top` largest of logits [N, C]; the first of equal ones counts."""
    best = np.argsort(-logits, axis=1, kind="stable")[:, : min(top, logits.shape[1])]
    return (best == labels[:, None]).any(axis=1)


def accuracy(logits: np.ndarray, labels: np.ndarray, top: int = 1) -> float:
    """Share of rows whose label is among the `top` largest of logits [N, C]; top is clamped to C."""
    return float(among_top(logits, labels, top).mean())


def macro_scores(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> tuple[float, float]:
    """Balanced accuracy and macro F1, each the mean over the classes that the labels hold, of int [N] and int [N]."""
    right = np.bincount(labels[labels == predictions], minlength=num_classes)
    support = np.bincount(labels, minlength=num_classes)
    predicted = np.bincount(predictions, minlength=num_classes)
    held = support > 0
    f1 = 2 * right[held] / (support + predicted)[held]
    return float((right[held] / support[held]).mean()), float(f1.mean())


def reliability(confidences: np.ndarray, correct: np.ndarray, bins: int = BINS) -> list[dict[str, float]]:
    """Sorts answers by confidence into equally wide bins over 0..1.

    Args:
        confidences: Highest probabilities, float [N].
        correct: Whether the answers are right, bool [N].

    Returns:
        The bins that hold answers: low and high edge, count, mean confidence, accuracy.
    """
    places = np.minimum((confidences * bins).astype(int), bins - 1)
    return [
        {
            "low": place / bins,
            "high": (place + 1) / bins,
            "count": int((inside := places == place).sum()),
            "confidence": float(confidences[inside].mean()),
            "accuracy": float(correct[inside].mean()),
        }
        for place in np.unique(places).tolist()
    ]


def expected_calibration_error(confidences: np.ndarray, correct: np.ndarray, bins: int = BINS) -> float:
    """Mean gap between confidence and accuracy over the bins of `reliability`, weighted by their counts, 0..1.

    Source: Naeini et al. 2015, "Obtaining Well Calibrated Probabilities Using Bayesian Binning"; Guo et al. 2017.
    """
    rows = reliability(confidences, correct, bins)
    return sum(row["count"] * abs(row["confidence"] - row["accuracy"]) for row in rows) / len(confidences)


def one_against_rest(answers: np.ndarray, labels: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yields class, truth bool [N] and score float [N] for each class that some, but not all, labels [N] are of."""
    for index in range(answers.shape[1]):
        truth = labels == index
        if 0 < truth.sum() < len(labels):
            yield index, truth, answers[:, index]


def _flat(answers: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every (image, class) pair as one decision, for micro averages."""
    return (labels[:, None] == np.arange(answers.shape[1])).ravel(), answers.ravel()


def ranking_scores(answers: np.ndarray, labels: np.ndarray) -> dict[str, dict[int | str, float]]:
    """Areas under the one-against-rest ROC curves and average precisions of probabilities [N, C].

    Returns:
        `roc_auc` and `average_precision`, each by class index, with "macro" (mean of the classes), "weighted" (by
        support) and "micro" (all pairs of image and class together); empty where the labels hold one class only.
    """
    sides = list(one_against_rest(answers, labels))
    scores: dict[str, dict[int | str, float]] = {}
    for name, measure in (("roc_auc", roc_auc_score), ("average_precision", average_precision_score)):
        found: dict[int | str, float] = {index: float(measure(truth, score)) for index, truth, score in sides}
        if found:
            by_class, support = list(found.values()), [truth.sum() for _, truth, _ in sides]
            found |= {"macro": float(np.mean(by_class)), "weighted": float(np.average(by_class, weights=support))}
            found["micro"] = float(measure(*_flat(answers, labels)))
        scores[name] = found
    return scores


def roc_points(answers: np.ndarray, labels: np.ndarray) -> Curves:
    """ROC curves of probabilities [N, C]: by class index, "micro" and "macro", each (false, true positive rates)."""
    curves: Curves = {i: roc_curve(truth, score)[:2] for i, truth, score in one_against_rest(answers, labels)}
    if curves:
        mean = np.mean([np.interp(GRID, *curve) for curve in curves.values()], axis=0)
        # Every curve begins at the origin; interpolation would take the top of a vertical first step.
        curves["macro"] = np.concatenate([[0], GRID]), np.concatenate([[0], mean])
        curves["micro"] = roc_curve(*_flat(answers, labels))[:2]
    return curves


def precision_recall_points(answers: np.ndarray, labels: np.ndarray) -> Curves:
    """Precision-recall curves of probabilities [N, C]: by class index and "micro", each (recalls, precisions)."""

    def curve(truth: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        precision, recall, _ = precision_recall_curve(truth, score, drop_intermediate=True)
        return recall, precision

    curves: Curves = {i: curve(truth, score) for i, truth, score in one_against_rest(answers, labels)}
    if curves:
        curves["micro"] = curve(*_flat(answers, labels))
    return curves


def coverage_curve(confidences: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy among the answered images by their share, when the least confident are turned away first.

    Returns:
        Coverages in (0, 1] and accuracies, both float [N], N the number of images.
    """
    order = np.argsort(-confidences, kind="stable")
    counts = np.arange(1, len(order) + 1)
    return counts / len(order), np.cumsum(correct[order]) / counts


def bootstrap(measure: Callable[[np.ndarray], Sequence[float]], count: int, seed: int) -> np.ndarray:
    """95 % percentile intervals of measures over images drawn anew with replacement.

    Args:
        measure: Gives M numbers for the images of indices int [count].
        count: Number of images.
        seed: The same seed gives the same intervals.

    Returns:
        float64 [M, 2]: low and high end.

    Source: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13.
    """
    generator = np.random.default_rng(seed)
    drawn = [measure(generator.integers(0, count, count)) for _ in range(RESAMPLES)]
    return np.percentile(np.asarray(drawn, np.float64), [2.5, 97.5], axis=0).T


def intervals(logits: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, list[float]]:
    """95 % intervals of the headline numbers by name; see `bootstrap`."""
    predictions, num_classes = logits.argmax(axis=1), logits.shape[1]
    by_image = {
        "accuracy": predictions == labels,
        "top_k_accuracy": among_top(logits, labels, TOP_K),
        "loss": losses(logits, labels),
    }
    columns = np.stack(list(by_image.values())).astype(np.float64)

    def measure(rows: np.ndarray) -> list[float]:
        return [*columns[:, rows].mean(axis=1), *macro_scores(labels[rows], predictions[rows], num_classes)]

    names = (*by_image, "balanced_accuracy", "macro_f1")
    return dict(zip(names, bootstrap(measure, len(labels), seed).tolist(), strict=True))


def report(
    logits: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    temperature: float = 1.0,
    threshold: float | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Computes the measures of metrics.json.

    Args:
        logits: float [N, C], before the temperature.
        labels: int [N], 0..C-1.
        class_names: C names.
        temperature: Logits are divided by it before the softmax.
        threshold: Images whose highest probability is below it are answered "none of these"; null: none is.
        seed: Of the intervals.

    Returns:
        num_pictures, num_classes: N and C.
        absent_classes: names of the classes that no label is of; averages are over the others.
        accuracy, balanced_accuracy (mean recall), macro_f1: 0..1, over all images, whatever their confidence.
        top_k, top_k_accuracy: k is 5, or C if that is less.
        loss: mean cross-entropy in nats of the logits as trained, without the temperature.
        intervals: 95 % bootstrap interval [low, high] of accuracy, top_k_accuracy, loss, balanced_accuracy, macro_f1.
        macro, weighted, micro: precision, recall, f1, roc_auc, average_precision; the last two are of the calibrated
            probabilities and null where the labels are of one class only.
        classes: one sample a class: name, support, predicted (number of images answered so), precision (null where
            never predicted), recall, f1, roc_auc, average_precision (null where absent).
        confusion_matrix: C rows (label) of C counts (prediction).
        confidence: temperature, threshold, coverage (share answered), accuracy_of_answered (null where none is), and
            before and after the temperature: log_loss, expected_calibration_error, mean_confidence.
    """
    predictions, answers = logits.argmax(axis=1), probabilities(logits, temperature)
    balanced_accuracy, macro_f1 = macro_scores(labels, predictions, len(class_names))
    ranking = ranking_scores(answers, labels)
    classes = _classes(labels, predictions, class_names, ranking)
    return {
        "num_pictures": len(labels),
        "num_classes": len(class_names),
        "absent_classes": [row["name"] for row in classes if not row["support"]],
        "accuracy": accuracy(logits, labels),
        "top_k": min(TOP_K, len(class_names)),
        "top_k_accuracy": accuracy(logits, labels, top=TOP_K),
        "balanced_accuracy": balanced_accuracy,
        "macro_f1": macro_f1,
        "loss": log_loss(logits, labels),
        "intervals": intervals(logits, labels, seed),
        **_averages(labels, predictions, len(class_names), ranking),
        "classes": classes,
        "confusion_matrix": confusion_matrix(labels, predictions, labels=np.arange(len(class_names))).tolist(),
        "confidence": confidence(logits, labels, temperature, threshold),
    }


def _classes(
    labels: np.ndarray, predictions: np.ndarray, class_names: Sequence[str], ranking: dict[str, dict]
) -> list[dict[str, Any]]:
    indices = np.arange(len(class_names))
    scores = precision_recall_fscore_support(labels, predictions, labels=indices, zero_division=np.nan)
    predicted = np.bincount(predictions, minlength=len(class_names)).tolist()
    return [
        {
            "name": name,
            "support": int(support),
            "predicted": predicted[index],
            "precision": _number(precision),
            "recall": _number(recall),
            "f1": _number(f1) if support else None,
            **{measure: values.get(index) for measure, values in ranking.items()},
        }
        for index, (name, precision, recall, f1, support) in enumerate(zip(class_names, *scores, strict=True))
    ]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _averages(
    labels: np.ndarray, predictions: np.ndarray, num_classes: int, ranking: dict[str, dict]
) -> dict[str, dict[str, float | None]]:
    averages = {}
    for average in ("macro", "weighted", "micro"):
        # Absent classes have no recall to average; micro counts answers, theirs too.
        held = np.arange(num_classes) if average == "micro" else np.unique(labels)
        scores = precision_recall_fscore_support(labels, predictions, labels=held, average=average, zero_division=0)
        averages[average] = dict(zip(("precision", "recall", "f1"), map(float, scores[:3]), strict=True))
        averages[average] |= {measure: values.get(average) for measure, values in ranking.items()}
    return averages


def confidence(logits: np.ndarray, labels: np.ndarray, temperature: float, threshold: float | None) -> dict[str, Any]:
    """How far probabilities can be believed, before and after the temperature, and what the threshold does."""
    correct = logits.argmax(axis=1) == labels
    told: dict[str, Any] = {"temperature": temperature, "threshold": threshold}
    for name, used in (("before", 1.0), ("after", temperature)):
        highest = probabilities(logits, used).max(axis=1)
        told[name] = {
            "log_loss": log_loss(logits, labels, used),
            "expected_calibration_error": expected_calibration_error(highest, correct),
            "mean_confidence": float(highest.mean()),
        }
    answered = highest >= (threshold or 0.0)
    told["coverage"] = float(answered.mean())
    told["accuracy_of_answered"] = float(correct[answered].mean()) if answered.any() else None
    return told
