"""The loss, and what is measured over all images of a pass."""

import numpy as np
import paddle
from paddle.nn import functional

from dataset import PADDING
from system import machine

# Weight of each auxiliary output in the loss. Source: Szegedy et al. 2015 (arXiv:1409.4842), section 5.
AUXILIARY_WEIGHT = 0.3


class Loss(paddle.nn.Layer):
    """Cross-entropy (nats) with label smoothing; auxiliary outputs, where a network has them, count 0.3 each.

    Attributes:
        share: What the batch's mean is multiplied by; `Steps` sets it where several batches make one update.
    """

    def __init__(self, label_smoothing: float, class_weights: np.ndarray | None = None):
        super().__init__()
        self.label_smoothing = label_smoothing
        self.class_weights = None if class_weights is None else paddle.to_tensor(class_weights)
        self.share = 1.0

    def forward(self, *outputs_and_labels: paddle.Tensor) -> paddle.Tensor:
        """Takes logits [N, C] (several times, for auxiliary outputs) and labels; returns a scalar.

        Labels are int64 [N], or targets float32 [N, C] where images are mixed.
        """
        *outputs, labels = outputs_and_labels
        losses = [self._one(logits, labels) for logits in outputs]
        total = losses[0] + AUXILIARY_WEIGHT * sum(losses[1:]) if len(losses) > 1 else losses[0]
        return total if self.share == 1 else total * self.share

    def _one(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        options = {"soft_label": labels.ndim == 2, "label_smoothing": self.label_smoothing, "ignore_index": PADDING}
        if self.class_weights is None:
            return functional.cross_entropy(logits, labels, **options)
        weights = labels @ self.class_weights if labels.ndim == 2 else self.class_weights[labels.clip(min=0)]
        losses = functional.cross_entropy(logits, labels, reduction="none", **options).flatten()
        return (losses * weights).mean()


class Mean(paddle.metric.Metric):
    """The mean over all images of a value that `compute` gives for each; paddle's eval loss is the last batch's."""

    label = ""

    def __init__(self):
        super().__init__()
        self.reset()

    def update(self, values: np.ndarray) -> float:
        """Adds the values [N] of one batch."""
        self.total += float(values.sum(dtype=np.float64))
        self.count += values.size
        return self.accumulate()

    def reset(self) -> None:
        """Starts a new pass."""
        self.total, self.count = 0.0, 0

    def accumulate(self) -> float:
        """The mean so far."""
        return self.total / max(1, self.count)

    def name(self) -> str:
        """Key in the logs."""
        return self.label


def _without_padding(values: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
    # Only validation in several processes has padding; a single one is spared the work.
    several = labels.ndim == 1 and machine.rank()[1] > 1
    return values[labels != PADDING] if several else values


class MeanLoss(Mean):
    """Cross-entropy of the main output in nats, without label smoothing."""

    label = "mean_loss"

    def compute(self, *outputs_and_labels: paddle.Tensor) -> paddle.Tensor:
        """Takes what the loss takes; returns [N], padding left out."""
        logits, labels = outputs_and_labels[0], outputs_and_labels[-1]
        soft = labels.ndim == 2
        options = {"soft_label": soft, "reduction": "none", "ignore_index": PADDING}
        return _without_padding(functional.cross_entropy(logits, labels, **options).flatten(), labels)


class Accuracy(Mean):
    """Share of images whose largest logit is the label's (of mixed images: the larger share's)."""

    label = "accuracy"

    def compute(self, *outputs_and_labels: paddle.Tensor) -> paddle.Tensor:
        """Takes what the loss takes; returns float32 [N], padding left out."""
        predictions, labels = outputs_and_labels[0].argmax(axis=1), outputs_and_labels[-1]
        expected = labels.argmax(axis=1) if labels.ndim == 2 else labels
        return _without_padding((predictions == expected.flatten()).astype("float32"), labels)


class Recall(paddle.metric.Metric):
    """Mean over the classes of the share of a class's images that are recognised; counts in validation only.

    Attributes:
        active: Whether batches count.
        hits, counts: int64 [C].
        last: What `recalls` gave for the last whole validation.
    """

    def __init__(self, num_classes: int):
        super().__init__()
        self.num_classes = num_classes
        self.active = False
        self.last = np.full(num_classes, np.nan)
        self.reset()

    def compute(self, *outputs_and_labels: paddle.Tensor) -> list[paddle.Tensor]:
        """Takes what the loss takes; returns predictions and labels int64 [N], or nothing."""
        return [outputs_and_labels[0].argmax(axis=1), outputs_and_labels[-1]] if self.active else []

    def update(self, predictions: np.ndarray | None = None, labels: np.ndarray | None = None) -> None:
        """Adds one batch; padding does not count."""
        if predictions is not None:
            predictions, labels = predictions[labels != PADDING], labels[labels != PADDING]
            self.counts += np.bincount(labels, minlength=self.num_classes)
            self.hits += np.bincount(labels[predictions == labels], minlength=self.num_classes)

    def reset(self) -> None:
        """Starts a new pass, and keeps the recalls of the last one: fit resets before it tells the callbacks."""
        if self.active:
            self.last = self.recalls()
        self.counts, self.hits = np.zeros((2, self.num_classes), np.int64)

    def recalls(self) -> np.ndarray:
        """Share of each class's images that are recognised, float [C]; NaN for a class without images."""
        return np.where(self.counts > 0, self.hits / np.maximum(self.counts, 1), np.nan)

    def accumulate(self) -> float:
        """The mean of the classes that occurred; 0 where none did."""
        found = self.recalls()[self.counts > 0]
        return float(found.mean()) if len(found) else 0.0

    def name(self) -> str:
        """Key in the logs."""
        return "recall"
