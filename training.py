"""What paddle.Model is given to train with: loss, measures and callbacks."""

import contextlib
import io
import math
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import paddle
from paddle.nn import functional
from PIL import Image
from tqdm import tqdm

import metrics
import networks
import optimization
import plots
import runtime
from checkpoint import BEST, LAST, Run
from config import Settings, UserError
from dataset import PADDING, BatchLoader
from lists import read_split, write_text
from networks import Classifier
from pictures import read_image
from transforms import EvalTransform

# Weight of each auxiliary output in the loss. Source: Szegedy et al. 2015 (arXiv:1409.4842), section 5.
AUXILIARY_WEIGHT = 0.3
# Pictures of augmented.png, at most.
SHOWN = 24


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

        Labels are int64 [N], or targets float32 [N, C] where pictures are mixed.
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


def _without_padding(values: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
    # Only validation in several processes has padding; a single one is spared the work.
    several = labels.ndim == 1 and runtime.rank()[1] > 1
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
    """Share of pictures whose largest logit is the label's (of mixed pictures: the larger share's)."""

    label = "accuracy"

    def compute(self, *outputs_and_labels: paddle.Tensor) -> paddle.Tensor:
        """Takes what the loss takes; returns float32 [N], padding left out."""
        predictions, labels = outputs_and_labels[0].argmax(axis=1), outputs_and_labels[-1]
        expected = labels.argmax(axis=1) if labels.ndim == 2 else labels
        return _without_padding((predictions == expected.flatten()).astype("float32"), labels)


class Recall(paddle.metric.Metric):
    """Mean over the classes of the share of a class's pictures that are recognised; counts in validation only.

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
        """Share of each class's pictures that are recognised, float [C]; NaN for a class without pictures."""
        return np.where(self.counts > 0, self.hits / np.maximum(self.counts, 1), np.nan)

    def accumulate(self) -> float:
        """The mean of the classes that occurred; 0 where none did."""
        found = self.recalls()[self.counts > 0]
        return float(found.mean()) if len(found) else 0.0

    def name(self) -> str:
        """Key in the logs."""
        return "recall"


class Session:
    """A training under way: what it works on and how far it is.

    Attributes:
        epoch: The epoch being trained, from 1.
        step: Steps of it that are done.
        best: The row of history.csv with the best score; empty before the first epoch has ended.
        started: Sums of the training scores of an epoch that was begun before an interruption.
    """

    def __init__(self, settings: Settings, run: Run, loader: BatchLoader, optimizer, average=None):
        self.settings, self.run, self.loader = settings, run, loader
        self.optimizer, self.schedule, self.average = optimizer, optimizer._learning_rate, average
        self.rank, self.processes = runtime.rank()
        self.epoch, self.step = 1, 0
        self.best: dict[str, float] = {}
        self.started: dict[str, list[float]] = {}
        self.metrics: list[Mean] = []

    @property
    def epochs_left(self) -> int:
        """Epochs still to train, the present one included."""
        return self.settings.epochs - self.epoch + 1

    @property
    def waited(self) -> int:
        """Ended epochs since the best one."""
        return self.epoch - self.best["epoch"]

    def state(self, finished: bool, ended: bool) -> dict:
        """What state.json says. `ended`: the present epoch is complete, validation included."""
        best = {f"best_{key}": self.best[name] for key, name in
                (("epoch", "epoch"), ("accuracy", "valid_accuracy"), ("loss", "valid_loss")) if self.best}  # fmt: skip
        sums = {} if ended else {metric.name(): [metric.total, metric.count] for metric in self.metrics}
        return {
            "epoch": self.epoch if ended else self.epoch - 1,
            "finished": finished,
            **best,
            "step": 0 if ended else self.step,
            "steps_per_epoch": self.loader.steps,
            "pictures": len(self.loader.dataset),
            "sums": sums,
            "best": self.best,
        }

    def save(self, network: Classifier) -> None:
        """Saves a point within an epoch."""
        if self.rank == 0:
            weights = {LAST: network.network.state_dict()}
            self._save(weights, self.state(finished=False, ended=False))

    def save_epoch(self, network: Classifier, row: dict[str, float], better: bool, finished: bool) -> None:
        """Saves an epoch that has ended; the best weights are the averaged ones where there are such."""
        if self.rank:
            return
        weights = {LAST: network.network.state_dict()}
        if better:
            # Swapped back before the raw weights are written: state dicts hold the live tensors.
            weights[BEST] = self.average.weights() if self.average else weights[LAST]
        self._save(weights, self.state(finished, ended=True), row)

    def _save(self, weights: dict, state: dict, row: dict | None = None) -> None:
        average = self.average.state_dict() if self.average else None
        self.run.save(weights, self.optimizer.state_dict(), average, state, row)

    def restore(self, network: Classifier) -> None:
        """Goes back to the point that was saved last.

        Raises:
            UserError: The lists or the number of processes have changed, or a file is torn.
        """
        state = self.run.state
        here = {"steps_per_epoch": self.loader.steps, "pictures": len(self.loader.dataset)}
        changed = [f"{key} was {state.get(key)}, is {value}" for key, value in here.items() if state.get(key) != value]
        if changed:
            raise UserError(
                f"{self.run.path}: {'; '.join(changed)}; resume with the same lists, batch_size and processes"
            )
        self.run.restore(network, self.optimizer, self.average)
        optimization.settle(self.optimizer)
        self.epoch, self.step = state["epoch"] + 1, state["step"]
        self.best, self.started = state["best"], state["sums"]


class Steps(paddle.callbacks.Callback):
    """Counts epochs and steps, and lets everything that is drawn depend on seed, epoch and step alone."""

    def __init__(self, session: Session):
        super().__init__()
        self.session = session
        self.first = True
        sizes, group = session.loader.sizes(), session.settings.accumulate
        # Pictures of all the batches, in all the processes, that make one update with a step.
        self.sizes, self.groups = sizes, [sum(sizes[i - i % group :][:group]) for i in range(len(sizes))]

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Called by fit, whose own count of epochs starts anew when a run is resumed."""
        session = self.session
        if not self.first:
            session.epoch, session.step, session.started = session.epoch + 1, 0, {}
        self.first = False
        session.metrics = [metric for metric in self.model._metrics if isinstance(metric, Mean)]
        session.loader.epoch, session.loader.first_step = session.epoch, session.step
        for metric in session.metrics:
            metric.reset()
            if metric.name() in session.started:
                metric.total, metric.count = session.started[metric.name()]
        if session.settings.freeze and session.epoch >= session.settings.unfreeze_epoch > 0:
            optimization.unfreeze(self.model.network)

    def on_train_batch_begin(self, step: int, logs: dict | None = None) -> None:
        """Seeds dropout, and gives the batch its share of the update: the mean over all its pictures."""
        session = self.session
        # Resuming within an epoch then needs no generator's state, and each process drops other units.
        paddle.seed(_step_seed(session.settings.seed, session.epoch, session.step, session.rank))
        if session.processes > 1 or session.settings.accumulate > 1:
            here = len(range(session.rank, self.sizes[session.step], session.processes))
            self.model._loss.share = here * session.processes / self.groups[session.step]

    def on_train_batch_end(self, step: int, logs: dict | None = None) -> None:
        """Counts the step."""
        session = self.session
        session.step += 1
        updated = session.step % session.settings.accumulate == 0 or session.step == session.loader.steps
        if session.average and updated:
            session.average.update()

    def on_eval_begin(self, logs: dict | None = None) -> None:
        """Lets the averaged weights be scored, and every process score the same ones."""
        self.model._loss.share = 1.0
        self._count_recalls(True)
        if self.session.average:
            self.session.average.exchange()
        if self.session.processes > 1:
            # Statistics of batch norm are each process's own; those of rank 0 are the ones that are saved.
            for buffer in self.model.network.buffers():
                paddle.distributed.broadcast(buffer, src=0)

    def on_eval_end(self, logs: dict | None = None) -> None:
        """Puts the trained weights back."""
        self._count_recalls(False)
        if self.session.average:
            self.session.average.exchange()

    def _count_recalls(self, active: bool) -> None:
        for metric in self.model._metrics:
            if isinstance(metric, Recall):
                metric.active = active


def _step_seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


class Divergence(paddle.callbacks.Callback):
    """Stops a training whose loss is no longer a number."""

    def __init__(self, session: Session):
        super().__init__()
        self.session = session

    def on_train_batch_end(self, step: int, logs: dict | None = None) -> None:
        """Raises UserError when the loss of a step is infinite or NaN."""
        loss = logs["loss"][0] if isinstance(logs["loss"], list) else logs["loss"]
        if not math.isfinite(loss):
            raise UserError(
                f"train.py: the loss is {loss} at step {self.session.step} of epoch {self.session.epoch}; "
                "lower learning_rate, raise warmup_epochs or set clip_norm=1; the last good epoch is kept"
            )


class Progress(paddle.callbacks.Callback):
    """A progress bar with pictures/s and time left; one line an epoch where nobody watches."""

    def __init__(self, session: Session):
        super().__init__()
        self.session = session

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Called by fit; its epoch counts from 0."""
        session = self.session
        sizes = session.loader.sizes()
        self.title = f"epoch {session.epoch}/{session.settings.epochs}"
        self.total, done = sum(sizes), sum(sizes[: session.step])
        self.bar = tqdm(unit=" pictures", desc=self.title, leave=False, disable=None, total=self.total, initial=done)
        self.started, self.seen = time.monotonic(), self.total - done

    def on_train_batch_end(self, step: int, logs: dict | None = None) -> None:
        """Moves the bar."""
        self.bar.update(logs["batch_size"])
        self.bar.set_postfix(loss=f"{logs['mean_loss']:.3f}", accuracy=f"{logs['accuracy']:.3f}", refresh=False)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Stops the clock: evaluation is not training."""
        self.bar.close()
        self.speed = self.seen / max(time.monotonic() - self.started, 1e-9)


class Recorder(paddle.callbacks.Callback):
    """Keeps the run: history, curves, last and best weights, state; stops early when patience is out."""

    def __init__(self, session: Session, progress: Progress | None = None):
        super().__init__()
        self.session, self.progress = session, progress

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Called by fit; its epoch counts from 0."""
        session = self.session
        first = (session.epoch - 1) * session.loader.steps
        self.row = {"epoch": session.epoch, "learning_rate": session.schedule.base_lr * session.schedule.factor(first)}
        self.sums = dict(session.started)

    def on_train_batch_end(self, step: int, logs: dict | None = None) -> None:
        """Notes the training scores so far: fit clears its own before the epoch ends."""
        self.sums = {metric.name(): [metric.total, metric.count] for metric in self.session.metrics}

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Notes the epoch's training scores, of all processes together."""
        sums = np.asarray([self.sums["mean_loss"], self.sums["accuracy"]], np.float64)
        if self.session.processes > 1:
            gathered = paddle.to_tensor(sums)
            paddle.distributed.all_reduce(gathered)
            sums = gathered.numpy()
        loss, accuracy = (sums[:, 0] / sums[:, 1]).tolist()
        self.row |= {"train_loss": loss, "train_accuracy": accuracy}

    def on_eval_end(self, logs: dict | None = None) -> None:
        """Saves what the epoch has reached."""
        session, settings = self.session, self.session.settings
        self.row |= {"valid_loss": logs["mean_loss"], "valid_accuracy": logs["accuracy"]}
        better = self._is_better()
        if better:
            session.best = dict(self.row)
        session.schedule.judge(better)
        out_of_patience = settings.patience and session.waited >= settings.patience
        self.model.stop_training = bool(out_of_patience)
        session.save_epoch(self.model.network, self.row, better, bool(out_of_patience) or session.epochs_left == 1)
        if session.rank == 0:
            self._tell(out_of_patience)

    def _tell(self, out_of_patience: bool) -> None:
        session, row = self.session, self.row
        plots.curves(session.run.history(), session.run.path / "curves.png")
        scores = ", ".join(
            f"{split} loss {row[f'{split}_loss']:.4f} accuracy {row[f'{split}_accuracy']:.4f}"
            for split in ("train", "valid")
        )
        speed = f", {self.progress.speed:.0f} pictures/s" if self.progress else ""
        print(f"epoch {session.epoch}/{session.settings.epochs}: {scores}{speed}", flush=True)
        if out_of_patience:
            print(f"stopped early: no better valid {session.settings.monitor} for {session.waited} epochs")

    def _is_better(self) -> bool:
        """Compares with the best epoch; equal accuracies are decided by the loss, which small sets need."""
        best = self.session.best
        if not best:
            return True
        monitor = self.session.settings.monitor
        order = ("valid_accuracy", "valid_loss") if monitor == "accuracy" else ("valid_loss",)
        signs = {"valid_accuracy": 1, "valid_loss": -1}
        return [signs[k] * self.row[k] for k in order] > [signs[k] * best[k] for k in order]


class Keeper(paddle.callbacks.Callback):
    """Saves within an epoch: every so many minutes, and before SIGTERM or Ctrl-C ends the training."""

    def __init__(self, session: Session):
        super().__init__()
        self.session = session
        self.saved = time.monotonic()
        self.caught: signal.Signals | None = None
        self.before = {}

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Takes the signals over; Python allows that in the main thread only."""
        with contextlib.suppress(ValueError):
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._catch)

    def _catch(self, number: int, frame: object) -> None:
        # The other processes of a training wait for rank 0, which saves and then ends them all.
        if self.session.rank == 0:
            self.caught = signal.Signals(number)
            # A second one ends the process at once.
            self.release()

    def release(self) -> None:
        """Gives the signals back."""
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}

    def on_train_batch_end(self, step: int, logs: dict | None = None) -> None:
        """Saves when it is time, where the gradients of an update are complete."""
        session = self.session
        updated = session.step % session.settings.accumulate == 0 or session.step == session.loader.steps
        due = time.monotonic() - self.saved >= session.settings.save_every_minutes * 60
        if updated and (self.caught or due):
            session.save(self.model.network)
            self.saved = time.monotonic()
            self._leave()

    def on_eval_end(self, logs: dict | None = None) -> None:
        """The epoch has just been saved."""
        self.saved = time.monotonic()
        self._leave()

    def _leave(self) -> None:
        if self.caught:
            session = self.session
            print(
                f"{self.caught.name}: {session.run.path} is saved at epoch {session.epoch}, step {session.step}; "
                "go on with `python train.py resume=true` and the same settings",
                file=sys.stderr,
            )
            raise SystemExit(128 + self.caught)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Gives the signals back."""
        self.release()


class Board(paddle.callbacks.Callback):
    """Writes for VisualDL: scores, rate and speed in training, scores and recalls by epoch, sample pictures."""

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
                self.writer.add_image(f"train/picture {index + 1}", image.transpose(1, 2, 0), 0)

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
        entries, _ = read_split(settings, "valid")
        # With several processes this one has a part of the answers only, in another order.
        if len(entries) != len(logits):
            return
        labels, answers = np.array([entry.label for entry in entries]), metrics.probabilities(logits)
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
                image = transform(read_image(entries[place].file, settings.max_pixels))
                self.writer.add_image(f"valid/surest mistake {rank}", image.transpose(1, 2, 0), epoch)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Closes the file."""
        self.writer.close()


def callbacks(session: Session, class_names: list[str], recall: Recall) -> list[paddle.callbacks.Callback]:
    """Lists what fit calls, in order.

    The rate moves after all that note it, and before the Keeper, so that a saved rate is that of the next step.
    """
    rate = paddle.callbacks.LRScheduler(by_step=True)
    if session.rank:
        return [Steps(session), Divergence(session), Recorder(session), rate, Keeper(session)]
    progress = Progress(session)
    board = Board(session.run.path / "vdl", session, class_names, recall, _show_batch(session, class_names))
    return [Steps(session), Divergence(session), progress, board, Recorder(session, progress), rate, Keeper(session)]


def _show_batch(session: Session, class_names: list[str]) -> np.ndarray:
    """Draws the first batch of a new run as the network sees it, into augmented.png."""
    loader, file = session.loader, session.run.path / "augmented.png"
    loader.epoch = loader.dataset.epoch = 1
    images, labels = loader.collate(0, loader.batches()[0][:SHOWN])
    if not file.exists():
        shown = [Image.fromarray(image.transpose(1, 2, 0)) for image in images]
        plots.grid(shown, [_caption(label, class_names) for label in labels], file)
    return images


def _caption(label: np.ndarray, class_names: list[str]) -> str:
    """The class, or the classes a mixed picture is made of with their shares."""
    if label.ndim == 0:
        return class_names[label]
    return ", ".join(f"{class_names[index]} {label[index]:.0%}" for index in np.argsort(-label)[:2] if label[index] > 0)


def write_summary(network: Classifier, settings: Settings, path: str | os.PathLike) -> None:
    """Writes paddle.summary's table of layers, sizes and weights to a file."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        paddle.summary(network.network, (1, *settings.image_shape))
    write_text(path, text.getvalue())
