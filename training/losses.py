"""Loss functions by name, and the layer that applies them to a batch."""

from collections.abc import Callable

import numpy as np
import paddle
from paddle.nn import functional

from dataset import PADDING
from system import machine
from system.errors import UserError
from system.settings import Settings

# Weight of each auxiliary output in the loss. Source: Szegedy et al. 2015 (arXiv:1409.4842), section 5.
AUXILIARY_WEIGHT = 0.3
# Focusing parameter of the focal loss: how strongly well-classified images are down-weighted; 0 is cross-entropy.
# Source: Lin et al. 2017 (arXiv:1708.02002), section 5.1, whose best value is 2.
FOCAL_GAMMA = 2.0

LossFunction = Callable[[paddle.Tensor, paddle.Tensor, float], paddle.Tensor]
LOSSES: dict[str, LossFunction] = {}


def loss(name: str) -> Callable[[LossFunction], LossFunction]:
    """Registers a loss function under the name that the setting `loss` selects it by.

    The function takes logits float32 [N, C], labels (class indices int64 [N], or targets float32 [N, C] where images
    are mixed) and the label smoothing 0..1, and returns the loss of each image, float32 [N]. Class weights, auxiliary
    outputs and the mean over the batch are applied to what it returns.
    """

    def register(function: LossFunction) -> LossFunction:
        LOSSES[name] = function
        return function

    return register


@loss("cross_entropy")
def cross_entropy(logits: paddle.Tensor, labels: paddle.Tensor, label_smoothing: float) -> paddle.Tensor:
    """Softmax cross-entropy in nats, float32 [N]; 0 for padding."""
    if label_smoothing and labels.ndim == 1 and machine.rank()[1] > 1:
        # Paddle smooths no label that it is to ignore. Only validation in several processes has padding.
        losses = functional.cross_entropy(logits, labels.clip(min=0), reduction="none", label_smoothing=label_smoothing)
        return losses.flatten() * (labels != PADDING).astype("float32")
    options = {"soft_label": labels.ndim == 2, "label_smoothing": label_smoothing, "ignore_index": PADDING}
    return functional.cross_entropy(logits, labels, reduction="none", **options).flatten()


@loss("focal")
def focal(logits: paddle.Tensor, labels: paddle.Tensor, label_smoothing: float) -> paddle.Tensor:
    """Focal loss, float32 [N]: each term of the cross-entropy times (1 - p) ** FOCAL_GAMMA.

    With soft or smoothed targets t it is the sum over the classes of -t (1 - p) ** gamma log p, which is the paper's
    formula where t is one-hot.

    Source: Lin et al. 2017 (arXiv:1708.02002), equation 4.
    """
    log_p = functional.log_softmax(logits, axis=1)
    targets = smooth_targets(labels, logits.shape[1], label_smoothing)
    return -(targets * (1 - log_p.exp()) ** FOCAL_GAMMA * log_p).sum(axis=1)


def smooth_targets(labels: paddle.Tensor, num_classes: int, label_smoothing: float) -> paddle.Tensor:
    """Returns targets float32 [N, C] of class indices int64 [N] or of targets; the rows of padding are 0.

    Source: Szegedy et al. 2016 (arXiv:1512.00567), section 7, for the smoothing.
    """
    if labels.ndim == 2:
        return labels * (1 - label_smoothing) + label_smoothing / num_classes
    one_hot = functional.one_hot(labels.clip(min=0), num_classes)
    smoothed = one_hot * (1 - label_smoothing) + label_smoothing / num_classes
    return smoothed * (labels != PADDING).astype("float32").unsqueeze(1)


class Loss(paddle.nn.Layer):
    """Mean loss of a batch, with class weights; auxiliary outputs, where a network has them, count 0.3 each.

    Attributes:
        share: Factor of the batch's mean; `StepTracker` sets it where several batches make one update.
    """

    def __init__(
        self,
        function: LossFunction = cross_entropy,
        label_smoothing: float = 0.0,
        class_weights: np.ndarray | None = None,
    ):
        super().__init__()
        self.function = function
        self.label_smoothing = label_smoothing
        self.class_weights = None if class_weights is None else paddle.to_tensor(class_weights)
        self.share = 1.0

    def forward(self, *outputs_and_labels: paddle.Tensor) -> paddle.Tensor:
        """Takes logits [N, C] (several, if there are auxiliary outputs) and labels; returns a scalar.

        Labels are int64 [N], or targets float32 [N, C] where images are mixed.
        """
        *outputs, labels = outputs_and_labels
        losses = [self._mean(logits, labels) for logits in outputs]
        total = losses[0] + AUXILIARY_WEIGHT * sum(losses[1:]) if len(losses) > 1 else losses[0]
        return total if self.share == 1 else total * self.share

    def _mean(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        losses = self.function(logits, labels, self.label_smoothing)
        if self.class_weights is None:
            return losses.mean()
        # Weighted by the label before smoothing; a mixed image by its classes' weights in their shares.
        weights = labels @ self.class_weights if labels.ndim == 2 else self.class_weights[labels.clip(min=0)]
        return (losses * weights).mean()


def make_loss(settings: Settings, labels: np.ndarray, num_classes: int) -> Loss:
    """Makes the loss that the settings describe.

    Args:
        labels: Class indices of the training images, int64 [N].

    Raises:
        UserError: There is no loss of that name, or a class to be weighted has no image.
    """
    if settings.loss not in LOSSES:
        raise UserError(f"loss={settings.loss}: there is no such loss; use one of {', '.join(sorted(LOSSES))}")
    weights = class_weights(labels, num_classes) if settings.class_balance == "weights" else None
    return Loss(LOSSES[settings.loss], settings.label_smoothing, weights)


def class_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Weights float32 [C] inversely proportional to the class counts; their mean over the images is 1.

    Raises:
        UserError: A class has no image.
    """
    counts = np.bincount(labels, minlength=num_classes)
    if not counts.all():
        missing = ", ".join(str(index) for index in np.flatnonzero(counts == 0)[:10])
        raise UserError(f"class_balance: no training image of class {missing}; add some, or use class_balance=none")
    return (len(labels) / (num_classes * counts)).astype(np.float32)
