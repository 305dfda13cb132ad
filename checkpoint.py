"""The run folder: the only code that reads or writes a run's weights, settings and state."""

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import paddle

import config
import networks
from config import Settings, UserError
from lists import LABELS, read_labels, write_text

BEST, LAST = "best", "last"


class Run:
    """A folder `output/NAME/` that describes itself: settings, label map, weights, state and history.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.path.resolve().name

    @property
    def state(self) -> dict[str, Any]:
        """What `save_state` wrote last; empty before the first epoch has ended.

        Raises:
            UserError: state.json is torn.
        """
        file = self.path / "state.json"
        try:
            return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        except ValueError:
            raise UserError(f"{file}: this is not JSON; train the run anew") from None

    @property
    def settings(self) -> Settings:
        """The settings that the run was trained with."""
        return config.load(base=self._needed("config.yaml"))

    @property
    def class_names(self) -> list[str]:
        """The label map that the run was trained with."""
        return read_labels(self._needed(LABELS))

    def _needed(self, name: str) -> Path:
        if not (self.path / name).is_file():
            raise UserError(f"{self.path}: this is no run, {name} is missing; name a folder that train.py made")
        return self.path / name

    @classmethod
    def create(cls, settings: Settings, class_names: list[str]) -> "Run":
        """Makes the folder of a new run.

        Raises:
            UserError: A run of that name has trained already and settings.overwrite is false.
        """
        run = cls(settings.run)
        if run.path.exists():
            if not settings.overwrite and (run.state or any(run.path.glob("*.pdparams"))):
                raise UserError(f"{run.path}: a run of this name exists; use another run_name=NAME, or overwrite=true")
            # Only what a run holds is removed: output_dir=. must not cost anybody a folder.
            run._clear()
        try:
            run.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{run.path}: cannot be made ({error.strerror}); choose another output_dir") from None
        config.save(settings, run.path / "config.yaml")
        write_text(run.path / LABELS, "".join(f"{name}\n" for name in class_names))
        return run

    def _clear(self) -> None:
        if not (self.path / "config.yaml").is_file() and any(self.path.iterdir()):
            raise UserError(f"{self.path}: this folder is no run, so it is not overwritten; choose another run_name")
        shutil.rmtree(self.path)

    def save_weights(self, kind: str, network: networks.Classifier) -> None:
        """Replaces best.pdparams or last.pdparams, whole or not at all."""
        _save(network.network.state_dict(), self.path / f"{kind}.pdparams")

    def save_optimizer(self, optimizer: paddle.optimizer.Optimizer) -> None:
        """Replaces last.pdopt, whole or not at all."""
        _save(optimizer.state_dict(), self.path / "last.pdopt")

    def save_state(self, **state: Any) -> None:
        """Replaces state.json: epoch reached, best epoch and score, whether the run has ended."""
        write_text(self.path / "state.json", json.dumps(state, indent=2) + "\n")

    def append_history(self, row: dict[str, float]) -> None:
        """Adds one epoch to history.csv; the first row decides the columns."""
        file = self.path / "history.csv"
        new = not file.exists()
        with open(file, "a", encoding="utf-8", newline="") as handle:
            writer = csv.DictWriter(handle, row.keys())
            if new:
                writer.writeheader()
            writer.writerow({key: f"{value:.6g}" for key, value in row.items()})

    def history(self) -> dict[str, list[float]]:
        """Reads history.csv as columns."""
        with open(self._needed("history.csv"), encoding="utf-8", newline="") as handle:
            rows = list(csv.DictReader(handle))
        return {key: [float(row[key]) for row in rows] for key in (rows[0] if rows else ())}

    def weights_kind(self) -> str:
        """Tells which weights stand for the run: best, or last where no epoch was ever scored.

        Raises:
            UserError: There are none.
        """
        for kind in (BEST, LAST):
            if (self.path / f"{kind}.pdparams").is_file():
                return kind
        self._needed("config.yaml")
        raise UserError(f"{self.path}: the run has no weights yet; train it with `python train.py`")

    def load_network(self) -> networks.Classifier:
        """Builds the run's network with its best weights, in eval mode.

        Raises:
            UserError: The run has no weights, or they are not this network's.
        """
        file = self.path / f"{self.weights_kind()}.pdparams"
        settings, class_names = self.settings, self.class_names
        network = networks.construct(settings.network, len(class_names), settings.image_shape)
        networks.load_strictly(network, networks.read_weights(file), str(file), head=set())
        classifier = networks.Classifier(network, settings.mean, settings.std)
        classifier.eval()
        return classifier


def _save(content: dict, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        paddle.save(content, str(temporary))
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); free some space or mend the rights") from None
    finally:
        temporary.unlink(missing_ok=True)


def find(path: str | os.PathLike | None, output_dir: str | os.PathLike) -> Run:
    """Finds a run: the folder named, or the one of output_dir that was trained last.

    Raises:
        UserError: There is no such folder, or no run at all.
    """
    if path is not None:
        if not Path(path).is_dir():
            raise UserError(f"{path}: no such folder; name a run{_offer(output_dir)}")
        run = Run(path)
        run._needed("config.yaml")
        return run
    runs = _runs(output_dir)
    if not runs:
        raise UserError(f"{output_dir}: there is no run yet; train one with `python train.py`")
    return runs[-1]


def _runs(output_dir: str | os.PathLike) -> list[Run]:
    """Lists runs that have weights, the one trained last at the end."""
    found = [
        (max(file.stat().st_mtime_ns for file in weights), folder)
        for folder in (Path(output_dir).iterdir() if Path(output_dir).is_dir() else ())
        if (folder / "config.yaml").is_file() and (weights := list(folder.glob("*.pdparams")))
    ]
    return [Run(folder) for _, folder in sorted(found)]


def _offer(output_dir: str | os.PathLike) -> str:
    names = [str(run.path) for run in _runs(output_dir)]
    return f", one of {', '.join(names)}" if names else " that train.py made"


def check_labels(run: Run, class_names: list[str], where: str | os.PathLike) -> None:
    """Compares the label map of the data with the run's.

    Raises:
        UserError: They differ; the message names the first difference.
    """
    own = run.class_names
    if own == class_names:
        return
    at = next((i for i, (a, b) in enumerate(zip(own, class_names, strict=False)) if a != b), min(len(own), len(class_names)))
    mine = own[at] if at < len(own) else "nothing"
    theirs = class_names[at] if at < len(class_names) else "nothing"
    raise UserError(
        f"{where}: class {at} is {theirs}, but {run.path} was trained with {mine}; "
        f"restore the labels.txt of the run or train anew"
    )
