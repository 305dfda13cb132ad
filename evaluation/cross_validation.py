"""Cross-validation of a linear head on features: every image is predicted by a head that has not seen it."""

from collections.abc import Sequence

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from evaluation.metrics import losses
from features import linear_head

FOLDS = 5
# With more images the strength is chosen by two folds alone: each has thousands of images to choose by.
MANY = 5000


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
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    folds: np.ndarray,
    balanced: bool = False,
    strengths: Sequence[float] = linear_head.STRENGTHS,
) -> np.ndarray:
    """Computes the logits of every image by a head that was fitted on the other folds.

    The strength of the head's penalty for the images of a fold is that with the lowest loss over the images of other
    folds, so that no label takes part in the choice for its own image.

    Args:
        features: float32 [N, D].
        labels: int64 [N].
        num_classes: C.
        folds: See assign_folds.
        balanced: See linear_head.fit.
        strengths: Those that are tried.

    Returns:
        float32 [N, C].
    """
    numbers = np.unique(folds)
    choosing = numbers if len(labels) <= MANY else numbers[:2]
    tried = {fold: _fit(features, labels, num_classes, folds == fold, balanced, strengths) for fold in choosing}
    found = {fold: [losses(one, labels[folds == fold]) for one in logits] for fold, logits in tried.items()}
    result = np.zeros((len(labels), num_classes), np.float32)
    for fold in numbers:
        others = [np.array(rows) for other, rows in found.items() if other != fold]
        best = int(np.concatenate(others, axis=1).mean(axis=1).argmin())
        if fold in tried:
            result[folds == fold] = tried[fold][best]
        else:
            result[folds == fold] = _fit(features, labels, num_classes, folds == fold, balanced, [strengths[best]])[0]
    return result


def _fit(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    own: np.ndarray,
    balanced: bool,
    strengths: Sequence[float],
) -> list[np.ndarray]:
    """Logits of the images of a fold (`own`, bool [N]) at each strength, by heads fitted on all others."""
    heads = linear_head.fit(features[~own], labels[~own], num_classes, balanced, strengths)
    return [head.logits(features[own]) for head in heads]
