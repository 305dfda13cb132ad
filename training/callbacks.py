"""What fit calls after each step and epoch: order of images, progress, divergence, history, saving."""

import contextlib
import math
import signal
import sys
import time

import numpy as np
import paddle
from tqdm import tqdm

from evaluation import plots
from system.errors import UserError
from training import optim
from training.running_metrics import Mean, Recall
from training.session import Session


class Steps(paddle.callbacks.Callback):
    """Counts epochs and steps, and lets everything that is drawn depend on seed, epoch and step alone."""

    def __init__(self, session: Session):
        super().__init__()
        self.session = session
        self.first = True
        sizes, group = session.loader.sizes(), session.settings.accumulate
        # Images of all the batches, in all the processes, that make one update with a step.
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
            trained = [weight for weight in self.model.network.parameters() if not weight.stop_gradient]
            if optim.unfreeze(self.model.network) and session.processes > 1:
                self._exchange_all_but(trained)

    def _exchange_all_but(self, known: list[paddle.Tensor]) -> None:
        """Lets the processes exchange the gradients of weights that paddle did not know as trained at the start.

        It decides on that when it wraps the network; a second wrapper exchanges what the first one does not.
        """
        adapter = self.model._adapter
        for weight in known:
            weight.stop_gradient = True
        adapter.ddp_model = paddle.DataParallel(adapter.ddp_model)
        for weight in known:
            weight.stop_gradient = False

    def on_train_batch_begin(self, step: int, logs: dict | None = None) -> None:
        """Seeds dropout, and gives the batch its share of the update: the mean over all its images."""
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
    """A progress bar with images/s and time left; one line an epoch where nobody watches."""

    def __init__(self, session: Session):
        super().__init__()
        self.session = session

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Called by fit; its epoch counts from 0."""
        session = self.session
        sizes = session.loader.sizes()
        self.title = f"epoch {session.epoch}/{session.settings.epochs}"
        self.total, done = sum(sizes), sum(sizes[: session.step])
        self.bar = tqdm(unit=" images", desc=self.title, leave=False, disable=None, total=self.total, initial=done)
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
        speed = f", {self.progress.speed:.0f} images/s" if self.progress else ""
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
