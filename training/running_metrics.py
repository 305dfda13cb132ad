"""Metrics accumulated over all batches of an epoch: mean loss, accuracy, recall."""

import numpy as np
import paddle

from dataset import PADDING
from system import machine
from training.losses import cross_entropy


class MeanMetric(paddle.metric.Metric):
    """Mean over all images of the value that `compute` returns for each; paddle's eval loss is the last batch's.

    Attributes:
        label: Key in the logs.
        total: Sum of the values so far.
        count: Number of images so far.
    """

    label = ""
    total: float
    count: int

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def update(self, values: np.ndarray) -> float:
        """Adds the values [N] of one batch."""
        self.total += float(values.sum(dtype=np.float64))
        self.count += values.size
        return self.accumulate()

    def reset(self) -> None:
        """Starts a new epoch."""
        self.total, self.count = 0.0, 0

    def accumulate(self) -> float:
        """Returns the mean so far."""
        return self.total / max(1, self.count)

    def name(self) -> str:
        """Returns the key in the logs."""
        return self.label


def _without_padding(values: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
    # Only validation in several processes has padding; a single one is spared the work.
    several = labels.ndim == 1 and machine.rank()[1] > 1
    return values[labels != PADDING] if several else values


class MeanLoss(MeanMetric):
    """Cross-entropy of the main output in nats, without label smoothing or class weights, whatever `loss` trains.

    It is what evaluate.py reports, and comparable between runs trained with different losses.
    """

    label = "mean_loss"

    def compute(self, *outputs_and_labels: paddle.Tensor) -> paddle.Tensor:
        """Takes the arguments of the loss; returns float32 [N] without padding."""
        logits, labels = outputs_and_labels[0], outputs_and_labels[-1]
        return _without_padding(cross_entropy(logits, labels, 0.0), labels)


class Accuracy(MeanMetric):
    """Top-1 accuracy; the label of a mixed image is the class of its larger part."""

    label = "accuracy"

    def compute(self, *outputs_and_labels: paddle.Tensor) -> paddle.Tensor:
        """Takes the arguments of the loss; returns float32 [N], 0 or 1, without padding."""
        predictions, labels = outputs_and_labels[0].argmax(axis=1), outputs_and_labels[-1]
        expected = labels.argmax(axis=1) if labels.ndim == 2 else labels
        return _without_padding((predictions == expected.flatten()).astype("float32"), labels)


class Recall(paddle.metric.Metric):
    """Recall per class and its macro average, in validation only.

    Attributes:
        active: Whether batches count.
        hits, counts: Correct predictions and images per class, int64 [C].
        last: Recalls of the last complete validation, float [C].
    """

    def __init__(self, num_classes: int):
        super().__init__()
        self.num_classes = num_classes
        self.active = False
        self.last = np.full(num_classes, np.nan)
        self.reset()

    def compute(self, *outputs_and_labels: paddle.Tensor) -> list[paddle.Tensor]:
        """Takes the arguments of the loss; returns predictions and labels int64 [N], or nothing while inactive."""
        return [outputs_and_labels[0].argmax(axis=1), outputs_and_labels[-1]] if self.active else []

    def update(self, predictions: np.ndarray | None = None, labels: np.ndarray | None = None) -> None:
        """Adds one batch; padding does not count."""
        if predictions is not None and labels is not None:
            predictions, labels = predictions[labels != PADDING], labels[labels != PADDING]
            self.counts += np.bincount(labels, minlength=self.num_classes)
            self.hits += np.bincount(labels[predictions == labels], minlength=self.num_classes)

    def reset(self) -> None:
        """Starts a new epoch, and keeps the recalls of the last one: fit resets before it calls on_eval_end."""
        if self.active:
            self.last = self.recalls()
        self.counts, self.hits = np.zeros((2, self.num_classes), np.int64)

    def recalls(self) -> np.ndarray:
        """Returns the recall of each class, float [C] in 0..1; NaN for a class without images."""
        return np.where(self.counts > 0, self.hits / np.maximum(self.counts, 1), np.nan)

    def accumulate(self) -> float:
        """Returns the mean over the classes that occurred; 0 if none did."""
        found = self.recalls()[self.counts > 0]
        return float(found.mean()) if len(found) else 0.0

    def name(self) -> str:
        """Returns the key in the logs."""
        return "recall"
