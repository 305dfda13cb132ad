"""The numbers of metrics.json."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from evaluation import curves, metrics
from evaluation.predictions import Predictions

Ranking = Mapping[str, Mapping[int | str, float]]


def build_report(predictions: Predictions, seed: int = 0) -> dict[str, Any]:
    """Computes everything that metrics.json holds of a list of N images and C classes.

    Args:
        predictions: Of the list, with the calibration to apply.
        seed: Of the bootstrap intervals.

    Returns:
        num_pictures, num_classes: N and C.
        absent_classes: names of the classes without labels; averages are over the others.
        accuracy, balanced_accuracy (mean recall), macro_f1: 0..1, over all images, rejected or not.
        top_k, top_k_accuracy: k is 5, or C if that is less.
        loss: mean cross-entropy in nats of the logits as trained, without the temperature.
        intervals: 95 % bootstrap interval [low, high] of each of the metrics above.
        macro, weighted, micro: precision, recall, f1, roc_auc, average_precision; the last two are of the calibrated
            probabilities and null where the labels are of one class only.
        classes: one row per class: name, support, predicted (number of images predicted as it), precision (null where
            never predicted), recall, f1, roc_auc, average_precision (null where absent).
        confusion_matrix: C rows (label) of C counts (prediction).
        confidence: see `confidence_report`.
    """
    outputs, num_classes = predictions.outputs, len(predictions.class_names)
    values = metrics.compute(outputs)
    ranking = curves.ranking_scores(predictions.probabilities, predictions.labels)
    classes = _classes(predictions, ranking)
    matrix = confusion_matrix(predictions.labels, predictions.predicted, labels=np.arange(num_classes))
    return {
        "num_pictures": len(predictions.labels),
        "num_classes": num_classes,
        "absent_classes": [row["name"] for row in classes if not row["support"]],
        "accuracy": values.pop("accuracy"),
        "top_k": min(metrics.TOP_K, num_classes),
        **values,
        "intervals": metrics.intervals(outputs, seed),
        **_averages(predictions, ranking),
        "classes": classes,
        "confusion_matrix": matrix.tolist(),
        "confidence": confidence_report(predictions),
    }


def confidence_report(predictions: Predictions) -> dict[str, Any]:
    """Describes how reliable the probabilities are and what the threshold does.

    Returns:
        temperature, threshold, then `before` and `after` the temperature: log_loss, expected_calibration_error,
        mean_confidence; coverage (share of images accepted), accuracy_of_answered (of the accepted images; null where
        none is).
    """
    report: dict[str, Any] = {"temperature": predictions.temperature, "threshold": predictions.threshold}
    for name, temperature in (("before", 1.0), ("after", predictions.temperature)):
        confidences = metrics.probabilities(predictions.logits, temperature).max(axis=1)
        report[name] = {
            "log_loss": metrics.log_loss(predictions.logits, predictions.labels, temperature),
            "expected_calibration_error": curves.expected_calibration_error(confidences, predictions.correct),
            "mean_confidence": float(confidences.mean()),
        }
    accepted = predictions.accepted
    report["coverage"] = float(accepted.mean())
    report["accuracy_of_answered"] = float(predictions.correct[accepted].mean()) if accepted.any() else None
    return report


def _classes(predictions: Predictions, ranking: Ranking) -> list[dict[str, Any]]:
    labels, predicted, names = predictions.labels, predictions.predicted, predictions.class_names
    scores = precision_recall_fscore_support(labels, predicted, labels=np.arange(len(names)), zero_division=np.nan)
    counts = np.bincount(predicted, minlength=len(names)).tolist()
    return [
        {
            "name": name,
            "support": int(support),
            "predicted": counts[index],
            "precision": _number(precision),
            "recall": _number(recall),
            "f1": _number(f1) if support else None,
            **{key: values.get(index) for key, values in ranking.items()},
        }
        for index, (name, precision, recall, f1, support) in enumerate(zip(names, *scores, strict=True))
    ]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _averages(predictions: Predictions, ranking: Ranking) -> dict[str, dict[str, float | None]]:
    labels, predicted = predictions.labels, predictions.predicted
    averages: dict[str, dict[str, float | None]] = {}
    for average in curves.AVERAGES:
        # Absent classes have no recall to average; micro counts predictions, theirs too.
        classes = np.arange(len(predictions.class_names)) if average == "micro" else np.unique(labels)
        scores = precision_recall_fscore_support(labels, predicted, labels=classes, average=average, zero_division=0)
        averages[average] = dict(zip(("precision", "recall", "f1"), map(float, scores[:3]), strict=True))
        averages[average] |= {key: values.get(average) for key, values in ranking.items()}
    return averages
