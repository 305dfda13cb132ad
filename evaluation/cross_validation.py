"""Cross-validation of a linear head on features: every image is predicted by a head that has not seen it."""

from collections.abc import Sequence

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from evaluation.metrics import losses
from features import linear_head

FOLDS = 5


def assign_folds(labels: np.ndarray, groups: Sequence[int], folds: int, seed: int) -> np.ndarray:
    """Divides images into folds of equal shares of every class; a group is in one fold.

    Args:
        labels: int64 [N].
        groups: A number for each image; those of one group share it.
        folds: Number of folds, at most that of groups.

    Returns:
        int64 [N]: the fold of each image, from 0.
    """
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    numbers = np.zeros(len(labels), np.int64)
    for fold, (_, members) in enumerate(splitter.split(np.zeros(len(labels)), labels, groups)):
        numbers[members] = fold
    return numbers


def possible_folds(labels: np.ndarray, groups: Sequence[int], folds: int = FOLDS) -> int:
    """Returns how many folds there can be: no more than groups of the class with the fewest; 0 where fewer than two."""
    found = np.unique(labels)
    fewest = min(len(np.unique(np.asarray(groups)[labels == label])) for label in found)
    return min(folds, fewest) if len(found) > 1 and fewest > 1 else 0


def out_of_fold(
    features: np.ndarray, labels: np.ndarray, num_classes: int, folds: np.ndarray, balanced: bool = False
) -> np.ndarray:
    """Computes the logits of every image by a head that was fitted on the other folds.

    The strength of the head's penalty for the images of a fold is that with the lowest loss over the images of the
    other folds, so that no label takes part in the choice for its own image.

    Args:
        features: float32 [N, D].
        labels: int64 [N].
        num_classes: C.
        folds: See assign_folds.
        balanced: See linear_head.fit.

    Returns:
        float32 [N, C].
    """
    strengths = linear_head.STRENGTHS
    logits = np.zeros((len(strengths), len(labels), num_classes), np.float32)
    for fold in np.unique(folds):
        own = folds == fold
        heads = linear_head.fit(features[~own], labels[~own], num_classes, balanced)
        for index, head in enumerate(heads):
            logits[index, own] = head.logits(features[own])
    found = np.stack([losses(one, labels) for one in logits])
    chosen = {fold: int(found[:, folds != fold].mean(axis=1).argmin()) for fold in np.unique(folds)}
    return logits[[chosen[fold] for fold in folds], np.arange(len(labels))]
