"""What paddle.Model is given to train with: loss, measures and callbacks."""

import contextlib
import io
import math
import os
import time
from pathlib import Path

import numpy as np
import paddle
from paddle.nn import functional
from tqdm import tqdm

import plots
from checkpoint import BEST, LAST, Run
from config import Settings, UserError
from dataset import BatchLoader
from lists import write_text
from networks import Classifier

# Weight of each auxiliary output in the loss. Source: Szegedy et al. 2015 (arXiv:1409.4842), section 5.
AUXILIARY_WEIGHT = 0.3


class Loss(paddle.nn.Layer):
    """Cross-entropy (nats) with label smoothing; auxiliary outputs, where a network has them, count 0.3 each."""

    def __init__(self, label_smoothing: float):
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, *outputs_and_labels: paddle.Tensor) -> paddle.Tensor:
        """Takes logits [N, C] (several times, for auxiliary outputs) and labels int64 [N]; returns a scalar."""
        *outputs, labels = outputs_and_labels
        losses = [functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing) for logits in outputs]
        return losses[0] + AUXILIARY_WEIGHT * sum(losses[1:]) if len(losses) > 1 else losses[0]


class Mean(paddle.metric.Metric):
    """The mean over all pictures of a value that `compute` gives for each; paddle's eval loss is the last batch's."""

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


class MeanLoss(Mean):
    """Cross-entropy of the main output in nats, without label smoothing."""

    label = "mean_loss"

    def compute(self, *outputs_and_labels: paddle.Tensor) -> paddle.Tensor:
        """Takes what the loss takes; returns [N]."""
        return functional.cross_entropy(outputs_and_labels[0], outputs_and_labels[-1], reduction="none")


class Accuracy(Mean):
    """Share of pictures whose largest logit is the label's."""

    label = "accuracy"

    def compute(self, *outputs_and_labels: paddle.Tensor) -> paddle.Tensor:
        """Takes what the loss takes; returns float32 [N]."""
        return (outputs_and_labels[0].argmax(axis=1) == outputs_and_labels[-1].flatten()).astype("float32")


class EpochOrder(paddle.callbacks.Callback):
    """Tells the loader which epoch it is, so that order and augmentation differ from epoch to epoch."""

    def __init__(self, loader: BatchLoader):
        super().__init__()
        self.loader = loader

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Called by fit; its epoch counts from 0."""
        self.loader.epoch = epoch


class Divergence(paddle.callbacks.Callback):
    """Stops a training whose loss is no longer a number."""

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Called by fit; its epoch counts from 0."""
        self.epoch = epoch + 1

    def on_train_batch_end(self, step: int, logs: dict | None = None) -> None:
        """Raises UserError when the loss of a step is infinite or NaN."""
        loss = logs["loss"][0] if isinstance(logs["loss"], list) else logs["loss"]
        if not math.isfinite(loss):
            raise UserError(
                f"train.py: the loss is {loss} at step {step + 1} of epoch {self.epoch}; "
                "lower learning_rate or raise warmup_epochs, the last good epoch is kept"
            )


class Progress(paddle.callbacks.Callback):
    """A progress bar with pictures/s and time left; one line an epoch where nobody watches."""

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Called by fit; its epoch counts from 0."""
        self.title = f"epoch {epoch + 1}/{self.params['epochs']}"
        self.bar = tqdm(unit=" pictures", desc=self.title, leave=False, disable=None, total=self.total)
        self.started = time.monotonic()

    def __init__(self, total: int):
        super().__init__()
        self.total = total

    def on_train_batch_end(self, step: int, logs: dict | None = None) -> None:
        """Moves the bar."""
        self.bar.update(logs["batch_size"])
        self.bar.set_postfix(loss=f"{logs['mean_loss']:.3f}", accuracy=f"{logs['accuracy']:.3f}", refresh=False)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Keeps the training scores: paddle's logs are one dict that evaluation overwrites."""
        self.bar.close()
        self.seconds = time.monotonic() - self.started
        self.trained = f"train loss {logs['mean_loss']:.4f} accuracy {logs['accuracy']:.4f}"

    def on_eval_end(self, logs: dict | None = None) -> None:
        """Says how the epoch went."""
        speed = self.total / max(self.seconds, 1e-9)
        valid = f"valid loss {logs['mean_loss']:.4f} accuracy {logs['accuracy']:.4f}"
        print(f"{self.title}: {self.trained}, {valid}, {speed:.0f} pictures/s", flush=True)


