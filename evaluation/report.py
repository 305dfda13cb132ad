"""One model on one list: everything that is computed, written and drawn of it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from evaluation import calibration, label_errors, metrics, plots, report_page
from evaluation.predictions import Answers
from evaluation.predictors import ExportModel, RunModel, foreign_logits
from evaluation.scoring import answer, listed, score
from models.checkpoint import Run
from system.errors import UserError
from system.files import write_text

Model = RunModel | ExportModel


def calibrate(run: Run, model: RunModel, scored: dict[str, Answers], split: str, device: str) -> list[str]:
    """Fits temperature and threshold on valid, keeps them with the run, and lays them over what is scored.

    Args:
        scored: Answers by the name of their list; valid is added.
        split: The list that is reported.

    Returns:
        Remarks for the reader.
    """
    settings, remarks = model.settings, []
    if split == "train":
        remarks.append("the network has learned these images: these numbers do not tell how it does on new ones")
    if not (settings.lists / "valid.txt").is_file():
        return [*remarks, "there is no valid.txt, so nothing was calibrated and no threshold chosen"]
    if "valid" not in scored:
        scored["valid"] = answer(model, "valid", device)
    fitted = calibration.fit(scored["valid"].logits, scored["valid"].labels, settings)
    run.calibration = fitted
    if fitted["threshold"] is None and settings.reject == "precision":
        remarks.append(f"no threshold makes {settings.reject_target:.0%} of the answers on valid right, so none is set")
    if split == "valid":
        remarks.append("temperature and threshold were fitted on these very images, so they look better than they are")
    for name, answers in scored.items():
        scored[name] = replace(answers, temperature=fitted["temperature"], threshold=fitted["threshold"])
    return remarks


def tell(
    model: Model,
    scored: dict[str, Answers],
    split: str,
    folder: Path,
    remarks: list[str],
    foreign: str | None,
    train_suspects: bool,
    device: str,
    command: str,
) -> dict[str, Any]:
    """Computes the report of one list and writes its files into a folder; see evaluate.evaluate."""
    answers = scored[split]
    told = metrics.report(
        answers.logits, answers.labels, answers.class_names, answers.temperature, answers.threshold, model.settings.seed
    )
    remarks = [*remarks, *_gaps(told, split)]
    outside = _foreign(model, answers, foreign, remarks) if foreign else None
    found, looked_at = _suspects(model, scored, train_suspects, device, remarks)
    told = {
        "run": model.name,
        "split": split,
        "weights": model.weights,
        "remarks": remarks,
        "suspects": len(found),
        "foreign": outside,
    } | told
    make_folder(folder)
    write_text(folder / "metrics.json", json.dumps(told, indent=2, ensure_ascii=False) + "\n")
    write_text(folder / "predictions.tsv", answers.table())
    write_text(folder / "suspects.tsv", label_errors.table(found, answers.class_names))
    draw(answers, told, folder)
    content = report_page.Content(told, answers, found, looked_at, folder, command)
    write_text(folder / "report.html", report_page.render(content, model))
    return told


def make_folder(folder: Path) -> None:
    """Makes the folder that the files go into.

    Raises:
        UserError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror}); name another folder with --out") from None


def _gaps(told: dict[str, Any], split: str) -> list[str]:
    """Says what the list does not hold, and what is left out of the report therefore."""
    remarks, absent = [], told["absent_classes"]
    if absent:
        more = f" and {len(absent) - 10} more" if len(absent) > 10 else ""
        remarks.append(f"no image of {split} is of {', '.join(absent[:10])}{more}: averages are over the other classes")
    if told["macro"]["roc_auc"] is None:
        remarks.append("all images are of one class: ROC and precision-recall curves are left out")
    return remarks


def _foreign(model: Model, answers: Answers, folder: str, remarks: list[str]) -> dict[str, Any]:
    """Measures how many images of something else are turned away."""
    settings = model.settings
    logits, unreadable = foreign_logits(model, folder, settings.batch_size, settings.max_pixels)
    if not len(logits):
        raise UserError(f"{folder}: no image in this folder; name a folder of foreign images")
    if unreadable:
        remarks.append(f"{unreadable} files below {folder} could not be read and do not count")
    strange = metrics.probabilities(logits, answers.temperature).max(axis=1)
    return {"folder": folder} | calibration.foreign(answers.confidences, strange, answers.threshold)


def _suspects(
    model: Model, scored: dict[str, Answers], in_train: bool, device: str, remarks: list[str]
) -> tuple[list[label_errors.Suspect], list[str]]:
    """Looks for wrong labels wherever there are answers to images that were not learned; says where and how."""
    found, looked_at = [], []
    for name, answers in scored.items():
        if name != "train":
            found.append(label_errors.find(name, answers.samples, answers.probabilities))
            looked_at.append(f"{name} ({len(answers.labels)} images, by the network, which has not learned them)")
    if in_train:
        samples, loader = listed(model, "train", device)
        features, labels = score(model.features, loader, len(samples), "train")
        answers = label_errors.cross_validated(features, labels, len(model.class_names), model.settings.seed)
        if answers is None:
            remarks.append("train was not searched for suspects: a class has fewer than two images, or is the only one")
        else:
            found.append(label_errors.find("train", samples, answers))
            looked_at.append(
                f"train ({len(samples)} images, each by a linear head fitted on the others, over features of the "
                "network, which has learned them all: labels that it has memorised are missed)"
            )
    return label_errors.merge(found), looked_at


def draw(answers: Answers, told: dict[str, Any], folder: Path) -> None:
    """Draws the figures into a folder; an older one that does not apply any more is removed."""
    names, probabilities = answers.class_names, answers.probabilities
    plots.confusion(told["confusion_matrix"], names, folder / "confusion.png")
    if told["macro"]["roc_auc"] is None:
        (folder / "ranking.png").unlink(missing_ok=True)
    else:
        roc = metrics.roc_points(probabilities, answers.labels)
        precision_recall = metrics.precision_recall_points(probabilities, answers.labels)
        scores = _by_index(told)
        plots.ranking(roc, precision_recall, scores, names, folder / "ranking.png")
    before = metrics.probabilities(answers.logits).max(axis=1)
    panels = {"as trained": metrics.reliability(before, answers.correct)}
    if answers.temperature != 1:
        panels["calibrated"] = metrics.reliability(answers.confidences, answers.correct)
    plots.reliability(panels, folder / "reliability.png")
    confidence = told["confidence"]
    point = (confidence["coverage"], confidence["accuracy_of_answered"])
    shown = answers.threshold is not None and point[1] is not None
    curve = metrics.coverage_curve(answers.confidences, answers.correct)
    plots.coverage(curve, point if shown else None, folder / "coverage.png")


def _by_index(told: dict[str, Any]) -> dict[str, dict[int | str, float]]:
    """Ranking scores of a report, as metrics.ranking_scores gives them."""
    return {
        name: {index: row[name] for index, row in enumerate(told["classes"])}
        | {average: told[average][name] for average in ("macro", "weighted", "micro")}
        for name in ("roc_auc", "average_precision")
    }


def target_of(model: Model, folder: str | Path | None) -> Path:
    """Where files go: the folder asked for, the run's own, or `evaluation` in that of an exported model."""
    if folder is not None:
        return Path(folder)
    return model.path if isinstance(model, RunModel) else model.path / "evaluation"
