"""Confidence that means something: a temperature and a threshold for "none of these", both chosen on valid."""

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.metrics import roc_auc_score

from evaluation.metrics import log_loss, probabilities
from system.settings import Settings

# Bounds of the temperature: beyond them a network is constant or certain for any purpose.
LOWEST, HIGHEST = 0.05, 20.0


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Finds the temperature that minimises the mean cross-entropy of logits [N, C] / temperature against labels [N].

    The largest logit stays the largest, so no prediction changes. Where no temperature helps (one class), it is 1.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks" (arXiv:1706.04599), section 4.2.
    """
    # The loss is convex in 1 / temperature, and on a logarithmic scale both ends are searched alike.
    found = minimize_scalar(
        lambda scale: log_loss(logits, labels, float(np.exp(scale))),
        bounds=(np.log(LOWEST), np.log(HIGHEST)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    temperature = float(np.exp(found.x))
    return temperature if found.fun < log_loss(logits, labels) else 1.0


def choose_threshold(confidences: np.ndarray, correct: np.ndarray, reject: str, target: float) -> float | None:
    """Chooses the lowest confidence that is still answered.

    Args:
        confidences: Highest probabilities on valid, float [N].
        correct: Whether the answers are right, bool [N].
        reject: "coverage": the largest threshold that still answers `target` of the images; "precision": the
            smallest one above which `target` of the answers are right; "off": none.
        target: A share in (0, 1].

    Returns:
        The threshold, halfway to the next lower confidence so that rounding turns nobody away; None for "off", and
        where no threshold reaches the precision.
    """
    if reject == "off":
        return None
    order = np.argsort(-confidences, kind="stable")
    ranked, precision = confidences[order], np.cumsum(correct[order]) / np.arange(1, len(order) + 1)
    # Equal confidences are answered together or not at all: a cut may only stand after the last of them.
    possible = np.append(ranked[1:] < ranked[:-1], True)
    if reject == "coverage":
        enough = np.arange(1, len(order) + 1) >= target * len(order) - 1e-9
        place = int(np.argmax(possible & enough))
    else:
        reached = np.flatnonzero(possible & (precision >= target))
        if not len(reached):
            return None
        place = int(reached[-1])
    return float((ranked[place] + ranked[place + 1]) / 2) if place + 1 < len(ranked) else 0.0


def fit(logits: np.ndarray, labels: np.ndarray, settings: Settings) -> dict[str, Any]:
    """Fits temperature and threshold on the valid images.

    Args:
        logits: float [N, C].
        labels: int [N].

    Returns:
        Content of calibration.json: temperature, threshold (null: nothing is turned away), reject, reject_target,
        num_pictures, and coverage and precision reached on valid (precision null where nothing is answered).
    """
    temperature = fit_temperature(logits, labels)
    answers = probabilities(logits, temperature)
    confidences, correct = answers.max(axis=1), answers.argmax(axis=1) == labels
    threshold = choose_threshold(confidences, correct, settings.reject, settings.reject_target)
    answered = confidences >= (threshold or 0.0)
    return {
        "temperature": temperature,
        "threshold": threshold,
        "reject": settings.reject,
        "reject_target": settings.reject_target,
        "num_pictures": len(labels),
        "coverage": float(answered.mean()),
        "precision": float(correct[answered].mean()) if answered.any() else None,
    }


def foreign(known: np.ndarray, strange: np.ndarray, threshold: float | None) -> dict[str, Any]:
    """Tells how well the threshold keeps foreign images out.

    Args:
        known: Highest probabilities of the scored split, float [N].
        strange: Those of the foreign images, float [M].

    Returns:
        num_pictures: M.
        turned_away: share of the foreign images answered "none of these".
        known_turned_away: the same share of the split's own images.
        roc_auc: probability that an image of the split is answered with more confidence than a foreign one.
    """
    bar = threshold or 0.0
    own = np.concatenate([np.ones(len(known), bool), np.zeros(len(strange), bool)])
    return {
        "num_pictures": len(strange),
        "turned_away": float((strange < bar).mean()),
        "known_turned_away": float((known < bar).mean()),
        "roc_auc": float(roc_auc_score(own, np.concatenate([known, strange]))),
    }
