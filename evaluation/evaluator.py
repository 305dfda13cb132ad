"""Evaluation of one model on one list: predictions, calibration, report and suspected label errors."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from annotation.lists import Sample, read_groups
from evaluation import calibration, corrections, label_errors, metrics
from evaluation.cross_validation import assign_folds, out_of_fold, possible_folds
from evaluation.predictions import Predictions
from evaluation.predictors import Evaluable, RunModel, folder_logits
from evaluation.report import build_report
from evaluation.scoring import predict_split, read_samples
from features.extraction import of_samples
from inference.sources import SkippedFiles
from system.errors import UserError
from system.text import counted

ByList = dict[str, Predictions]


@dataclass(frozen=True)
class Request:
    """What to evaluate.

    Attributes:
        split: The list: "train", "valid" or "test".
        out_of_distribution: Folder of images of none of the classes, to measure how many are rejected; None: skip it.
        train_suspects: Whether to search train for label errors too, which costs a pass over it.
        device: Device of the evaluation, "cpu" or "gpu:0".
    """

    split: str
    out_of_distribution: str | None
    train_suspects: bool
    device: str


@dataclass(frozen=True)
class Evaluation:
    """Everything that the report's files are written from.

    Attributes:
        model: What was evaluated.
        predictions: For the images of the list.
        report: Content of metrics.json.
        suspects: Suspected label errors of all lists searched, the most suspect first.
        searched: How each list was searched for label errors, in words.
    """

    model: Evaluable
    predictions: Predictions
    report: dict[str, Any]
    suspects: list[label_errors.Suspect]
    searched: list[str]


def evaluate_model(model: Evaluable, request: Request) -> Evaluation:
    """Evaluates a model on a list; of a run it also fits and saves the calibration.

    Raises:
        UserError: A list is missing or malformed, its label map is not the model's, or an image cannot be read.
    """
    folder = request.out_of_distribution
    if folder is not None and not Path(folder).is_dir():
        raise UserError(f"{folder}: no such folder; name a folder of out-of-distribution images")
    by_list, remarks = _predict(model, request)
    predictions = by_list[request.split]
    numbers = build_report(predictions, model.settings.seed)
    remarks += _gaps(numbers, request.split)
    rejection = None if folder is None else _rejection(model, predictions, folder, remarks)
    before = corrections.score_before(model, predictions, request.device)
    remarks += corrections.remarks(before, request.split, numbers["accuracy"])
    suspects, searched = _search(model, by_list, request, remarks)
    report = {
        "run": model.name,
        "split": request.split,
        "weights": model.weights,
        "remarks": remarks,
        "suspects": len(suspects),
        "foreign": rejection,
        "before_corrections": before,
    } | numbers
    return Evaluation(model, predictions, report, suspects, searched)


def _predict(model: Evaluable, request: Request) -> tuple[ByList, list[str]]:
    """Predictions of the requested list, and of valid where a run is calibrated on it, calibrated; and remarks."""
    by_list = {request.split: predict_split(model, request.split, request.device)}
    remarks = model.remarks()
    if isinstance(model, RunModel):
        if not (model.settings.lists / "valid.txt").is_file():
            remarks += [
                *_seen(request.split, model),
                "there is no valid.txt: nothing was calibrated, no threshold chosen",
            ]
            return by_list, remarks
        if "valid" not in by_list:
            by_list["valid"] = predict_split(model, "valid", request.device)
        remarks += [*_seen(request.split, model), *_calibrate(model, by_list["valid"], request.split)]
    calibrated = {
        name: replace(one, temperature=model.temperature, threshold=model.threshold) for name, one in by_list.items()
    }
    return calibrated, remarks


def _seen(split: str, model: RunModel) -> list[str]:
    if split == "train":
        return ["the network was trained on these images: these numbers say nothing about new ones"]
    if split == "valid":
        chosen = "the strength of the head's penalty" if "best_strength" in model.run.state else "the best epoch"
        return [f"{chosen} was chosen by these very images, so they look better than new ones"]
    return []


def _calibrate(model: RunModel, valid: Predictions, split: str) -> list[str]:
    """Fits temperature and threshold on valid, saves them with the run, and sets them on the model."""
    settings, remarks = model.settings, []
    fitted = calibration.fit(valid.logits, valid.labels, settings)
    model.run.calibration = fitted
    model.temperature, model.threshold = fitted["temperature"], fitted["threshold"]
    if fitted["threshold"] is None and settings.reject == "precision":
        remarks.append(f"no threshold reaches a precision of {settings.reject_target:.0%} on valid, so none is set")
    if split == "valid":
        remarks.append("temperature and threshold were fitted on these very images, so they look better than they are")
    return remarks


def _gaps(report: dict[str, Any], split: str) -> list[str]:
    """Remarks on classes without images, and on what is left out of the report because of them."""
    remarks, absent = [], report["absent_classes"]
    if absent:
        more = f" and {len(absent) - 10} more" if len(absent) > 10 else ""
        remarks.append(f"no image of {split} is of {', '.join(absent[:10])}{more}: averages are over the other classes")
    if report["macro"]["roc_auc"] is None:
        remarks.append("all images are of one class: ROC and precision-recall curves are left out")
    return remarks


def _rejection(model: Evaluable, predictions: Predictions, folder: str, remarks: list[str]) -> dict[str, Any]:
    """Measures how many out-of-distribution images are rejected."""
    skipped = SkippedFiles()
    logits, unreadable = folder_logits(model, folder, skipped)
    if not len(logits):
        raise UserError(f"{folder}: no image in this folder; name a folder of out-of-distribution images")
    if unreadable:
        remarks.append(f"{unreadable} files below {folder} could not be read and do not count")
    if str(skipped):
        remarks.append(f"{folder}: {skipped}")
    outside = metrics.probabilities(logits, predictions.temperature).max(axis=1)
    return {"folder": folder} | calibration.rejection_report(predictions.confidences, outside, predictions.threshold)


def _search(
    model: Evaluable, by_list: ByList, request: Request, remarks: list[str]
) -> tuple[list[label_errors.Suspect], list[str]]:
    """Searches the lists that the model was not trained on, and train if asked to, for label errors.

    Returns:
        The suspects, and how each list was searched, in words.
    """
    found, searched = [], []
    for name, predictions in by_list.items():
        if name != "train":
            found.append(label_errors.find(name, predictions.samples, predictions.probabilities))
            searched.append(
                f"{name} ({counted(len(predictions.labels), 'image')}, by the network, not trained on them)"
            )
    if request.train_suspects and isinstance(model, RunModel):
        samples, probabilities = _out_of_fold(model, request.device)
        if probabilities is None:
            remarks.append(
                "train was not searched for label errors: a class has fewer than two images, or is the only one"
            )
        else:
            found.append(label_errors.find("train", samples, probabilities))
            searched.append(
                f"train ({counted(len(samples), 'image')}, each by a linear head fitted on the others, over features "
                "of the network, which was trained on all of them: labels that it has memorised are missed)"
            )
    return label_errors.merge(found), searched


def _out_of_fold(model: RunModel, device: str) -> tuple[list[Sample], np.ndarray | None]:
    """Probabilities float [N, C] of the training images by heads that were fitted on others; None: too few images."""
    settings = model.settings
    samples = read_samples(model, "train")
    labels, groups = np.array([sample.label for sample in samples]), read_groups(settings, samples)
    count = possible_folds(labels, groups)
    if not count:
        return samples, None
    features = of_samples(model.extractor(device), samples, "train")
    folds = assign_folds(labels, groups, count, settings.seed)
    logits = out_of_fold(features, labels, len(model.class_names), folds)
    return samples, metrics.probabilities(logits)
