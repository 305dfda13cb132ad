"""Callbacks of `paddle.Model.fit`: step tracking, progress, divergence, history, checkpoints."""

import math
import signal
import sys
import time

import numpy as np
import paddle

from evaluation import plots
from system.errors import UserError
from system.progress import bar
from training import optim, overview
from training.running_metrics import MeanMetric, Recall
from training.selection import is_better
from training.session import Session
from training.visualdl import VisualDLWriter


def make_callbacks(
    session: Session, class_names: list[str], recall: Recall, valid_labels: np.ndarray
) -> list[paddle.callbacks.Callback]:
    """Lists the callbacks of a training in the order in which fit calls them.

    The learning rate is stepped after all that record it, and before StepCheckpoint, so that a saved learning rate is
    that of the next step. Callbacks of your own may stand anywhere.
    """
    tracker, terminate = StepTracker(session), TerminateOnNaN(session)
    step_lr, save = paddle.callbacks.LRScheduler(by_step=True), StepCheckpoint(session)
    if session.rank:
        return [tracker, terminate, EpochCheckpoint(session), step_lr, save]
    progress = ProgressBar(session)
    images = overview.draw_first_batch(session, class_names)
    visualdl = VisualDLWriter(session, class_names, recall, images, valid_labels)
    return [tracker, terminate, progress, visualdl, EpochCheckpoint(session, progress), step_lr, save]


class StepTracker(paddle.callbacks.Callback):
    """Counts epochs and steps, and makes everything random depend on seed, epoch and step alone."""

    def __init__(self, session: Session):
        super().__init__()
        self.session = session
        self.first = True
        sizes, group = session.loader.sizes(), session.settings.accumulate
        # Images of all batches, in all processes, that form one update with a step.
        self.sizes, self.groups = sizes, [sum(sizes[i - i % group :][:group]) for i in range(len(sizes))]

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Called by fit, whose own count of epochs starts at 0 again when a run is resumed."""
        session = self.session
        if not self.first:
            session.epoch, session.step, session.partial_sums = session.epoch + 1, 0, {}
        self.first = False
        session.metrics = [metric for metric in self.model._metrics if isinstance(metric, MeanMetric)]
        session.loader.epoch, session.loader.first_step = session.epoch, session.step
        for metric in session.metrics:
            metric.reset()
            if metric.name() in session.partial_sums:
                total, count = session.partial_sums[metric.name()]
                metric.total, metric.count = total, int(count)
        if session.settings.freeze and session.epoch >= session.settings.unfreeze_epoch > 0:
            trained = [weight for weight in self.model.network.parameters() if not weight.stop_gradient]
            if optim.unfreeze(self.model.network) and session.processes > 1:
                self._exchange_all_but(trained)

    def _exchange_all_but(self, known: list[paddle.Tensor]) -> None:
        """Makes the processes exchange the gradients of weights that were frozen when the training started.

        Paddle decides which gradients to exchange when it wraps the network; a second wrapper exchanges the others.
        """
        adapter = self.model._adapter
        for weight in known:
            weight.stop_gradient = True
        adapter.ddp_model = paddle.DataParallel(adapter.ddp_model)
        for weight in known:
            weight.stop_gradient = False

    def on_train_batch_begin(self, step: int, logs: dict | None = None) -> None:
        """Seeds dropout, and weights the batch so that an update is the mean over all its images."""
        session = self.session
        # Resuming within an epoch then needs no generator state, and each process drops other units.
        paddle.seed(_step_seed(session.settings.seed, session.epoch, session.step, session.rank))
        if session.processes > 1 or session.settings.accumulate > 1:
            here = len(range(session.rank, self.sizes[session.step], session.processes))
            self.model._loss.share = here * session.processes / self.groups[session.step]

    def on_train_batch_end(self, step: int, logs: dict | None = None) -> None:
        """Counts the step."""
        session = self.session
        session.step += 1
        if session.ema and session.updated:
            session.ema.update()

    def on_eval_begin(self, logs: dict | None = None) -> None:
        """Puts the averaged weights in place, the same ones in every process."""
        self.model._loss.share = 1.0
        self._count_recalls(True)
        if self.session.ema:
            self.session.ema.swap()
        if self.session.processes > 1:
            # Running statistics of batch norm differ between processes; those of rank 0 are the ones that are saved.
            for buffer in self.model.network.buffers():
                paddle.distributed.broadcast(buffer, src=0)

    def on_eval_end(self, logs: dict | None = None) -> None:
        """Puts the trained weights back."""
        self._count_recalls(False)
        if self.session.ema:
            self.session.ema.swap()

    def _count_recalls(self, active: bool) -> None:
        for metric in self.model._metrics:
            if isinstance(metric, Recall):
                metric.active = active


def _step_seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


class TerminateOnNaN(paddle.callbacks.Callback):
    """Stops a training whose loss is infinite or NaN."""

    def __init__(self, session: Session):
        super().__init__()
        self.session = session

    def on_train_batch_end(self, step: int, logs: dict) -> None:
        """Raises UserError if the loss of the step is not finite."""
        loss = logs["loss"][0] if isinstance(logs["loss"], list) else logs["loss"]
        if not math.isfinite(loss):
            raise UserError(
                f"train.py: the loss is {loss} at step {self.session.step} of epoch {self.session.epoch}; "
                "lower learning_rate, raise warmup_epochs or set clip_norm=1; the last good epoch is kept"
            )


class ProgressBar(paddle.callbacks.Callback):
    """Progress bar with images/s and time left.

    Attributes:
        images_per_second: Training speed of the last epoch.
    """

    def __init__(self, session: Session):
        super().__init__()
        self.session = session

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Called by fit; its epoch counts from 0."""
        session = self.session
        sizes = session.loader.sizes()
        title, total, done = f"epoch {session.epoch}/{session.settings.epochs}", sum(sizes), sum(sizes[: session.step])
        self.bar = bar(total, "images", title, done)
        self.started, self.remaining = time.monotonic(), total - done

    def on_train_batch_end(self, step: int, logs: dict) -> None:
        """Advances the bar."""
        self.bar.update(logs["batch_size"])
        self.bar.set_postfix(loss=f"{logs['mean_loss']:.3f}", accuracy=f"{logs['accuracy']:.3f}", refresh=False)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Stops the clock before the validation."""
        self.bar.close()
        self.images_per_second = self.remaining / max(time.monotonic() - self.started, 1e-9)


class EpochCheckpoint(paddle.callbacks.Callback):
    """Saves each epoch: history, curves, last and best weights, state; stops early when patience runs out."""

    def __init__(self, session: Session, progress: ProgressBar | None = None):
        super().__init__()
        self.session, self.progress = session, progress

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Called by fit; its epoch counts from 0."""
        session = self.session
        first = (session.epoch - 1) * session.loader.steps
        learning_rate = session.schedule.base_lr * session.schedule.factor(first)
        self.row: dict[str, float] = {"epoch": session.epoch, "learning_rate": learning_rate}
        self.sums = dict(session.partial_sums)

    def on_train_batch_end(self, step: int, logs: dict | None = None) -> None:
        """Keeps the training metrics so far: fit resets them before the epoch ends."""
        self.sums = self.session.metric_sums()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Records the epoch's training metrics over all processes."""
        sums = np.asarray([self.sums["mean_loss"], self.sums["accuracy"]], np.float64)
        if self.session.processes > 1:
            gathered = paddle.to_tensor(sums)
            paddle.distributed.all_reduce(gathered)
            sums = gathered.numpy()
        loss, accuracy = (sums[:, 0] / sums[:, 1]).tolist()
        self.row |= {"train_loss": loss, "train_accuracy": accuracy}

    def on_eval_end(self, logs: dict) -> None:
        """Saves the epoch."""
        session, settings = self.session, self.session.settings
        self.row |= {"valid_loss": logs["mean_loss"], "valid_accuracy": logs["accuracy"]}
        improved = not session.best or is_better(self.row, session.best, settings.monitor)
        if improved:
            session.best = dict(self.row)
        session.schedule.step_epoch(improved)
        out_of_patience = bool(settings.patience) and session.epochs_since_best >= settings.patience
        self.model.stop_training = out_of_patience
        session.save_epoch(self.model.network, self.row, improved, out_of_patience or session.epochs_left == 1)
        if session.rank == 0:
            plots.curves(session.run.history(), session.run.path / "curves.png", session.best["epoch"])
            self._print_epoch(out_of_patience)

    def _print_epoch(self, out_of_patience: bool) -> None:
        session, row = self.session, self.row
        scores = ", ".join(
            f"{split} loss {row[f'{split}_loss']:.4f} accuracy {row[f'{split}_accuracy']:.4f}"
            for split in ("train", "valid")
        )
        speed = f", {self.progress.images_per_second:.0f} images/s" if self.progress else ""
        print(f"epoch {session.epoch}/{session.settings.epochs}: {scores}{speed}", flush=True)
        if out_of_patience:
            print(
                f"stopped early: valid {session.settings.monitor} has not improved for "
                f"{session.epochs_since_best} epochs"
            )


