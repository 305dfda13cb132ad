"""Measures: pure functions from logits and labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import log_softmax
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support


def log_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross-entropy in nats of logits [N, C] against labels int [N]."""
    return float(-log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels].mean())


def accuracy(logits: np.ndarray, labels: np.ndarray, top: int = 1) -> float:
    """Share of rows whose label is among the `top` largest of logits [N, C]; top is clamped to C."""
    best = np.argsort(-logits, axis=1, kind="stable")[:, : min(top, logits.shape[1])]
    return float((best == labels[:, None]).any(axis=1).mean())


def report(logits: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """Computes the measures of metrics.json.

    Args:
        logits: float [N, C].
        labels: int [N], 0..C-1.
        class_names: C names.

    Returns:
        num_pictures, accuracy, top_5_accuracy (top_C below five classes), loss (nats), macro_f1 (over classes that
        the labels hold), classes (name, precision, recall, f1, support; null where a class is absent), and
        confusion_matrix (rows: label, columns: prediction).
    """
    predictions, indices = logits.argmax(axis=1), np.arange(len(class_names))
    scores = precision_recall_fscore_support(labels, predictions, labels=indices, zero_division=np.nan)
    classes = [
        {"name": name, "precision": _number(p), "recall": _number(r), "f1": _number(f) if s else None, "support": int(s)}
        for name, p, r, f, s in zip(class_names, *scores, strict=True)
    ]
    return {
        "num_pictures": len(labels),
        "accuracy": accuracy(logits, labels),
        "top_5_accuracy": accuracy(logits, labels, top=5),
        "loss": log_loss(logits, labels),
        "macro_f1": float(np.mean([row["f1"] for row in classes if row["f1"] is not None])),
        "classes": classes,
        "confusion_matrix": confusion_matrix(labels, predictions, labels=indices).tolist(),
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
