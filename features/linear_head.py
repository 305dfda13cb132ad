"""Linear head: a logistic regression on features, as the weight and bias of a network's last dense layer."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

# Penalties that are tried, the strongest first: of half the squared weights, beside the mean loss over the images.
STRENGTHS = (10.0, 1.0, 0.1, 0.01, 0.001, 0.0001)
# The one where there is nothing to choose by: near the best for a few images and for thousands.
MEDIUM = 0.1
# The logit of a class without an image: a probability of zero beside any other.
ABSENT = -50.0
ITERATIONS, TOLERANCE = 500, 1e-5
# Rows that are standardised at once.
CHUNK = 8192


@dataclass(frozen=True)
class LinearHead:
    """A dense layer: features [N, D] @ weight + bias are the logits [N, C].

    Attributes:
        strength: The penalty that it was fitted with.
        weight: float32 [D, C].
        bias: float32 [C].
    """

    strength: float
    weight: np.ndarray
    bias: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Computes the logits float32 [N, C] of features float32 [N, D]."""
        return features @ self.weight + self.bias


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    balanced: bool = False,
    strengths: Sequence[float] = STRENGTHS,
) -> Iterator[LinearHead]:
    """Fits a logistic regression on standardised features at each strength; the standardisation becomes part of it.

    Args:
        features: float32 [N, D].
        labels: int64 [N], of at least two classes.
        num_classes: C; a class without an image is never predicted.
        balanced: Every class counts as much as every other, however many images it has.
        strengths: Penalties; each fit starts where the one before ended.

    Yields:
        A head per strength.
    """
    mean, scale = _moments(features)
    standardised = np.empty(features.shape, np.float32)
    for start in range(0, len(features), CHUNK):
        standardised[start : start + CHUNK] = (features[start : start + CHUNK] - mean) / scale
    basis = _basis(standardised)
    if basis is not None:
        standardised = standardised @ basis.T
    model = LogisticRegression(
        max_iter=ITERATIONS, tol=TOLERANCE, class_weight="balanced" if balanced else None, warm_start=True
    )
    for strength in strengths:
        model.C = 1 / (strength * len(labels))
        with warnings.catch_warnings():
            # Features that separate the classes have no finite optimum under a weak penalty; scores choose anyway.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(standardised, labels)
        coefficients = model.coef_.astype(np.float64)
        if basis is not None:
            coefficients = coefficients @ basis
        yield _as_head(model, coefficients, mean, scale, num_classes, strength)


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each feature, float64 [D]; 1 where a feature never changes."""
    total, squares = np.zeros(features.shape[1]), np.zeros(features.shape[1])
    for start in range(0, len(features), CHUNK):
        total += features[start : start + CHUNK].sum(axis=0, dtype=np.float64)
    mean = total / len(features)
    for start in range(0, len(features), CHUNK):
        squares += ((features[start : start + CHUNK] - mean) ** 2).sum(axis=0)
    scale = np.sqrt(squares / len(features))
    return mean, np.where(scale > 1e-6 * (1 + np.abs(mean)), scale, 1.0)


def _basis(standardised: np.ndarray) -> np.ndarray | None:
    """Returns directions float32 [R, D] that span all rows [N, D], of length 1; None where there are no fewer than D.

    The weights that a penalty allows lie in the span of the images, so that few images are fitted as well, and several
    times as fast, in as many dimensions as there are images.
    """
    count, width = standardised.shape
    if count >= width:
        return None
    values, vectors = np.linalg.eigh((standardised @ standardised.T).astype(np.float64))
    kept = values > 1e-6 * max(values[-1], 1e-12)
    return ((vectors[:, kept] / np.sqrt(values[kept])).T @ standardised).astype(np.float32)


def _as_head(
    model: LogisticRegression,
    coefficients: np.ndarray,
    mean: np.ndarray,
    scale: np.ndarray,
    num_classes: int,
    strength: float,
) -> LinearHead:
    intercepts = model.intercept_.astype(np.float64)
    if len(model.classes_) == 2:
        # One row for the second class against the first: half for, half against.
        coefficients, intercepts = (np.concatenate([-part, part]) / 2 for part in (coefficients, intercepts))
    weight, bias = np.zeros((len(mean), num_classes)), np.full(num_classes, ABSENT)
    weight[:, model.classes_] = (coefficients / scale).T
    bias[model.classes_] = intercepts - (coefficients / scale) @ mean
    return LinearHead(strength, weight.astype(np.float32), bias.astype(np.float32))
