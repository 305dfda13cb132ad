"""Training state: data, optimizer, progress; saving and restoring it."""

import signal
import sys
from collections.abc import Mapping
from types import MappingProxyType

import paddle

from dataset import BatchLoader
from models.checkpoint import BEST, LAST, Run
from models.classifier import Classifier
from system import machine
from system.errors import UserError
from system.settings import Settings
from training.optim import ExponentialMovingAverage, Schedule, attach_moments
from training.running_metrics import MeanMetric

# Keys of state.json that have to be what they were when a run is resumed, as messages name them.
FIXED = {"steps_per_epoch": "steps per epoch", "pictures": "images"}


class Session:
    """A training in progress: what it works on and how far it is.

    Attributes:
        epoch: The current epoch, from 1.
        step: Steps of it that are done.
        best: The row of history.csv of the best epoch; empty before the first epoch has ended.
        partial_sums: Metric sums and counts of the steps of the current epoch that ran before an interruption.
        metrics: The metrics that `fit` updates.
        lists: Digest of the list of each split.
        interrupted_by: The signal that asked for the end of the training.
    """

    def __init__(
        self,
        settings: Settings,
        run: Run,
        loader: BatchLoader,
        optimizer: paddle.optimizer.Optimizer,
        ema: ExponentialMovingAverage | None = None,
        lists: Mapping[str, str] = MappingProxyType({}),
    ):
        self.lists = dict(lists)
        self.settings, self.run, self.loader, self.optimizer, self.ema = settings, run, loader, optimizer, ema
        self.schedule: Schedule = optimizer._learning_rate
        self.rank, self.processes = machine.rank()
        self.epoch, self.step = 1, 0
        self.best: dict[str, float] = {}
        self.partial_sums: dict[str, list[float]] = {}
        self.metrics: list[MeanMetric] = []
        self.interrupted_by: signal.Signals | None = None

    @property
    def epochs_left(self) -> int:
        """Epochs still to train, the current one included."""
        return self.settings.epochs - self.epoch + 1

    @property
    def epochs_since_best(self) -> int:
        """Completed epochs since the best one."""
        return self.epoch - int(self.best["epoch"])

    @property
    def updated(self) -> bool:
        """Whether the last step completed an update of the weights (see `accumulate`)."""
        return self.step % self.settings.accumulate == 0 or self.step == self.loader.steps

    def metric_sums(self) -> dict[str, list[float]]:
        """Returns the sum and the count of each metric in the current epoch."""
        return {metric.name(): [metric.total, metric.count] for metric in self.metrics}

    def state(self, finished: bool, epoch_ended: bool) -> dict:
        """Returns the content of state.json.

        Args:
            finished: The training has ended.
            epoch_ended: The current epoch is complete, validation included.
        """
        best = {f"best_{key}": self.best[name] for key, name in
                (("epoch", "epoch"), ("accuracy", "valid_accuracy"), ("loss", "valid_loss")) if self.best}  # fmt: skip
        return {
            "epoch": self.epoch if epoch_ended else self.epoch - 1,
            "finished": finished,
            **best,
            "step": 0 if epoch_ended else self.step,
            **self._fixed(),
            "lists": self.lists,
            "threads": machine.threads(self.settings),
            "sums": {} if epoch_ended else self.metric_sums(),
            "best": self.best,
        }

    def _fixed(self) -> dict[str, int]:
        return {"steps_per_epoch": self.loader.steps, "pictures": len(self.loader.dataset)}

    def save(self, network: Classifier) -> None:
        """Saves a checkpoint within an epoch."""
        if self.rank == 0:
            weights = {LAST: network.network.state_dict()}
            self._save(weights, self.state(finished=False, epoch_ended=False))

    def save_epoch(self, network: Classifier, row: dict[str, float], improved: bool, finished: bool) -> None:
        """Saves a completed epoch; the best weights are the averaged ones if there is an EMA.

        Args:
            row: The epoch's row of history.csv.
        """
        if self.rank:
            return
        weights = {LAST: network.network.state_dict()}
        if improved:
            # Swapped back before the raw weights are written: state dicts hold the live tensors.
            weights[BEST] = self.ema.weights() if self.ema else weights[LAST]
        self._save(weights, self.state(finished, epoch_ended=True), row)

    def _save(self, weights: dict, state: dict, row: dict[str, float] | None = None) -> None:
        average = self.ema.state_dict() if self.ema else None
        self.run.save(weights, self.optimizer.state_dict(), average, state, row)

    def restore(self, network: Classifier) -> None:
        """Restores the checkpoint that was saved last.

        Raises:
            UserError: The lists or the number of processes have changed, or a file is torn.
        """
        state, fixed = self.run.state, self._fixed()
        changed = [
            f"{name} was {state.get(key)}, is {fixed[key]}"
            for key, name in FIXED.items()
            if state.get(key) != fixed[key]
        ]
        # Earlier releases kept no digests.
        before = state.get("lists", self.lists)
        changed += [f"{split}.txt has other rows" for split in self.lists if before.get(split) != self.lists[split]]
        if changed:
            raise UserError(
                f"{self.run.path}: {'; '.join(changed)}; resume with the same lists, batch_size and processes"
            )
        threads, earlier = machine.threads(self.settings), state.get("threads")
        # Sums are taken in another order with another number of threads.
        if self.rank == 0 and earlier not in (None, threads):
            print(
                f"{self.run.path}: trained with {earlier} threads, now with {threads}; weights will not be bit for bit "
                f"those of an uninterrupted run (threads={earlier} restores that)",
                file=sys.stderr,
            )
        self.run.restore(network, self.optimizer, self.ema)
        attach_moments(self.optimizer)
        self.epoch, self.step = state["epoch"] + 1, state["step"]
        self.best, self.partial_sums = state["best"], state["sums"]
