"""The files of an evaluation or a comparison: JSON, tables, figures, and one HTML page."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluation import comparison, comparison_page, figures, label_errors, report_page
from evaluation.evaluator import Evaluation
from system.errors import UserError
from system.publishing import write_text


def write_evaluation(evaluation: Evaluation, folder: Path, command: str) -> None:
    """Writes metrics.json, predictions.tsv, suspects.tsv, the figures and report.html.

    Args:
        evaluation: What is reported.
        folder: Created if missing.
        command: The command line that the page shows.

    Raises:
        UserError: The folder cannot be written to.
    """
    predictions = evaluation.predictions
    _make_folder(folder)
    _write_json(folder / "metrics.json", evaluation.report)
    write_text(folder / "predictions.tsv", predictions.table())
    write_text(folder / "suspects.tsv", label_errors.table(evaluation.suspects, predictions.class_names))
    panels = figures.draw(predictions, evaluation.report, folder)
    write_text(folder / "report.html", report_page.render(evaluation, panels, command))


def write_comparison(found: comparison.Comparison, folder: Path, command: str) -> None:
    """Writes comparison.json, comparison.html and, for two runs, disagreements.tsv.

    Args:
        found: What is reported.
        folder: Created if missing.
        command: The command line that the page shows.

    Raises:
        UserError: The folder cannot be written to.
    """
    _make_folder(folder)
    _write_json(folder / "comparison.json", found.content)
    if len(found.predictions) == 2:
        (first, second), runs = found.predictions, found.content["runs"]
        table = comparison.table(first, second, (runs[0]["run"], runs[1]["run"]))
        write_text(folder / "disagreements.tsv", table)
    else:
        (folder / "disagreements.tsv").unlink(missing_ok=True)
    write_text(folder / "comparison.html", comparison_page.render(found, command))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be created ({error.strerror}); name another folder with --out") from None


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
