"""report.html: the report of one evaluation in one file that opens offline."""

import hashlib
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from evaluation import curves, metrics, mistakes
from evaluation.evaluator import Evaluation
from evaluation.label_errors import Suspect
from evaluation.predictions import Predictions
from evaluation.predictors import Evaluable, RunModel, read_images
from evaluation.thumbnails import Thumbnails, embed
from inference.ranking import NONE_OF_THESE
from system import machine
from system.language import counted, translate
from system.pages import templates
from system.pages.templates import percent
from system.windows import quoted

# How many are shown: mistakes, classes with their worst mistake, confused pairs and examples of each, suspects.
MISTAKES, CLASSES, PAIRS, EXAMPLES, SUSPECTS = 12, 24, 10, 4, 18
PACKAGES = ("numpy", "pillow", "scikit-learn", "cleanlab")


def render(evaluation: Evaluation, panels: Mapping[str, Sequence[bytes]], command: str) -> str:
    """Renders the page.

    Args:
        evaluation: What is reported.
        panels: PNGs of figures.draw.
        command: The command line to show.

    Returns:
        HTML with every image, style and script inside.
    """
    report, predictions, model = evaluation.report, evaluation.predictions, evaluation.model
    # A run's, drawn while it was trained; exports and cross-validations have none.
    training = Path(model.path) / "curves.png"
    panels = {**panels, "curves": [training.read_bytes()] if training.is_file() else []}
    return templates.render(
        Path(__file__).parent / "report.html",
        report=report,
        created=datetime.now().strftime("%Y-%m-%d %H:%M"),
        headline=_headline(report),
        figures={name: [embed(panel) for panel in drawn] for name, drawn in panels.items()},
        confusion_least=min(40, 1.7 * len(predictions.class_names) + 8),
        confusion_width=min(72, 1.6 * len(predictions.class_names) + 24),
        mistaken_for=_mistaken_for(report),
        **_mistakes(model, predictions),
        calibration=_calibration_text(report),
        rejection=_rejection_text(report),
        none_of_these=NONE_OF_THESE,
        **_suspects(evaluation),
        commands=_commands(model, command),
        settings=model.described(),
        versions=_versions(evaluation),
        resamples=metrics.RESAMPLES,
        bins=curves.BINS,
    )


