"""Linear head: a logistic regression on features, as the weight and bias of a network's last dense layer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

# Penalties that are tried, the strongest first: of half the squared weights, beside the mean loss over the images.
STRENGTHS = (10.0, 1.0, 0.1, 0.01, 0.001, 0.0001)
# The logit of a class without an image: a probability of zero beside any other.
ABSENT = -50.0
# Where a fit ends: the largest gradient of a weight, and the number of iterations. Weak penalties reach neither the
# optimum nor a better accuracy with more.
TOLERANCE, ITERATIONS = 1e-5, 60
# Rows that are standardised at once.
CHUNK = 8192


def medium(count: int) -> float:
    """The strength to take for so many images where there is nothing to choose by.

    The best of STRENGTHS is 0.1 to 0.01 for 320 photos of 2 classes and 0.01 for 45,000 of 10 (MobileNetV2).
    """
    return 0.1 if count < 2000 else 0.01


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

    scikit-learn's own takes six times as long for tens of thousands of images, because it multiplies matrices in an
    order for which BLAS is slow, and needs a copy of memory-mapped features in memory.

    Args:
        features: float32 [N, D], in memory or memory-mapped.
        labels: int64 [N].
        num_classes: C; a class without an image is never predicted.
        balanced: Every class counts as much as every other, however many images it has.
        strengths: Penalties; each fit starts where the one before ended.

    Yields:
        A head per strength.
    """
    problem = _Problem(features, labels, balanced)
    weights = np.zeros(problem.size)
    for strength in strengths:
        found = minimize(
            problem, weights, (strength,), "L-BFGS-B", jac=True, options={"gtol": TOLERANCE, "maxiter": ITERATIONS}
        )
        weights = found.x
        yield problem.as_head(weights, num_classes, strength)


class _Problem:
    """The loss and its gradient, of weights float64 [(D + 1) * C], the biases last.

    Attributes:
        size: Number of weights.
    """

    def __init__(self, features: np.ndarray, labels: np.ndarray, balanced: bool):
        self.features = features
        self.mean, self.scale = _moments(features)
        # What is memory-mapped is standardised anew in each iteration.
        is_mapped = isinstance(features, np.memmap)
        self.standardised = None if is_mapped else np.concatenate(list(self._chunks()))
        self.basis = None if self.standardised is None else _basis(self.standardised)
        if self.basis is not None:
            self.standardised = self.standardised @ self.basis.T
        self.classes, self.labels = np.unique(labels, return_inverse=True)
        counts = np.bincount(self.labels)
        shares = (len(labels) / (len(counts) * counts))[self.labels] if balanced else np.ones(len(labels))
        self.shares = (shares / len(labels)).astype(np.float32)
        self.width = features.shape[1] if self.basis is None else len(self.basis)
        self.size = (self.width + 1) * len(self.classes)

    def _chunks(self) -> Iterator[np.ndarray]:
        mean, scale = self.mean.astype(np.float32), self.scale.astype(np.float32)
        for start in range(0, len(self.features), CHUNK):
            yield (self.features[start : start + CHUNK] - mean) / scale

    def _rows(self) -> Iterator[np.ndarray]:
        yield from self._chunks() if self.standardised is None else [self.standardised]

    def __call__(self, weights: np.ndarray, strength: float) -> tuple[float, np.ndarray]:
        """Mean loss with penalty, and its gradient."""
        matrix = weights.reshape(self.width + 1, -1)
        weight, bias = matrix[:-1].astype(np.float32), matrix[-1].astype(np.float32)
        loss, gradient, start = 0.5 * strength * float((matrix[:-1] ** 2).sum()), np.zeros_like(matrix), 0
        gradient[:-1] = strength * matrix[:-1]
        for rows in self._rows():
            logits, labels = rows @ weight + bias, self.labels[start : start + len(rows)]
            shares, own = self.shares[start : start + len(rows)], np.arange(len(rows))
            logits -= logits.max(axis=1, keepdims=True)
            exponentials = np.exp(logits)
            sums = exponentials.sum(axis=1)
            loss += float((shares * (np.log(sums) - logits[own, labels])).sum(dtype=np.float64))
            errors = exponentials / sums[:, None]
            errors[own, labels] -= 1
            errors *= shares[:, None]
            # In this order, for BLAS is several times slower where it is turned round.
            gradient[:-1] += rows.T @ errors
            gradient[-1] += errors.sum(axis=0)
            start += len(rows)
        return loss, gradient.ravel()

    def as_head(self, weights: np.ndarray, num_classes: int, strength: float) -> LinearHead:
        """Folds basis and standardisation into a dense layer of all classes."""
        matrix = weights.reshape(self.width + 1, -1)
        slopes = matrix[:-1] if self.basis is None else self.basis.T.astype(np.float64) @ matrix[:-1]
        slopes = slopes / self.scale[:, None]
        weight, bias = np.zeros((len(self.mean), num_classes)), np.full(num_classes, ABSENT)
        weight[:, self.classes] = slopes
        bias[self.classes] = matrix[-1] - self.mean @ slopes
        return LinearHead(strength, weight.astype(np.float32), bias.astype(np.float32))


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
    if not kept.any():
        return None
    return ((vectors[:, kept] / np.sqrt(values[kept])).T @ standardised).astype(np.float32)
