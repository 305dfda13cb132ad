"""What VisualDL shows of a training."""

import math
import time
from pathlib import Path

import numpy as np
import paddle

from annotation.lists import read_split
from evaluation import metrics
from imaging.images import read_image
from imaging.transforms import EvalTransform
from models import networks
from training.running_metrics import Recall
from training.session import Session


class Board(paddle.callbacks.Callback):
    """Writes for VisualDL: scores, rate and speed in training, scores and recalls by epoch, sample images."""

    # Points of an epoch's curves: more cost time and show no more.
    POINTS = 200
    # Classes that get curves, and mistakes that are shown, in each epoch.
    CURVES, MISTAKES = 20, 6

    def __init__(self, folder: Path, session: Session, class_names: list[str], recall: Recall, samples: np.ndarray):
        super().__init__()
        # Not at the top: VisualDL brings a web server along and takes a second to import.
        from visualdl import LogWriter

        self.writer = LogWriter(logdir=str(folder))
        self.session, self.class_names, self.recall = session, class_names, recall
        self.every = -(-session.loader.steps // self.POINTS)
        if session.epoch == 1 and session.step == 0:
            for index, image in enumerate(samples[:8]):
                self.writer.add_image(f"train/image {index + 1}", image.transpose(1, 2, 0), 0)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Called by fit; its epoch counts from 0."""
        self.started, self.seen = time.monotonic(), 0

    def on_train_batch_end(self, step: int, logs: dict | None = None) -> None:
        """Writes the running scores, the rate and the speed."""
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
        """Keeps what validation answers, for the curves."""
        self.logits: list[np.ndarray] = []
        self.hook = self.model.network.register_forward_post_hook(
            lambda network, inputs, outputs: self.logits.append(networks.first(outputs).numpy())
        )

    def on_eval_end(self, logs: dict | None = None) -> None:
        """Writes the epoch's valid scores, curves and mistakes."""
        self.hook.remove()
        self._write_answers(np.concatenate(self.logits))
        epoch = self.session.epoch
        self.writer.add_scalar("valid/loss", float(logs["mean_loss"]), epoch)
        self.writer.add_scalar("valid/accuracy", float(logs["accuracy"]), epoch)
        for name, recall in zip(self.class_names, self.recall.last, strict=True):
            if not math.isnan(recall):
                self.writer.add_scalar(f"recall/{name}", float(recall), epoch)

    def _write_answers(self, logits: np.ndarray) -> None:
        """Writes a precision-recall and a ROC curve for each of the first classes, and the surest wrong answers."""
        settings, epoch = self.session.settings, self.session.epoch
        samples, _ = read_split(settings, "valid")
        # With several processes this one has a part of the answers only, in another order.
        if len(samples) != len(logits):
            return
        labels, answers = np.array([sample.label for sample in samples]), metrics.probabilities(logits)
        # VisualDL 2.5.3 asks for a name that numpy has dropped.
        np.float = float
        for index, name in enumerate(self.class_names[: self.CURVES]):
            arguments = labels == index, answers[:, index], epoch
            self.writer.add_pr_curve(f"precision and recall/{name}", *arguments, num_thresholds=50)
            self.writer.add_roc_curve(f"ROC/{name}", *arguments, num_thresholds=50)
        del np.float
        sureness = np.where(answers.argmax(axis=1) == labels, -1, answers.max(axis=1))
        transform = EvalTransform.from_settings(settings)
        for rank, place in enumerate(np.argsort(-sureness, kind="stable")[: self.MISTAKES], 1):
            if sureness[place] >= 0:
                image = transform(read_image(samples[place].file, settings.max_pixels))
                self.writer.add_image(f"valid/surest mistake {rank}", image.transpose(1, 2, 0), epoch)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Closes the file."""
        self.writer.close()