class StepCheckpoint(paddle.callbacks.Callback):
    """Saves within an epoch: every save_every_minutes, and before a signal ends the training (see signals.py).

    Attributes:
        last_saved: Time of the last checkpoint, on the monotonic clock.
    """

    def __init__(self, session: Session):
        super().__init__()
        self.session = session
        self.last_saved = time.monotonic()

    def on_train_batch_end(self, step: int, logs: dict | None = None) -> None:
        """Saves when it is time, and only where the gradients of an update are complete."""
        session = self.session
        due = time.monotonic() - self.last_saved >= session.settings.save_every_minutes * 60
        if session.updated and (session.interrupted_by or due):
            session.save(self.model.network)
            self._after_saving()

    def on_eval_end(self, logs: dict | None = None) -> None:
        """Called when EpochCheckpoint has just saved the epoch."""
        self._after_saving()

    def _after_saving(self) -> None:
        """Notes the time, and exits if a signal asked for it.

        Raises:
            KeyboardInterrupt: The signal was SIGINT: Ctrl-C, or a notebook's stop button.
            SystemExit: For another one, 128 + its number, as shells report it.
        """
        self.last_saved = time.monotonic()
        session = self.session
        if session.interrupted_by:
            advice = (
                f"{session.interrupted_by.name}: {session.run.path} is saved at epoch {session.epoch}, step "
                f"{session.step}; resume it with resume=true and the same settings"
            )
            if session.interrupted_by == signal.SIGINT:
                raise KeyboardInterrupt(advice)
            print(advice, file=sys.stderr)
            raise SystemExit(128 + session.interrupted_by)
