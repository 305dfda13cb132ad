"""Metrics: one registered function each, with their bootstrap intervals and the headline rows of a report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from scipy.special import log_softmax, softmax

from system.errors import UserError
from system.language import translate

# A top-k accuracy is informative only while k is well below the number of classes.
TOP_K = 5
RESAMPLES = 1000


def probabilities(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Softmax of logits [N, C] divided by a temperature above 0, float64 [N, C]."""
    return softmax(logits.astype(np.float64) / temperature, axis=1)


def losses(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Cross-entropy in nats, float64 [N], of logits [N, C] divided by a temperature above 0 against labels int [N]."""
    scaled = log_softmax(logits.astype(np.float64) / temperature, axis=1)
    return -scaled[np.arange(len(labels)), labels]


def log_loss(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Mean cross-entropy in nats; see `losses`."""
    return float(losses(logits, labels, temperature).mean())


def in_top_k(logits: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Whether each label is among the k largest of its logits [N, C], bool [N]; of equal logits the first count."""
    top = np.argsort(-logits, axis=1, kind="stable")[:, : min(k, logits.shape[1])]
    return (top == labels[:, None]).any(axis=1)


class Outputs:
    """Logits of N images with their labels, and what metrics derive from them, computed once.

    Attributes:
        logits: float [N, C], without a temperature.
        labels: int [N], 0..C-1.
    """

    def __init__(self, logits: np.ndarray, labels: np.ndarray):
        self._logits, self._labels = logits, labels

    @property
    def logits(self) -> np.ndarray:
        """Logits, float [N, C]."""
        return self._logits

    @property
    def labels(self) -> np.ndarray:
        """Labels, int [N]."""
        return self._labels

    @cached_property
    def predicted(self) -> np.ndarray:
        """Top-1 class indices, int64 [N]."""
        return self.logits.argmax(axis=1)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Softmax of the logits, float64 [N, C]."""
        return probabilities(self.logits)

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return self.logits.shape[1]

    @cached_property
    def class_counts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Per class, int64 [C] each: correct predictions, labels (support), predictions."""
        groups = (self.labels[self.labels == self.predicted], self.labels, self.predicted)
        correct, support, predicted = (np.bincount(group, minlength=self.num_classes) for group in groups)
        return correct, support, predicted

    def resample(self, rows: np.ndarray) -> "Outputs":
        """The images at int [M] rows, which may repeat. Arrays [M, C] are copied only when a metric reads them."""
        return _Resample(self, rows)


class _Resample(Outputs):
    def __init__(self, whole: Outputs, rows: np.ndarray):
        self._whole, self._rows = whole, rows

    @cached_property
    def logits(self) -> np.ndarray:
        return self._whole.logits[self._rows]

    @cached_property
    def labels(self) -> np.ndarray:
        return self._whole.labels[self._rows]

    @cached_property
    def predicted(self) -> np.ndarray:
        return self._whole.predicted[self._rows]

    @cached_property
    def probabilities(self) -> np.ndarray:
        return self._whole.probabilities[self._rows]

    @property
    def num_classes(self) -> int:
        return self._whole.num_classes


Function = TypeVar("Function", bound=Callable[[Outputs], Any])


@dataclass(frozen=True)
class Metric:
    """A registered metric.

    Attributes:
        name: Key in metrics.json and comparison.json.
        label: Name in tables; `{k}` is replaced by the k of top-k.
        function: Takes Outputs; returns the metric, or with per_image one value per image, [N], whose mean it is.
        per_image: See function. Such metrics are resampled by their values, and paired differences are taken by image.
        percent: Whether the report page shows a percentage instead of three decimals.
        higher_is_better: Whether larger values are better.
    """

    name: str
    label: str
    function: Callable[[Outputs], Any]
    per_image: bool = False
    percent: bool = False
    higher_is_better: bool = True

    def __call__(self, outputs: Outputs) -> float:
        """Computes the metric."""
        value = self.function(outputs)
        return float(value.mean() if self.per_image else value)

    def title(self, top_k: int) -> str:
        """Label in the chosen language, with the k of top-k filled in."""
        return translate(self.label, k=top_k)


METRICS: dict[str, Metric] = {}


def metric(name: str, label: str, **options: bool) -> Callable[[Function], Function]:
    """Registers a function under a name: see Metric for the options.

    A registered metric appears in metrics.json with its bootstrap interval, on the terminal, in report.html, in
    comparisons and in MODEL_CARD.md, in the order of registration.
    """

    def register(function: Function) -> Function:
        METRICS[name] = Metric(name, label, function, **options)
        return function

    return register


@metric("accuracy", "accuracy", per_image=True, percent=True)
def _accuracy(outputs: Outputs) -> np.ndarray:
    return outputs.predicted == outputs.labels


@metric("top_k_accuracy", "top-{k} accuracy", per_image=True, percent=True)
def _top_k_accuracy(outputs: Outputs) -> np.ndarray:
    return in_top_k(outputs.logits, outputs.labels, TOP_K)


@metric("balanced_accuracy", "balanced accuracy", percent=True)
def _balanced_accuracy(outputs: Outputs) -> float:
    """Mean recall of the classes that have labels."""
    correct, support, _ = outputs.class_counts
    present = support > 0
    return (correct[present] / support[present]).mean()


@metric("macro_f1", "macro F1")
def _macro_f1(outputs: Outputs) -> float:
    """Mean F1 of the classes that have labels."""
    correct, support, predicted = outputs.class_counts
    present = support > 0
    return (2 * correct[present] / (support + predicted)[present]).mean()


@metric("loss", "loss", per_image=True, higher_is_better=False)
def _loss(outputs: Outputs) -> np.ndarray:
    """Cross-entropy in nats."""
    return losses(outputs.logits, outputs.labels)


def informative(num_classes: int) -> dict[str, Metric]:
    """Returns the metrics to show people: all but top-k accuracy where k classes are all, and it is always 1."""
    return {name: one for name, one in METRICS.items() if name != "top_k_accuracy" or num_classes > TOP_K}


def compute(outputs: Outputs) -> dict[str, float]:
    """Computes every registered metric by name."""
    return {name: function(outputs) for name, function in METRICS.items()}


def bootstrap(statistic: Callable[[np.ndarray], Sequence[float]], count: int, seed: int) -> np.ndarray:
    """95 % percentile intervals of statistics over images resampled with replacement.

    Args:
        statistic: Returns M numbers for the images at indices int [count].
        count: Number of images.
        seed: The same seed returns the same intervals.

    Returns:
        float64 [M, 2]: lower and upper bound.

    Source: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13.
    """
    generator = np.random.default_rng(seed)
    resampled = [statistic(generator.integers(0, count, count)) for _ in range(RESAMPLES)]
    return np.percentile(np.asarray(resampled, np.float64), [2.5, 97.5], axis=0).T


def intervals(outputs: Outputs, seed: int) -> dict[str, list[float]]:
    """95 % bootstrap intervals [low, high] of every registered metric by name."""
    means = [one for one in METRICS.values() if one.per_image]
    others = [one for one in METRICS.values() if not one.per_image]
    columns = np.stack([one.function(outputs) for one in means]).astype(np.float64)

    def statistic(rows: np.ndarray) -> list[float]:
        resample = outputs.resample(rows)
        return [*columns[:, rows].mean(axis=1), *(one(resample) for one in others)]

    bounds = bootstrap(statistic, len(outputs.labels), seed).tolist()
    return dict(zip([one.name for one in (*means, *others)], bounds, strict=True))


def headline(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns (English label, formatted value) of every informative metric.

    Args:
        report: Content of metrics.json.

    Raises:
        UserError: The report lacks a metric; it was written before that one was registered.
    """
    missing = [name for name in ("top_k", "num_classes", *METRICS) if name not in report]
    if missing:
        raise UserError(f"metrics.json: {', '.join(missing)} is missing; run `python evaluate.py` again")
    shown = informative(report["num_classes"])
    return [(one.label.format(k=report["top_k"]), f"{report[one.name]:.4f}") for one in shown.values()]
