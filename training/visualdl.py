"""VisualDL log: metrics, learning rate and speed by step; metrics, curves and errors by epoch."""

import math
import time

import numpy as np
import paddle

from evaluation import metrics
from models.classifier import main_output
from training.running_metrics import Recall
from training.session import Session
from training.visualdl_log import VisualDLLog

# Points of an epoch's curves: more cost time and show no more.
POINTS = 200
# Classes that get curves in each epoch, thresholds of a curve, and prediction errors that are shown.
CURVES, THRESHOLDS, ERRORS = 20, 50, 6


class VisualDLWriter(paddle.callbacks.Callback):
    """Writes the VisualDL log of a run into its folder `vdl`. It reads no file: lists and images are the training's.

    Args:
        session: The training.
        class_names: Names of the classes.
        recall: The metric whose recalls per class are written.
        images: Augmented training images, uint8 [N, 3, H, W], of which a new run shows eight.
        labels: Of the validation images, int64 [N], in their order.
    """

    def __init__(
        self, session: Session, class_names: list[str], recall: Recall, images: np.ndarray, labels: np.ndarray
    ):
        super().__init__()
        self.log = VisualDLLog(session.run.path / "vdl")
        self.session, self.class_names, self.recall, self.labels = session, class_names, recall, labels
        self.every = -(-session.loader.steps // POINTS)
        if session.epoch == 1 and session.step == 0:
            for index, image in enumerate(images[:8]):
                self.log.image(f"train/image {index + 1}", image, 0)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Called by fit; its epoch counts from 0."""
        self.started, self.seen = time.monotonic(), 0

    def on_train_batch_end(self, step: int, logs: dict) -> None:
        """Writes the running metrics, the learning rate and the speed."""
        session = self.session
        self.seen += logs["batch_size"]
        if session.step % self.every:
            return
        values = {
            "loss": logs["mean_loss"],
            "accuracy": logs["accuracy"],
            "learning_rate": session.optimizer.get_lr(),
            "images_per_second": self.seen / max(time.monotonic() - self.started, 1e-9),
        }
        done = (session.epoch - 1) * session.loader.steps + session.step
        for name, value in values.items():
            self.log.scalar(f"train/{name}", float(value), done)

    def on_eval_begin(self, logs: dict | None = None) -> None:
        """Collects the probabilities of the validation, and its most confident errors."""
        self.probabilities: list[np.ndarray] = []
        self.errors: list[tuple[float, int, np.ndarray]] = []
        # Each of several processes has a part of the images only, in another order.
        if self.session.processes == 1:
            self.hook = self.model.network.register_forward_post_hook(self._collect)

    def _collect(self, network: paddle.nn.Layer, inputs: tuple, outputs: object) -> None:
        start = sum(map(len, self.probabilities))
        found = metrics.probabilities(main_output(outputs).numpy())
        self.probabilities.append(found)
        wrong = np.flatnonzero(found.argmax(axis=1) != self.labels[start : start + len(found)])
        surest = wrong[np.argsort(-found[wrong].max(axis=1), kind="stable")[:ERRORS]]
        images = inputs[0].numpy() if len(surest) else ()
        self.errors += [(float(found[i].max()), start + i, images[i].copy()) for i in surest.tolist()]
        self.errors = sorted(self.errors, key=lambda one: (-one[0], one[1]))[:ERRORS]

    def on_eval_end(self, logs: dict) -> None:
        """Writes the epoch's valid metrics, curves and errors."""
        epoch = self.session.epoch
        if self.session.processes == 1:
            self.hook.remove()
            self._write_predictions(np.concatenate(self.probabilities))
        self.log.scalar("valid/loss", float(logs["mean_loss"]), epoch)
        self.log.scalar("valid/accuracy", float(logs["accuracy"]), epoch)
        for name, recall in zip(self.class_names, self.recall.last, strict=True):
            if not math.isnan(recall):
                self.log.scalar(f"recall/{name}", float(recall), epoch)

    def _write_predictions(self, probabilities: np.ndarray) -> None:
        """Writes the curves of the first classes and the most confident errors of probabilities [N, C]."""
        for index, name in enumerate(self.class_names[:CURVES]):
            self._write_curves(name, self.labels == index, probabilities[:, index])
        for rank, (_, _, image) in enumerate(self.errors, 1):
            self.log.image(f"valid/surest mistake {rank}", image, self.session.epoch)

    def _write_curves(self, name: str, positive: np.ndarray, scores: np.ndarray) -> None:
        """Writes the precision-recall and the ROC curve of a class.

        Args:
            positive: Whether the label is the class, bool [N].
            scores: Probability of the class, float [N].
        """
        thresholds = np.linspace(0, 1, THRESHOLDS)
        tp, fp = (_count_above(scores[chosen], thresholds) for chosen in (positive, ~positive))
        tn, fn = fp[0] - fp, tp[0] - tp
        counts = {"tp": tp.tolist(), "fp": fp.tolist(), "tn": tn.tolist(), "fn": fn.tolist()}
        precision, recall, fpr = (
            (part / np.maximum(1, whole)).tolist() for part, whole in ((tp, tp + fp), (tp, tp + fn), (fp, fp + tn))
        )
        epoch = self.session.epoch
        self.log.curve("pr_curve", f"precision and recall/{name}", epoch, **counts, precision=precision, recall=recall)
        self.log.curve("roc_curve", f"ROC/{name}", epoch, **counts, tpr=recall, fpr=fpr)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Closes the log."""
        self.log.close()


def _count_above(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Counts the scores that reach each threshold, int [T]."""
    return len(scores) - np.searchsorted(np.sort(scores), thresholds)
