"""The run folder: the only reader and writer of a run's weights, settings and state."""

import csv
import io
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import paddle

import config
from annotation.lists import LABELS, read_labels
from models.classifier import Classifier
from models.compatibility import check_labels, check_resumable
from models.networks import construct
from models.pretrained import load_strictly
from models.weights_files import read_weights
from system.errors import UserError
from system.files import file_digest
from system.publishing import finish_publishing, publishing, write_text
from system.settings import Settings

BEST, LAST = "best", "last"
CALIBRATION = "calibration.json"


class Stateful(Protocol):
    """What takes a saved state back: an optimizer, a moving average of weights."""

    def set_state_dict(self, state: dict[str, Any]) -> Any:
        """Replaces the state."""


def _first_files(settings: Settings, class_names: list[str]) -> dict[str, str]:
    return {"config.yaml": config.as_yaml(settings), LABELS: "".join(f"{name}\n" for name in class_names)}


class Run:
    """A folder `output/NAME/` that describes itself: settings, label map, weights, state and history.

    Attributes:
        path: The folder.
        was_removed: True if the folder has gone during a training, and was made again.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.was_removed = False
        # Content by name of the files that a training writes first.
        self._first: dict[str, str] = {}
        # A training that was killed while replacing the run's files has left all the new ones on the disk.
        finish_publishing(self.path)

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.path.resolve().name

    @property
    def state(self) -> dict[str, Any]:
        """Epoch and step reached, the best epoch, whether training has finished; empty before anything was saved.

        Raises:
            UserError: state.json is damaged.
        """
        file = self.path / "state.json"
        try:
            content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        except (ValueError, RecursionError):
            raise UserError(f"{file}: this is not JSON; train the run again") from None
        if not isinstance(content, dict):
            raise UserError(f"{file}: this is no state of a training; train the run again")
        return content

    @property
    def calibration(self) -> dict[str, Any]:
        """What evaluate.py fitted to these weights: `temperature` (above 0), `threshold` (0..1, or None), and how.

        Empty before the run was evaluated, and after more training has changed the weights. Setting it writes
        calibration.json with the digest of the weights it belongs to.

        Raises:
            UserError: calibration.json is damaged.
        """
        file = self.path / CALIBRATION
        if not file.is_file():
            return {}
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            fitted_for, temperature, threshold = (content[key] for key in ("weights", "temperature", "threshold"))
            is_valid = temperature > 0 and (threshold is None or 0 <= threshold <= 1)
        except (ValueError, KeyError, TypeError, RecursionError):
            is_valid = False
        if not is_valid:
            raise UserError(f"{file}: this is no calibration; run `python evaluate.py {self.path}` again") from None
        return content if fitted_for == self.fingerprint() else {}

    @calibration.setter
    def calibration(self, content: dict[str, Any]) -> None:
        text = json.dumps({**content, "weights": self.fingerprint()}, indent=2)
        write_text(self.path / CALIBRATION, text + "\n")

    @property
    def temperature(self) -> float:
        """Divisor of the logits before the softmax; 1 before the run was evaluated."""
        return float(self.calibration.get("temperature", 1.0))

    @property
    def threshold(self) -> float | None:
        """Images whose highest probability is below it are rejected as none of the classes; None: none is rejected."""
        return self.calibration.get("threshold")

    def fingerprint(self) -> str:
        """SHA-256 of the weights that later commands use, in hexadecimal."""
        return file_digest(self.path / f"{self.weights_kind()}.pdparams")

    @property
    def settings(self) -> Settings:
        """The settings that the run was trained with."""
        return config.load(base=self.file("config.yaml"))

    @property
    def class_names(self) -> list[str]:
        """The label map that the run was trained with."""
        return read_labels(self.file(LABELS))

    def file(self, name: str) -> Path:
        """Returns the path of one of the run's files.

        Raises:
            UserError: The file is missing.
        """
        if not (self.path / name).is_file():
            raise UserError(f"{self.path}: this is no run, {name} is missing; name a folder that train.py made")
        return self.path / name

    @classmethod
    def create(cls, settings: Settings, class_names: list[str]) -> "Run":
        """Creates the folder of a new run.

        Raises:
            UserError: A run of that name has been trained already and settings.overwrite is false.
        """
        run = cls(settings.run)
        old = run._old_entries()
        if not settings.overwrite and (run.state or any(entry.suffix == ".pdparams" for entry in old)):
            raise UserError(f"{run.path}: a run of this name exists; use another run_name=NAME, or overwrite=true")
        run._first = _first_files(settings, class_names)
        # Together, so that a run killed at any moment can be resumed or overwritten.
        with publishing(run.path, "choose another output_dir") as publication:
            for entry in old:
                if not entry.is_dir() or entry.is_symlink():
                    publication.remove(entry.name)
            for name, text in run._first.items():
                publication.open(name).write(text)
        for entry in old:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
        return run

    @classmethod
    def reopen(cls, settings: Settings, class_names: list[str]) -> "Run":
        """Opens the run of the settings to resume its training.

        Raises:
            UserError: The run was trained with other settings or classes.
        """
        run = cls(settings.run)
        check_labels(run, class_names, settings.lists / LABELS)
        check_resumable(run.settings, settings, run.path)
        run._first = _first_files(settings, class_names)
        config.save(settings, run.path / "config.yaml")
        return run

    def _old_entries(self) -> list[Path]:
        """Lists what is in the folder of a run that is to be overwritten; hidden files are no part of a run.

        Raises:
            UserError: The folder is no run: output_dir=. must not cost anybody a folder.
        """
        try:
            entries = [entry for entry in sorted(self.path.iterdir()) if not entry.name.startswith(".")]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error.strerror}); choose another output_dir") from None
        # Both files, for the project's own folder holds a config.yaml too.
        is_run = all((self.path / name).is_file() for name in ("config.yaml", LABELS))
        if entries and not is_run:
            raise UserError(f"{self.path}: this folder is no run, so it is not overwritten; choose another run_name")
        return entries

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
            weights: State dicts by kind (BEST, LAST), for best.pdparams and last.pdparams.
            optimizer: State dict, for last.pdopt.
            average: State dict of the moving average, for last.pdema.
            state: For state.json.
            row: One epoch, appended to history.csv; the first row decides the columns.

        Raises:
            UserError: The disk is full or may not be written to; the run stays as it was.
        """
        binary: dict[str, Mapping | None] = {f"{kind}.pdparams": content for kind, content in (weights or {}).items()}
        binary |= {"last.pdopt": optimizer, "last.pdema": average}
        missing = {name: text for name, text in self._first.items() if not (self.path / name).is_file()}
        self.was_removed |= bool(missing)
        with publishing(self.path, f"free some space, or mend the rights of {self.path}") as publication:
            for name, content in binary.items():
                if content is not None:
                    paddle.save(content, publication.open(name).name)
            if row is not None:
                publication.open("history.csv").write(self._history_with(row))
            if state is not None:
                publication.open("state.json").write(json.dumps(state, indent=2) + "\n")
            for name, text in missing.items():
                publication.open(name).write(text)

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

    def restore(self, classifier: Classifier, optimizer: Stateful, average: Stateful | None = None) -> None:
        """Loads last.pdparams, last.pdopt (with the schedule) and last.pdema into a training.

        Raises:
            UserError: A file is missing or damaged.
        """
        file = self.file("last.pdparams")
        load_strictly(classifier.network, read_weights(file), str(file), head=set())
        optimizer.set_state_dict(read_weights(self.file("last.pdopt")))
        if average is not None:
            average.set_state_dict(read_weights(self.file("last.pdema")))

    def history(self) -> dict[str, list[float]]:
        """Reads history.csv: one value per epoch, by the name of the column.

        Raises:
            UserError: It is damaged.
        """
        file = self.file("history.csv")
        try:
            with open(file, encoding="utf-8", newline="") as handle:
                rows = list(csv.DictReader(handle))
            return {key: [float(row[key]) for row in rows] for key in (rows[0] if rows else ())}
        except (ValueError, TypeError, csv.Error):
            raise UserError(f"{file}: this is no history of a training; train the run again") from None

    def weights_kind(self) -> str:
        """Returns which weights later commands use: best, or last where no epoch was ever validated.

        Raises:
            UserError: There are none.
        """
        for kind in (BEST, LAST):
            if (self.path / f"{kind}.pdparams").is_file():
                return kind
        self.file("config.yaml")
        raise UserError(f"{self.path}: the run has no weights yet; train it with `python train.py`")

    def load_network(self) -> Classifier:
        """Builds the run's network with its best weights, in eval mode.

        Raises:
            UserError: The run has no weights, or they are not this network's.
        """
        file = self.file(f"{self.weights_kind()}.pdparams")
        settings, class_names = self.settings, self.class_names
        network = construct(settings.network, len(class_names), settings.image_shape)
        load_strictly(network, read_weights(file), str(file), head=set())
        classifier = Classifier(network, settings.mean, settings.std)
        classifier.eval()
        return classifier
