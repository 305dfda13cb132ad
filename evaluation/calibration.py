"""Calibration: a temperature for the probabilities and a rejection threshold, both fitted on the valid images."""

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.metrics import roc_auc_score

from evaluation.metrics import log_loss, probabilities
from system.settings import Settings

# Bounds of the temperature: beyond them probabilities are uniform, or 0 and 1, for any practical purpose.
LOWEST, HIGHEST = 0.05, 20.0


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Finds the temperature that minimises the mean cross-entropy of logits [N, C] / temperature against labels [N].

    The largest logit stays the largest, so no prediction changes. Where no temperature helps (one class), it is 1.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks" (arXiv:1706.04599), section 4.2.
    """
    # The loss is convex in 1 / temperature, and on a logarithmic scale both ends are searched equally finely.
    found = minimize_scalar(
        lambda exponent: log_loss(logits, labels, float(np.exp(exponent))),
        bounds=(np.log(LOWEST), np.log(HIGHEST)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    temperature = float(np.exp(found.x))
    return temperature if found.fun < log_loss(logits, labels) else 1.0


def choose_threshold(confidences: np.ndarray, correct: np.ndarray, reject: str, target: float) -> float | None:
    """Chooses the confidence below which images are rejected.

    Args:
        confidences: Highest probabilities on valid, float [N].
        correct: Whether the predictions are correct, bool [N].
        reject: "coverage": the largest threshold that accepts at least `target` of the images; "precision": the
            smallest one at which `target` of the accepted images are correct; "off": none.
        target: A share in (0, 1].

    Returns:
        The threshold, halfway to the next lower confidence so that rounding rejects no image; None for "off", and
        where no threshold reaches the precision.
    """
    if reject == "off":
        return None
    order = np.argsort(-confidences, kind="stable")
    ranked, precision = confidences[order], np.cumsum(correct[order]) / np.arange(1, len(order) + 1)
    # Images of equal confidence are accepted together or not at all: a cut is possible only after the last of them.
    possible = np.append(ranked[1:] < ranked[:-1], True)
    if reject == "coverage":
        enough = np.arange(1, len(order) + 1) >= target * len(order) - 1e-9
        last = int(np.argmax(possible & enough))
    else:
        reached = np.flatnonzero(possible & (precision >= target))
        if not len(reached):
            return None
        last = int(reached[-1])
    return float((ranked[last] + ranked[last + 1]) / 2) if last + 1 < len(ranked) else 0.0


def fit(logits: np.ndarray, labels: np.ndarray, settings: Settings) -> dict[str, Any]:
    """Fits temperature and threshold on the valid images.

    Args:
        logits: float [N, C].
        labels: int [N].
        settings: Of the run: reject and reject_target.

    Returns:
        Content of calibration.json: temperature, threshold (null: no image is rejected), reject, reject_target,
        num_pictures, and coverage and precision reached on valid (precision null where every image is rejected).
    """
    temperature = fit_temperature(logits, labels)
    calibrated = probabilities(logits, temperature)
    confidences, correct = calibrated.max(axis=1), calibrated.argmax(axis=1) == labels
    threshold = choose_threshold(confidences, correct, settings.reject, settings.reject_target)
    accepted = confidences >= (threshold or 0.0)
    return {
        "temperature": temperature,
        "threshold": threshold,
        "reject": settings.reject,
        "reject_target": settings.reject_target,
        "num_pictures": len(labels),
        "coverage": float(accepted.mean()),
        "precision": float(correct[accepted].mean()) if accepted.any() else None,
    }


def rejection_report(in_distribution: np.ndarray, outside: np.ndarray, threshold: float | None) -> dict[str, Any]:
    """Describes how well the threshold rejects out-of-distribution images.

    Args:
        in_distribution: Highest probabilities of the evaluated split, float [N].
        outside: Those of the out-of-distribution images, float [M].
        threshold: Images below it are rejected; None: none is.

    Returns:
        num_pictures: M.
        turned_away: share of the out-of-distribution images that are rejected.
        known_turned_away: share of the split's images that are rejected.
        roc_auc: probability that an image of the split has a higher confidence than an out-of-distribution one.
    """
    lowest = threshold or 0.0
    truth = np.concatenate([np.ones(len(in_distribution), bool), np.zeros(len(outside), bool)])
    return {
        "num_pictures": len(outside),
        "turned_away": float((outside < lowest).mean()),
        "known_turned_away": float((in_distribution < lowest).mean()),
        "roc_auc": float(roc_auc_score(truth, np.concatenate([in_distribution, outside]))),
    }
