"""What accuracy to expect: cross-validation over all images but those of test, and how it grows with their number."""

from collections.abc import Callable
from typing import Any

import numpy as np

from evaluation import metrics
from evaluation.cross_validation import assign_folds, out_of_fold, possible_folds
from evaluation.metrics import METRICS, Outputs
from exploration.images import Images
from features import linear_head
from features.linear_head import LinearHead
from system.errors import UserError

# Images a class of the curve, as far as there are so many; up to MANY they are drawn so many times from each fold.
SIZES, MANY, DRAWS, FEW_FOLDS_ABOVE = (5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000), 20, 3, 500


def divide(images: Images, seed: int) -> np.ndarray:
    """Assigns the images that are not in test to folds, int64; -1 for those of test.

    Raises:
        UserError: There is one class, or a class with too few images to be in two folds.
    """
    labels, groups = images.labels[images.known], images.groups[images.known]
    count = possible_folds(labels, groups)
    if not count:
        names, counts = np.unique(labels, return_counts=True)
        if len(names) < 2:
            raise UserError("explore.py: all images are of one class; a classifier needs two or more")
        fewest = images.class_names[names[counts.argmin()]]
        raise UserError(
            f"explore.py: a class (perhaps {fewest}) has fewer than two images, or groups, outside test; add some, or "
            "leave the class out"
        )
    folds = np.full(len(images.labels), -1)
    folds[images.known] = assign_folds(labels, groups, count, seed)
    return folds


def cross_validate(images: Images, folds: np.ndarray) -> np.ndarray:
    """Computes logits float32 [N, C] of every image by a head that has seen neither it nor its group.

    Images of test are predicted by a head that was fitted on all others.
    """
    known, classes = images.known, len(images.class_names)
    logits = np.zeros((len(known), classes), np.float32)
    logits[known] = out_of_fold(images.features[known], images.labels[known], classes, folds[known])
    if not known.all():
        logits[~known] = fit_medium(images, known).logits(images.features[~known])
    return logits


def fit_medium(images: Images, rows: np.ndarray) -> LinearHead:
    """Fits a head on some of the images, with a medium penalty."""
    features, labels = images.features[rows], images.labels[rows]
    strength = linear_head.medium(len(labels))
    return next(linear_head.fit(features, labels, len(images.class_names), strengths=[strength]))


def scores(images: Images, logits: np.ndarray, seed: int) -> dict[str, Any]:
    """Scores of the images that are not in test, with 95 % intervals; resampled by groups.

    Returns:
        By metric: value, low, high. Besides classes: name, images, recall (None without images).
    """
    labels, predicted = images.labels[images.known], logits[images.known].argmax(axis=1)
    outputs = Outputs(logits[images.known], labels)
    names = [name for name, one in METRICS.items() if one.per_image] + ["balanced_accuracy"]
    statistic = _by_group(images.groups[images.known], lambda rows: _values(outputs, rows, names))
    count = len(np.unique(images.groups[images.known]))
    intervals = metrics.bootstrap(statistic, count, seed)
    values = _values(outputs, np.arange(len(labels)), names)
    found: dict[str, Any] = {
        name: {"value": value, "low": low, "high": high}
        for name, value, (low, high) in zip(names, values, intervals.tolist(), strict=True)
    }
    found["classes"] = []
    for index, name in enumerate(images.class_names):
        own = labels == index
        recall = float((predicted[own] == index).mean()) if own.any() else None
        found["classes"].append({"name": name, "images": int(own.sum()), "recall": recall})
    return found


def _values(outputs: Outputs, rows: np.ndarray, names: list[str]) -> list[float]:
    resampled = outputs.resample(rows)
    return [float(np.mean(METRICS[name].function(resampled))) for name in names]


def _by_group(
    groups: np.ndarray, statistic: Callable[[np.ndarray], list[float]]
) -> Callable[[np.ndarray], list[float]]:
    """Makes a statistic of images one of groups: images of one group are no independent evidence."""
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    return lambda drawn: statistic(np.concatenate([members[index] for index in drawn]))


def learning_curve(images: Images, folds: np.ndarray, seed: int) -> list[dict[str, float]]:
    """Accuracy by number of training images a class, over the same folds.

    Returns:
        By growing number: images_per_class, accuracy, and the standard deviation over folds and draws.
    """
    generator = np.random.default_rng(seed)
    numbers = [fold for fold in np.unique(folds) if fold >= 0]
    most = int(np.bincount(images.labels[images.known]).max() * (1 - 1 / len(numbers)))
    sizes = [size for size in SIZES if size < most] + [most]
    curve = []
    for size in sizes:
        draws = DRAWS if size <= MANY else 1
        # Thousands of images say the same in each fold.
        tried = numbers if size <= FEW_FOLDS_ABOVE else numbers[:2]
        found = [_accuracy(images, folds, fold, size, generator) for fold in tried for _ in range(draws)]
        curve.append({"images_per_class": size, "accuracy": float(np.mean(found)), "deviation": float(np.std(found))})
    return curve


def _accuracy(images: Images, folds: np.ndarray, fold: int, size: int, generator: np.random.Generator) -> float:
    """Accuracy on a fold of a head that was fitted on at most `size` images of each class of the other folds."""
    others = (folds >= 0) & (folds != fold)
    drawn = []
    for label in np.unique(images.labels[others]):
        members = np.flatnonzero(others & (images.labels == label))
        drawn.append(generator.permutation(members)[:size])
    rows, own = np.concatenate(drawn), folds == fold
    predicted = fit_medium(images, rows).logits(images.features[own]).argmax(axis=1)
    return float((predicted == images.labels[own]).mean())