def _headline(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """The tiles of the metrics: label, value and interval."""
    tiles = []
    for name, one in metrics.informative(report["num_classes"]).items():
        low, high = report["intervals"][name]
        interval = (
            translate("{low:.1f} to {high:.1f} %", low=100 * low, high=100 * high)
            if one.percent
            else translate("{low:.3f} to {high:.3f}", low=low, high=high)
        )
        value = percent(report[name]) if one.percent else f"{report[name]:.3f}"
        tiles.append({"label": one.title(report["top_k"]), "value": value, "interval": interval})
    return tiles


def _mistakes(model: Evaluable, predictions: Predictions) -> dict[str, Any]:
    """Template values of the section on mistakes, and of the most confused pairs."""
    thumbnails = Thumbnails(model.transform, model.settings.max_pixels)
    rows = mistakes.most_confident(predictions, MISTAKES)
    explained = isinstance(model, RunModel)
    heat = _heat(model, predictions, rows) if isinstance(model, RunModel) and rows else [None] * len(rows)
    worst = mistakes.worst_of_classes(predictions, len(predictions.class_names), without=rows)
    pairs = mistakes.confused_pairs(predictions, PAIRS, EXAMPLES)
    return {
        "most_confident": [_tile(row, predictions, thumbnails, map_) for row, map_ in zip(rows, heat, strict=True)],
        "explained": explained,
        "worst": [_tile(row, predictions, thumbnails) for row in worst[:CLASSES]],
        "wrong_classes": len(worst),
        "pairs": [_pair(pair, predictions, thumbnails) for pair in pairs],
    }


def _heat(model: RunModel, predictions: Predictions, rows: Sequence[int]) -> np.ndarray:
    images = read_images([predictions.samples[row] for row in rows], model)
    return model.explain(images, predictions.predicted[rows])


def _tile(row: int, predictions: Predictions, thumbnails: Thumbnails, heat: np.ndarray | None = None) -> dict[str, Any]:
    sample, names = predictions.samples[row], predictions.class_names
    return {
        "path": sample.path,
        "image": thumbnails.plain(sample),
        "overlay": "" if heat is None else thumbnails.heated(sample, heat),
        "prediction": names[predictions.predicted[row]],
        "confidence": predictions.confidences[row],
        "label": names[sample.label],
        "label_confidence": predictions.probabilities[row, sample.label],
    }


def _pair(pair: mistakes.Pair, predictions: Predictions, thumbnails: Thumbnails) -> dict[str, Any]:
    samples = [predictions.samples[row] for row in pair.examples]
    return {
        "label": predictions.class_names[pair.label],
        "prediction": predictions.class_names[pair.predicted],
        "count": pair.count,
        "share": pair.share,
        "images": [(thumbnails.plain(sample), sample.path) for sample in samples],
    }


def _suspects(evaluation: Evaluation) -> dict[str, Any]:
    """Template values of the section on suspected label errors."""
    model, names = evaluation.model, evaluation.predictions.class_names
    thumbnails = Thumbnails(model.transform, model.settings.max_pixels)
    return {
        "suspects": [_suspect(one, names, thumbnails) for one in evaluation.suspects[:SUSPECTS]],
        "suspects_text": _suspects_text(evaluation),
    }


def _suspect(one: Suspect, class_names: Sequence[str], thumbnails: Thumbnails) -> dict[str, Any]:
    return {
        "path": one.sample.path,
        "split": one.split,
        "image": thumbnails.plain(one.sample),
        "label": class_names[one.sample.label],
        "suggested": class_names[one.suggested],
        "confidence": one.suggested_probability,
    }


def _suspects_text(evaluation: Evaluation) -> str:
    if not evaluation.searched:
        return translate("No list was searched: the network was trained on these images with their labels.")
    count = len(evaluation.suspects)
    found = counted(count, "suspected label error") if count else translate("No label error is suspected")
    first = translate(", of which the first {count} are shown", count=SUSPECTS) if count > SUSPECTS else ""
    return translate(
        "{found}{first}; suspects.tsv lists all. Searched: {searched}. "
        "Check each by eye: a weak network suspects many correct labels.",
        found=found,
        first=first,
        searched="; ".join(evaluation.searched),
    )


def _mistaken_for(report: Mapping[str, Any]) -> list[str]:
    """For each class the other class it is predicted as most often, with the count."""
    counts, names = np.array(report["confusion_matrix"]), [row["name"] for row in report["classes"]]
    np.fill_diagonal(counts, 0)
    return [f"{names[int(row.argmax())]} ({row.max()})" if row.max() else "" for row in counts]


def _calibration_text(report: Mapping[str, Any]) -> str:
    confidence = report["confidence"]
    before, after, accuracy = confidence["before"], confidence["after"], percent(report["accuracy"])
    if confidence["temperature"] == 1:
        return translate(
            "The network's probabilities are used as they are: mean confidence {confidence}, accuracy {accuracy}.",
            confidence=percent(after["mean_confidence"]),
            accuracy=accuracy,
        )
    return translate(
        "As trained, the network was {tendency}: mean confidence {before} at an accuracy of {accuracy}. A temperature "
        "of {temperature:.3f}, fitted on the valid images, changes it to {after}, and the log loss from "
        "{loss_before:.3f} to {loss_after:.3f}. No prediction changes.",
        tendency=translate("overconfident" if confidence["temperature"] > 1 else "underconfident"),
        before=percent(before["mean_confidence"]),
        accuracy=accuracy,
        temperature=confidence["temperature"],
        after=percent(after["mean_confidence"]),
        loss_before=before["log_loss"],
        loss_after=after["log_loss"],
    )


def _rejection_text(report: Mapping[str, Any]) -> str:
    confidence = report["confidence"]
    if confidence["threshold"] is None:
        return translate("No threshold is set: no image is rejected.")
    return translate(
        'Images whose highest probability is below {threshold:.3f} are rejected as "{name}". Coverage: {coverage} of '
        "these images are accepted, with an accuracy of {accepted} (all images: {accuracy}).",
        threshold=confidence["threshold"],
        name=NONE_OF_THESE,
        coverage=percent(confidence["coverage"]),
        accepted=percent(confidence["accuracy_of_answered"]),
        accuracy=percent(report["accuracy"]),
    )


def _commands(model: Evaluable, command: str) -> list[str]:
    settings = ["--config", str(model.path / "config.yaml"), f"run_name={model.name}-again"]
    again = [quoted(["python", "train.py", *settings])]
    return [*(again if isinstance(model, RunModel) else []), command]


def _versions(evaluation: Evaluation) -> dict[str, str]:
    model = evaluation.model
    rows = "".join(f"{sample.path}\t{sample.label}\n" for sample in evaluation.predictions.samples)
    digest = hashlib.sha256(rows.encode()).hexdigest()[:16]
    return {
        "weights": model.weights,
        "python": platform.python_version(),
        "paddle": paddle.__version__,
        **{name: version(name) for name in PACKAGES},
        "machine": f"{platform.machine()}, {machine.describe(model.settings, 'cpu')}",
        f"{evaluation.report['split']} list": f"sha256 {digest}…",
    }
