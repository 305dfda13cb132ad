"""Where a training stands, and how it is saved and taken up again."""

from dataset import BatchLoader
from models.checkpoint import BEST, LAST, Run
from models.networks import Classifier
from system import machine
from system.errors import UserError
from system.settings import Settings
from training import optim
from training.running_metrics import Mean


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
        self.rank, self.processes = machine.rank()
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
        optim.settle(self.optimizer)
        self.epoch, self.step = state["epoch"] + 1, state["step"]
        self.best, self.started = state["best"], state["sums"]
