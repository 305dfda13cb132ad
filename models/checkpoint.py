"""The run folder: the only code that reads or writes a run's weights, settings and state."""

import csv
import io
import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import paddle

import config
from annotation.lists import LABELS, read_labels
from config import known_keys, look_up
from models import networks
from system.errors import UserError, problems
from system.files import file_digest, finish_publishing, publishing, write_text
from system.settings import CHANGEABLE, Settings

BEST, LAST = "best", "last"
# What may differ from the interrupted run when it is resumed: how long and how safely it goes on, and the machine.
RESUMABLE = (CHANGEABLE - {"data_dir", "lists_dir", "batch_size", "max_pixels"}) | {
    "epochs", "patience", "overwrite", "resume", "save_every_minutes", "run_name",
}  # fmt: skip
CALIBRATION = "calibration.json"


class Run:
    """A folder `output/NAME/` that describes itself: settings, label map, weights, state and history.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        # A training that was killed while its files took their places has them all on the disk.
        finish_publishing(self.path)

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
    def calibration(self) -> dict[str, Any]:
        """What evaluate.py fitted for these weights: `temperature` (above 0) and `threshold` (0..1, or None), and how.

        Empty before the run was evaluated, and after more training has changed those weights. Setting it writes
        calibration.json and notes the weights it belongs to.

        Raises:
            UserError: calibration.json is torn.
        """
        file = self.path / CALIBRATION
        if not file.is_file():
            return {}
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            fitted_for, temperature, threshold = (content[key] for key in ("weights", "temperature", "threshold"))
            sound = temperature > 0 and (threshold is None or 0 <= threshold <= 1)
        except (ValueError, KeyError, TypeError):
            sound = False
        if not sound:
            raise UserError(f"{file}: this is no calibration; run `python evaluate.py {self.path}` anew") from None
        return content if fitted_for == self.fingerprint() else {}

    @calibration.setter
    def calibration(self, content: dict[str, Any]) -> None:
        text = json.dumps({**content, "weights": self.fingerprint()}, indent=2)
        write_text(self.path / CALIBRATION, text + "\n")

    @property
    def temperature(self) -> float:
        """What logits are divided by before the softmax; 1 before the run was evaluated."""
        return float(self.calibration.get("temperature", 1.0))

    @property
    def threshold(self) -> float | None:
        """Highest probability below which an image is none of the classes; None: every image is one of them."""
        return self.calibration.get("threshold")

    def fingerprint(self) -> str:
        """SHA-256 of the weights that stand for the run."""
        return file_digest(self.path / f"{self.weights_kind()}.pdparams")

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

    @classmethod
    def reopen(cls, settings: Settings, class_names: list[str]) -> "Run":
        """Opens the run of the settings to train it further.

        Raises:
            UserError: The run was trained with other settings or classes.
        """
        run = cls(settings.run)
        check_labels(run, class_names, settings.lists / LABELS)
        old, new = run.settings.model_dump(), settings.model_dump()
        changed = [
            f"{key} was {look_up(old, key)}, is {look_up(new, key)}"
            for key in known_keys()
            if key not in RESUMABLE and look_up(old, key) != look_up(new, key)
        ]
        if changed:
            raise problems(str(run.path), changed, "resume with the run's settings, or train under another run_name")
        config.save(settings, run.path / "config.yaml")
        return run

    def _clear(self) -> None:
        # Both files, for the project's own folder holds a config.yaml too.
        is_run = all((self.path / name).is_file() for name in ("config.yaml", LABELS))
        if not is_run and any(self.path.iterdir()):
            raise UserError(f"{self.path}: this folder is no run, so it is not overwritten; choose another run_name")
        shutil.rmtree(self.path)

    def save(
        self,
        weights: Mapping[str, Mapping] | None = None,
        optimizer: Mapping | None = None,
        average: Mapping | None = None,
        state: Mapping[str, Any] | None = None,
        row: Mapping[str, float] | None = None,
    ) -> None:
        """Replaces files of the run together: killed at any moment, the run has all the old ones or all the new ones.

        Args:
            weights: Weights by kind, for best.pdparams and last.pdparams.
            optimizer: For last.pdopt.
            average: For last.pdema.
            state: For state.json.
            row: One epoch, added to history.csv; the first row decides the columns.

        Raises:
            UserError: The disk is full or may not be written to; the run stays as it was.
        """
        binary = {f"{kind}.pdparams": content for kind, content in (weights or {}).items()}
        binary |= {"last.pdopt": optimizer, "last.pdema": average}
        try:
            with publishing(self.path) as new:
                for name, content in binary.items():
                    if content is not None:
                        paddle.save(content, new(name).name)
                if row is not None:
                    new("history.csv").write(self._history_with(row))
                if state is not None:
                    new("state.json").write(json.dumps(state, indent=2) + "\n")
        except UserError as error:
            told = str(error).rpartition(";")[0]
            raise UserError(f"{told}; free some space, or mend the rights of {self.path}") from None

    def save_weights(self, kind: str, network: networks.Classifier) -> None:
        """Replaces best.pdparams or last.pdparams, whole or not at all."""
        self.save(weights={kind: network.network.state_dict()})

    def save_state(self, **state: Any) -> None:
        """Replaces state.json: epoch reached, best epoch and score, whether the run has ended."""
        self.save(state=state)

    def append_history(self, row: dict[str, float]) -> None:
        """Adds one epoch to history.csv; the first row decides the columns."""
        self.save(row=row)

    def _history_with(self, row: Mapping[str, float]) -> str:
        file = self.path / "history.csv"
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, row.keys(), lineterminator="\n")
        if file.exists():
            text.write(file.read_text(encoding="utf-8"))
        else:
            writer.writeheader()
        writer.writerow({key: f"{value:.6g}" for key, value in row.items()})
        return text.getvalue()

    def restore(self, network: networks.Classifier, optimizer: paddle.optimizer.Optimizer, average: Any = None) -> None:
        """Takes last.pdparams, last.pdopt (with the schedule) and last.pdema into a training.

        Raises:
            UserError: A file is missing or torn.
        """
        file = self._needed("last.pdparams")
        networks.load_strictly(network.network, networks.read_weights(file), str(file), head=set())
        optimizer.set_state_dict(networks.read_weights(self._needed("last.pdopt")))
        if average is not None:
            average.set_state_dict(networks.read_weights(self._needed("last.pdema")))

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
    at = next(
        (i for i, (a, b) in enumerate(zip(own, class_names, strict=False)) if a != b), min(len(own), len(class_names))
    )
    mine = own[at] if at < len(own) else "nothing"
    theirs = class_names[at] if at < len(class_names) else "nothing"
    raise UserError(
        f"{where}: class {at} is {theirs}, but {run.path} was trained with {mine}; "
        f"restore the labels.txt of the run or train anew"
    )


def run_settings(run: Run, overrides: Iterable[str]) -> Settings:
    """Reads a run's own settings and lays the changeable overrides over them.

    Raises:
        UserError: An override would change what the network is or sees.
    """
    overrides = list(overrides)
    keys = {argument.partition("=")[0].lower() for argument in overrides}
    fixed = sorted(keys - CHANGEABLE & set(known_keys()))
    if fixed:
        raise UserError(f"{fixed[0]}: this belongs to the run {run.path} and cannot be changed now; train anew with it")
    return config.load(base=run.path / "config.yaml", overrides=overrides)


def open_run(path: str | None, output_dir: str | os.PathLike, overrides: Iterable[str]) -> tuple[Run, Settings]:
    """Finds the run that a command line names, or the one trained last, and says which; and reads its settings.

    Args:
        path: The run's folder; None: the run of output_dir that was trained last.
        overrides: `key=value` arguments, laid over the run's settings.

    Raises:
        UserError: There is no such run, or an override would change what the network is or sees.
    """
    run = find(path, output_dir)
    if path is None:
        print(f"run: {run.path} (the one trained last)", file=sys.stderr)
    return run, run_settings(run, overrides)