class Recorder(paddle.callbacks.Callback):
    """Keeps the run: history, curves, last and best weights, state; stops early when patience is out."""

    def __init__(self, settings: Settings, run: Run):
        super().__init__()
        self.settings, self.run = settings, run
        self.best: dict[str, float] = {}

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Called by fit; its epoch counts from 0."""
        self.row = {"epoch": epoch + 1, "learning_rate": self.model._optimizer.get_lr()}

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Notes the training scores before evaluation overwrites them."""
        self.row |= {"train_loss": logs["mean_loss"], "train_accuracy": logs["accuracy"]}

    def on_eval_end(self, logs: dict | None = None) -> None:
        """Saves what the epoch has reached."""
        self.row |= {"valid_loss": logs["mean_loss"], "valid_accuracy": logs["accuracy"]}
        network = self.model.network
        if self._is_better():
            self.best = dict(self.row)
            self.run.save_weights(BEST, network)
        self.run.save_weights(LAST, network)
        self.run.save_optimizer(self.model._optimizer)
        self.run.append_history(self.row)
        plots.curves(self.run.history(), self.run.path / "curves.png")
        waited = self.row["epoch"] - self.best["epoch"]
        if self.settings.patience and waited >= self.settings.patience:
            self.model.stop_training = True
            print(f"stopped early: no better valid {self.settings.monitor} for {waited} epochs")
        self._save_state(finished=self.model.stop_training or self.row["epoch"] == self.settings.epochs)

    def _is_better(self) -> bool:
        """Compares with the best epoch; equal accuracies are decided by the loss, which small sets need."""
        if not self.best:
            return True
        order = ("valid_accuracy", "valid_loss") if self.settings.monitor == "accuracy" else ("valid_loss",)
        signs = {"valid_accuracy": 1, "valid_loss": -1}
        return [signs[k] * self.row[k] for k in order] > [signs[k] * self.best[k] for k in order]

    def _save_state(self, finished: bool) -> None:
        best = {f"best_{key}": self.best[name] for key, name in
                (("epoch", "epoch"), ("accuracy", "valid_accuracy"), ("loss", "valid_loss"))}  # fmt: skip
        self.run.save_state(epoch=self.row["epoch"], finished=finished, **best)


class Board(paddle.callbacks.Callback):
    """Writes scalars for VisualDL: every step of training, every epoch of validation."""

    def __init__(self, folder: Path):
        super().__init__()
        # Not at the top: VisualDL brings a web server along and takes a second to import.
        from visualdl import LogWriter

        self.writer = LogWriter(logdir=str(folder))
        self.step = 0
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Called by fit; its epoch counts from 0."""
        self.epoch = epoch + 1

    def on_train_batch_end(self, step: int, logs: dict | None = None) -> None:
        """Writes the step's running scores and rate."""
        self.step += 1
        for name, value in (
            ("train/loss", logs["mean_loss"]),
            ("train/accuracy", logs["accuracy"]),
            ("train/learning_rate", self.model._optimizer.get_lr()),
        ):
            self.writer.add_scalar(name, float(value), self.step)

    def on_eval_end(self, logs: dict | None = None) -> None:
        """Writes the epoch's valid scores."""
        self.writer.add_scalar("valid/loss", float(logs["mean_loss"]), self.epoch)
        self.writer.add_scalar("valid/accuracy", float(logs["accuracy"]), self.epoch)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Closes the file."""
        self.writer.close()


def callbacks(settings: Settings, run: Run, loader: BatchLoader) -> list[paddle.callbacks.Callback]:
    """Lists what fit calls, in order; the rate moves last, so that the others see the rate a step was made with."""
    return [
        EpochOrder(loader),
        Divergence(),
        Progress(len(loader.dataset)),
        Board(run.path / "vdl"),
        Recorder(settings, run),
        paddle.callbacks.LRScheduler(by_step=True),
    ]


def write_summary(network: Classifier, settings: Settings, path: str | os.PathLike) -> None:
    """Writes paddle.summary's table of layers, sizes and weights to a file."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        paddle.summary(network.network, (1, *settings.image_shape))
    write_text(path, text.getvalue())
