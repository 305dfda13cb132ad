"""The figures of a report: PNG files, and their panels for the page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluation import cells, curves, metrics, plots
from evaluation.predictions import Predictions


def draw(predictions: Predictions, report: Mapping[str, Any], folder: Path) -> dict[str, list[bytes]]:
    """Writes confusion.png, ranking.png, reliability.png and coverage.png; removes an old one that no longer applies.

    Returns:
        PNGs by the name of the figure, one a panel; none where a figure does not apply.
    """
    plots.confusion(report["confusion_matrix"], predictions.class_names, folder / "confusion.png")
    panels = {"ranking": _ranking(predictions, report), "reliability": _reliability(predictions)}
    for name, drawn in panels.items():
        if drawn:
            cells.beside(drawn, folder / f"{name}.png")
        else:
            (folder / f"{name}.png").unlink(missing_ok=True)
    confidence = report["confidence"]
    point = (confidence["coverage"], confidence["accuracy_of_answered"])
    shown = predictions.threshold is not None and point[1] is not None
    curve = curves.coverage_curve(predictions.confidences, predictions.correct)
    plots.coverage(curve, point if shown else None, folder / "coverage.png")
    return panels | {name: [(folder / f"{name}.png").read_bytes()] for name in ("confusion", "coverage")}


def _ranking(predictions: Predictions, report: Mapping[str, Any]) -> list[bytes]:
    """ROC and precision-recall curves; nothing where the labels are of one class only."""
    if report["macro"]["roc_auc"] is None:
        return []
    probabilities, labels, scores = predictions.probabilities, predictions.labels, _ranking_scores(report)
    found = {
        "roc_auc": curves.roc_curves(probabilities, labels),
        "average_precision": curves.precision_recall_curves(probabilities, labels),
    }
    return [plots.ranking(name, found[name], scores[name], predictions.class_names) for name in found]


def _reliability(predictions: Predictions) -> list[bytes]:
    uncalibrated = metrics.probabilities(predictions.logits).max(axis=1)
    drawn = [plots.reliability("as trained", curves.reliability(uncalibrated, predictions.correct))]
    if predictions.temperature != 1:
        calibrated = curves.reliability(predictions.confidences, predictions.correct)
        drawn.append(plots.reliability("calibrated", calibrated))
    return drawn


def _ranking_scores(report: Mapping[str, Any]) -> dict[str, dict[int | str, float]]:
    """Ranking scores of a report in the form of curves.ranking_scores."""
    return {
        name: {index: row[name] for index, row in enumerate(report["classes"])}
        | {average: report[average][name] for average in curves.AVERAGES}
        for name in ("roc_auc", "average_precision")
    }
