"""Evaluation of a cross-validation: every image is predicted by the run that has not seen it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from annotation.lists import Sample
from evaluation import calibration, label_errors
from evaluation.evaluator import Evaluation
from evaluation.predictions import Predictions
from evaluation.predictors import RunModel
from evaluation.report import build_report
from evaluation.scoring import predict_split
from models.checkpoint import Run
from models.runs import FOLDS_FILE, run_settings
from system import machine
from system.errors import UserError
from system.text import counted


class FoldsModel:
    """The runs of a cross-validation together; see predictors.Evaluable."""

    weights, temperature = "best", 1.0
    threshold: float | None = None

    def __init__(self, folder: Path, first: RunModel, accuracies: Sequence[float]):
        self.path = self.report_folder = folder
        self.name, self.class_names = folder.resolve().name, first.class_names
        self.transform, self.settings = first.transform, first.settings
        self.accuracies = accuracies

    def logits(self, images: np.ndarray) -> np.ndarray:
        """There are as many as runs: predictions are made run by run."""
        raise NotImplementedError

    def remarks(self) -> list[str]:
        """See Evaluable."""
        values = np.array(self.accuracies)
        return [
            f"{len(values)} folds: every image was predicted by the run that has not seen it; accuracy by fold "
            f"{', '.join(f'{value:.4f}' for value in values)}, mean {values.mean():.4f}, standard deviation "
            f"{values.std(ddof=1):.4f}"
        ]

    def described(self) -> dict[str, Any]:
        """See Evaluable."""
        return self.settings.model_dump(mode="json")


def evaluate(folder: Path, overrides: Sequence[str]) -> Evaluation:
    """Predicts every image by the run that has not seen it, calibrated on the fold that chose that run's epoch.

    Raises:
        UserError: A fold is not trained yet, its lists are missing, or an image cannot be read.
    """
    count = json.loads((folder / FOLDS_FILE).read_text(encoding="utf-8"))["folds"]
    parts, models = [], []
    for number in range(1, count + 1):
        run = Run(folder / f"fold{number}")
        if not run.state.get("finished"):
            raise UserError(
                f"{run.path}: fold {number} of {count} is not trained yet; run train.py again with resume=true"
            )
        model = RunModel(run, run_settings(run, overrides))
        device = machine.select_device(model.settings)
        valid = predict_split(model, "valid", device)
        run.calibration = fitted = calibration.fit(valid.logits, valid.labels, model.settings)
        part = predict_split(model, "test", device)
        # One temperature a run: the scores of all of them are then of one scale.
        parts.append(replace(part, logits=part.logits / fitted["temperature"]))
        models.append(model)
    together = _together(parts)
    report = build_report(together, models[0].settings.seed)
    joined = FoldsModel(folder, models[0], [float(part.correct.mean()) for part in parts])
    suspects = label_errors.find("train and valid", together.samples, together.probabilities)
    header = {"run": joined.name, "split": "train and valid", "weights": joined.weights, "remarks": joined.remarks(),
              "suspects": len(suspects), "foreign": None, "before_corrections": None}  # fmt: skip
    searched = [f"train and valid ({counted(len(together.labels), 'image')}, each by a run that has not seen it)"]
    return Evaluation(joined, together, header | report, label_errors.merge([suspects]), searched)


def _together(parts: Sequence[Predictions]) -> Predictions:
    samples: list[Sample] = [sample for part in parts for sample in part.samples]
    logits = np.concatenate([part.logits for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    return Predictions("train and valid", samples, logits, labels, parts[0].class_names)
