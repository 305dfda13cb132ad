"""Several runs on the same images: scored, compared, and told in one page."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from evaluation import comparison, comparison_page
from evaluation.predictions import Answers
from evaluation.predictors import RunModel
from evaluation.report import make_folder
from evaluation.scoring import answer
from models.checkpoint import Run
from system import machine
from system.errors import UserError
from system.files import write_text
from system.settings import Settings


def compare(
    runs: Sequence[Run], settings_of: Callable[[Run], Settings], split: str, folder: str | Path | None, command: str
) -> dict[str, Any]:
    """Scores two or more runs on the same images; see evaluate.compare."""
    answers: list[Answers] = []
    rows: list[dict[str, Any]] = []
    for run in runs:
        settings = settings_of(run)
        model = RunModel(run, settings)
        answers.append(answer(model, split, machine.select_device(settings)))
        _check_same(runs[0], answers[0], run, answers[-1])
        rows.append({"run": str(run.path), "remarks": model.remarks()} | comparison.scores(answers[-1]))
    target = Path(folder) if folder else runs[0].path.resolve().parent / "comparison"
    make_folder(target)
    told = {
        "split": split,
        "num_pictures": len(answers[0].labels),
        "runs": rows,
        "summary": comparison.summary(rows),
        "pair": comparison.compare(*answers, settings.seed) if len(runs) == 2 else None,
        "folder": str(target),
    }
    write_text(target / "comparison.json", json.dumps(told, indent=2, ensure_ascii=False) + "\n")
    if len(runs) == 2:
        names = (str(runs[0].path), str(runs[1].path))
        write_text(target / "disagreements.tsv", comparison.table(*answers, names))
    else:
        (target / "disagreements.tsv").unlink(missing_ok=True)
    page = comparison_page.render(told, answers, model.transform, settings.max_pixels, command)
    write_text(target / "comparison.html", page)
    return told


def _check_same(first: Run, answers: Answers, other: Run, others: Answers) -> None:
    """Makes sure that two runs were asked about the same images."""
    if answers.class_names != others.class_names:
        raise UserError(f"{other.path}: its classes are not those of {first.path}; compare runs of one label map")
    mine, theirs = ([(sample.path, sample.label) for sample in one.samples] for one in (answers, others))
    if mine != theirs:
        raise UserError(
            f"{other.path}: its {answers.split} list is not that of {first.path}; "
            "name one data set for all with data_dir=FOLDER"
        )
