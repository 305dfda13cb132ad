"""Makes report.html: one file that opens without a network."""

import hashlib
import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import paddle

from evaluation import metrics, mistakes
from evaluation.label_errors import Suspect
from evaluation.predictions import Answers
from evaluation.predictors import RunModel, read_images
from evaluation.thumbnails import Thumbnails, embed
from inference.predictor import NONE_OF_THESE
from system import machine

SUREST, CLASSES, PAIRS, EXAMPLES, SUSPECTS = 12, 24, 10, 4, 18
PACKAGES = ("numpy", "pillow", "scikit-learn", "cleanlab")


@dataclass(frozen=True)
class Content:
    """What a page is made from.

    Attributes:
        report: Content of metrics.json.
        answers: To the images of the split.
        suspects: Over all lists looked at, the most doubtful first.
        looked_at: How each list was looked at for suspects, in words.
        folder: Where the figures stand and the page goes.
        command: The command line that made it.
    """

    report: dict[str, Any]
    answers: Answers
    suspects: Sequence[Suspect]
    looked_at: Sequence[str]
    folder: Path
    command: str


@cache
def environment() -> jinja2.Environment:
    """Templates of this folder, and how they write numbers."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    made.filters["number"] = lambda value: f"{value:,}"
    made.filters["three"] = lambda value: "–" if value is None else f"{value:.3f}"
    made.filters["percent"] = percent
    made.filters["span"] = lambda ends: f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f} %"
    return made


def percent(share: float | None) -> str:
    """Writes a share as a percentage with one decimal."""
    return "–" if share is None else f"{100 * share:.1f} %"


def render(content: Content, model: Any) -> str:
    """Draws the page.

    Args:
        model: report.models.RunModel, which explains its mistakes, or ExportModel.

    Returns:
        HTML with every image, style and script inside.
    """
    report, answers = content.report, content.answers
    thumbnails = Thumbnails(model.transform, model.settings.max_pixels)
    surest = mistakes.surest(answers, SUREST)
    explained = isinstance(model, RunModel)
    heat = _heat(model, answers, surest) if explained and surest else [None] * len(surest)
    wrong_classes = len(np.unique(answers.labels[~answers.correct]))
    figures = {name: content.folder / f"{name}.png" for name in ("confusion", "ranking", "reliability", "coverage")}
    return (
        environment()
        .get_template("report.html")
        .render(
            report=report,
            made=datetime.now().strftime("%Y-%m-%d %H:%M"),
            figures={name: embed(file) if file.is_file() else "" for name, file in figures.items()},
            confusion_width=min(72, 1.6 * len(answers.class_names) + 24),
            reliability_width=66 if report["confidence"]["temperature"] != 1 else 33,
            taken_for=_taken_for(report),
            pairs=[_pair(pair, answers, thumbnails) for pair in mistakes.confused_pairs(answers, PAIRS, EXAMPLES)],
            surest=[_tile(place, answers, thumbnails, map_) for place, map_ in zip(surest, heat, strict=True)],
            explained=explained,
            worst=[_tile(place, answers, thumbnails) for place in mistakes.worst_of_classes(answers, CLASSES)],
            wrong_classes=wrong_classes,
            calibration_said=_calibration_said(report),
            rejection_said=_rejection_said(report),
            none_of_these=NONE_OF_THESE,
            suspects_said=_suspects_said(content),
            suspects=[_suspect(one, answers.class_names, thumbnails) for one in content.suspects[:SUSPECTS]],
            commands=_commands(content, model),
            settings=model.described(),
            versions=_versions(model, content),
            resamples=metrics.RESAMPLES,
            bins=metrics.BINS,
        )
    )


def _heat(model: RunModel, answers: Answers, places: list[int]) -> np.ndarray:
    images = read_images([answers.samples[i] for i in places], model.transform, model.settings.max_pixels)
    return model.explain(images, answers.predictions[places])


def _tile(place: int, answers: Answers, thumbnails: Thumbnails, heat: np.ndarray | None = None) -> dict[str, Any]:
    sample, names = answers.samples[place], answers.class_names
    return {
        "path": sample.path,
        "image": thumbnails.plain(sample),
        "overlay": "" if heat is None else thumbnails.heated(sample, heat),
        "prediction": names[answers.predictions[place]],
        "confidence": answers.confidences[place],
        "label": names[sample.label],
        "label_confidence": answers.probabilities[place, sample.label],
    }


def _pair(pair: mistakes.Pair, answers: Answers, thumbnails: Thumbnails) -> dict[str, Any]:
    samples = [answers.samples[place] for place in pair.examples]
    return {
        "label": answers.class_names[pair.label],
        "prediction": answers.class_names[pair.prediction],
        "count": pair.count,
        "share": pair.share,
        "images": [(thumbnails.plain(sample), sample.path) for sample in samples],
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


def _taken_for(report: Mapping[str, Any]) -> list[str]:
    """For each class the other one it is answered as most often, with the number."""
    counts, names = np.array(report["confusion_matrix"]), [row["name"] for row in report["classes"]]
    np.fill_diagonal(counts, 0)
    return [f"{names[int(row.argmax())]} ({row.max()})" if row.max() else "" for row in counts]


def _calibration_said(report: Mapping[str, Any]) -> str:
    told, before, after = report["confidence"], report["confidence"]["before"], report["confidence"]["after"]
    if told["temperature"] == 1:
        return (
            f"The network's probabilities are used as they are: mean confidence {percent(after['mean_confidence'])}, "
            f"accuracy {percent(report['accuracy'])}."
        )
    tendency = "over" if told["temperature"] > 1 else "under"
    return (
        f"As trained, the network was {tendency}confident: mean confidence {percent(before['mean_confidence'])} at an "
        f"accuracy of {percent(report['accuracy'])}. A temperature of {told['temperature']:.3f}, fitted on the valid "
        f"images, makes it {percent(after['mean_confidence'])}; log loss {before['log_loss']:.3f} becomes "
        f"{after['log_loss']:.3f}. No prediction changes."
    )


def _rejection_said(report: Mapping[str, Any]) -> str:
    told = report["confidence"]
    if told["threshold"] is None:
        return "No threshold is set: every image is answered with a class."
    return (
        f'An image whose highest probability is below {told["threshold"]:.3f} is answered "{NONE_OF_THESE}". '
        f"Of these images {percent(told['coverage'])} are answered, {percent(told['accuracy_of_answered'])} of them "
        f"right (all of them: {percent(report['accuracy'])})."
    )


def _suspects_said(content: Content) -> str:
    how = "; ".join(content.looked_at)
    if not how:
        return "No list was looked at: the network has learned these images with their labels."
    found = f"{len(content.suspects)} labels are doubted" if content.suspects else "No label is doubted"
    first = f", the first {SUSPECTS} are here" if len(content.suspects) > SUSPECTS else ""
    return (
        f"{found}{first}; suspects.tsv has them all. Looked at: {how}. "
        "A suspect is a question, not a verdict: a weak network doubts many good labels."
    )


def _commands(content: Content, model: Any) -> list[str]:
    again = [f"python train.py --config {shlex.quote(str(model.path / 'config.yaml'))} run_name={model.name}-again"]
    return [*(again if isinstance(model, RunModel) else []), content.command]


def _versions(model: Any, content: Content) -> dict[str, str]:
    rows = "".join(f"{sample.path}\t{sample.label}\n" for sample in content.answers.samples)
    listed = hashlib.sha256(rows.encode()).hexdigest()[:16]
    return {
        "weights": model.weights,
        "python": platform.python_version(),
        "paddle": paddle.__version__,
        **{name: version(name) for name in PACKAGES},
        "machine": f"{platform.machine()}, {machine.describe(model.settings, 'cpu')}",
        f"{content.report['split']} list": f"sha256 {listed}…",
    }
