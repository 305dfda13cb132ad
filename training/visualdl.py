"""VisualDL log: metrics, learning rate and speed by step; metrics, curves and errors by epoch."""

import math
import time

import numpy as np
import paddle
from visualdl import LogWriter
from visualdl.component.base_component import pr_curve_raw, roc_curve_raw

from annotation.lists import read_split
from evaluation import metrics
from imaging.images import read_image
from imaging.transforms import EvalTransform
from models.classifier import main_output
from training.running_metrics import Recall
from training.session import Session

# Points of an epoch's curves: more cost time and show no more.
POINTS = 200
# Classes that get curves in each epoch, thresholds of a curve, and prediction errors that are shown.
CURVES, THRESHOLDS, ERRORS = 20, 50, 6


class VisualDLWriter(paddle.callbacks.Callback):
    """Writes the VisualDL log of a run into its folder `vdl`.

    Args:
        session: The training.
        class_names: Names of the classes.
        recall: The metric whose recalls per class are written.
        images: Augmented training images, uint8 [N, 3, H, W], of which a new run shows eight.
    """

    def __init__(self, session: Session, class_names: list[str], recall: Recall, images: np.ndarray):
        super().__init__()
        self.writer = LogWriter(logdir=str(session.run.path / "vdl"))
        self.session, self.class_names, self.recall = session, class_names, recall
        self.every = -(-session.loader.steps // POINTS)
        if session.epoch == 1 and session.step == 0:
            for index, image in enumerate(images[:8]):
                self.writer.add_image(f"train/image {index + 1}", image.transpose(1, 2, 0), 0)

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
            self.writer.add_scalar(f"train/{name}", float(value), done)

    def on_eval_begin(self, logs: dict | None = None) -> None:
        """Collects the logits of the validation, for the curves."""
        self.logits: list[np.ndarray] = []
        self.hook = self.model.network.register_forward_post_hook(
            lambda network, inputs, outputs: self.logits.append(main_output(outputs).numpy())
        )

    def on_eval_end(self, logs: dict) -> None:
        """Writes the epoch's valid metrics, curves and errors."""
        self.hook.remove()
        self._write_predictions(np.concatenate(self.logits))
        epoch = self.session.epoch
        self.writer.add_scalar("valid/loss", float(logs["mean_loss"]), epoch)
        self.writer.add_scalar("valid/accuracy", float(logs["accuracy"]), epoch)
        for name, recall in zip(self.class_names, self.recall.last, strict=True):
            if not math.isnan(recall):
                self.writer.add_scalar(f"recall/{name}", float(recall), epoch)

    def _write_predictions(self, logits: np.ndarray) -> None:
        """Writes the curves of the first classes and the most confident errors of logits [N, C]."""
        samples, _ = read_split(self.session.settings, "valid")
        # Each of several processes has a part of the predictions only, in another order.
        if len(samples) != len(logits):
            return
        labels, probabilities = np.array([sample.label for sample in samples]), metrics.probabilities(logits)
        for index, name in enumerate(self.class_names[:CURVES]):
            self._write_curves(name, labels == index, probabilities[:, index])
        confidences = np.where(probabilities.argmax(axis=1) == labels, -1, probabilities.max(axis=1))
        transform, limit = EvalTransform.from_settings(self.session.settings), self.session.settings.max_pixels
        for rank, place in enumerate(np.argsort(-confidences, kind="stable")[:ERRORS], 1):
            if confidences[place] >= 0:
                image = transform(read_image(samples[place].file, limit), limit)
                self.writer.add_image(f"valid/surest mistake {rank}", image.transpose(1, 2, 0), self.session.epoch)

    def _write_curves(self, name: str, positive: np.ndarray, scores: np.ndarray) -> None:
        """Writes the precision-recall and the ROC curve of a class.

        VisualDL's own add_pr_curve and add_roc_curve (2.5.3) use a name that numpy has dropped, and the latter divides
        the true positives by the negatives; its records take finished points.

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
        when = {"step": self.session.epoch, "walltime": round(time.time() * 1000)}
        records = self.writer._get_file_writer()
        records.add_record(
            pr_curve_raw(f"precision and recall/{name}", **counts, precision=precision, recall=recall, **when)
        )
        records.add_record(roc_curve_raw(f"ROC/{name}", **counts, tpr=recall, fpr=fpr, **when))

    def on_train_end(self, logs: dict | None = None) -> None:
        """Closes the log."""
        self.writer.close()


def _count_above(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Counts the scores that reach each threshold, int [T]."""
    return len(scores) - np.searchsorted(np.sort(scores), thresholds)
