"""Evaluates a trained run, or an exported model, on a list: metrics, calibration, mistakes, and a report page.

With several runs it compares them on the same images.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import config
from system import cli, machine
from system.settings import Settings
from system.text import counted
from system.windows import quoted

if TYPE_CHECKING:
    from inference.predictor import ExportedModel
    from models.checkpoint import Run


def main() -> None:
    """Command line of evaluate.py."""
    arguments, overrides, names = parse()
    command = quoted(["python", "evaluate.py", *sys.argv[1:]])
    settings = config.load(arguments.config, overrides)
    machine.prepare(settings)
    from evaluation import terminal
    from inference.predictor import ExportedModel
    from models.runs import find_run, is_cross_validated, open_run

    if len(names) > 1:
        runs = [find_run(name, settings.output_dir) for name in names]
        comparison = compare(runs, overrides, arguments.split, arguments.out, command)
        print(terminal.comparison_text(comparison))
        print_remarks({row["run"]: row["remarks"] for row in comparison["runs"]})
        print(f"look at: {Path(comparison['folder']) / 'comparison.html'}")
        return
    if names and is_cross_validated(names[0]):
        print_report(evaluate_folds(names[0], overrides, arguments.out, command))
        return
    evaluated: Run | ExportedModel
    if arguments.model:
        # What `auto` takes depends on the machine, and a report should not.
        engine = "onednn" if settings.engine == "auto" else settings.engine
        evaluated = ExportedModel(arguments.model, machine.select_device(settings), machine.threads(settings), engine)
    else:
        evaluated, settings = open_run(names[0] if names else None, settings.output_dir, overrides)
    report = evaluate(
        evaluated, settings, arguments.split, arguments.foreign, arguments.train_suspects, arguments.out, command
    )
    print_report(report)
    if not arguments.model:
        name = quoted([str(evaluated.path)])
        print(f"next: python predict.py IMAGE --run {name}, or python export.py {name}")


def parse() -> tuple[argparse.Namespace, list[str], list[str]]:
    """Reads the command line.

    Returns:
        Options, settings, and the names of runs.
    """
    parser = cli.parser(__doc__)
    parser.add_argument(
        "arguments",
        nargs="*",
        metavar="RUN|KEY=VALUE",
        help="run folder (by default the one trained last), several to compare them, and settings",
    )
    parser.add_argument("--split", default="test", choices=("train", "valid", "test"), help="list to evaluate (test)")
    parser.add_argument("--model", metavar="FOLDER", help="evaluate a model that export.py made instead of a run")
    parser.add_argument("--foreign", metavar="FOLDER", help="out-of-distribution images: measure how many are rejected")
    parser.add_argument("--train-suspects", action="store_true", help="search train for label errors too")
    parser.add_argument("--out", metavar="FOLDER", help="where the files go (the run's folder)")
    arguments = parser.parse_intermixed_args()
    overrides, names = cli.split_overrides(arguments.arguments)
    if arguments.model and (names or arguments.train_suspects):
        parser.error("--model takes neither runs nor --train-suspects")
    if len(names) > 1 and (arguments.foreign or arguments.train_suspects):
        parser.error("--foreign and --train-suspects take one run at a time")
    return arguments, overrides, names


def evaluate(
    run: "Run | ExportedModel",
    settings: Settings,
    split: str = "test",
    foreign: str | None = None,
    train_suspects: bool = False,
    folder: str | Path | None = None,
    command: str = "python evaluate.py",
) -> dict[str, Any]:
    """Evaluates a run or an exported model on one split and writes the report into a folder.

    The folder then holds metrics.json, predictions.tsv, suspects.tsv, the figures and report.html; the run
    calibration.json, fitted on its valid images, which predict.py and export.py use.

    Args:
        run: A run or an exported model.
        settings: The run's settings with overrides, or for an exported model where the lists are.
        split: "train", "valid" or "test".
        foreign: Folder of out-of-distribution images, to measure how many are rejected.
        train_suspects: Whether to search train for label errors too, which costs a pass over it.
        folder: Where the files go; by default the run's folder, or `evaluation` in that of an exported model.
        command: The command line that the page shows.

    Returns:
        The content of metrics.json: run, split, weights ("best", "last" or "exported"), remarks, suspects (their
        number), foreign (see calibration.rejection_report; null without such images), before_corrections (see
        corrections.score_before), and everything of report.build_report. Besides, `folder`: where the files are.

    Raises:
        UserError: The lists are missing, their label map is not the run's, or an image cannot be read.
    """
    machine.prepare(settings)
    from evaluation import evaluator, report_files
    from evaluation.predictors import open_model

    model = open_model(run, settings)
    request = evaluator.Request(split, foreign, train_suspects, machine.select_device(settings))
    evaluation = evaluator.evaluate_model(model, request)
    target = Path(folder) if folder is not None else model.report_folder
    report_files.write_evaluation(evaluation, target, command)
    return evaluation.report | {"folder": str(target)}


def evaluate_folds(
    folder: str | Path,
    overrides: Sequence[str] = (),
    target: str | Path | None = None,
    command: str = "python evaluate.py",
) -> dict[str, Any]:
    """Evaluates a cross-validation (`train.py folds=5`): every image by the run that has not seen it.

    Args:
        folder: Of the cross-validation.
        overrides: Settings as `key=value`, laid over those of every run.
        target: Where the files go; by default the folder.
        command: The command line that the page shows.

    Returns:
        The content of metrics.json; see `evaluate`.

    Raises:
        UserError: A fold is not trained yet, its lists are missing, or an image cannot be read.
    """
    machine.prepare(config.load(overrides=overrides))
    from evaluation import folds, report_files

    evaluation = folds.evaluate(Path(folder), overrides)
    report_files.write_evaluation(evaluation, Path(target or folder), command)
    return evaluation.report | {"folder": str(target or folder)}


def compare(
    runs: Sequence["Run"],
    overrides: Sequence[str],
    split: str = "test",
    folder: str | Path | None = None,
    command: str = "python evaluate.py",
) -> dict[str, Any]:
    """Evaluates several runs on the same images; two are compared image by image.

    Writes comparison.json and comparison.html, and for two runs disagreements.tsv.

    Args:
        runs: Two or more.
        overrides: Settings as `key=value`, laid over those of every run.
        split: "train", "valid" or "test".
        folder: Where the files go; by default `comparison` beside the first run.
        command: The command line that the page shows.

    Returns:
        The content of comparison.json; see comparison.Comparison. Its `folder` is where the files are.

    Raises:
        UserError: The runs do not share one label map and one list.
    """
    from evaluation import comparison, report_files
    from evaluation.predictors import RunModel
    from models.runs import run_settings

    models = (RunModel(run, run_settings(run, overrides)) for run in runs)
    found = comparison.compare_models(models, split)
    target = Path(folder) if folder is not None else runs[0].path.resolve().parent / "comparison"
    found.content["folder"] = str(target)
    report_files.write_comparison(found, target, command)
    return found.content


def print_report(report: Mapping[str, Any]) -> None:
    """Prints what `evaluate` or `evaluate_folds` returned, and where its files are."""
    from evaluation import terminal

    print(terminal.report_text(report))
    print_remarks({"": report["remarks"]})
    folder = Path(report["folder"])
    suspects = counted(report["suspects"], "suspected label error")
    print(f"{folder}: metrics.json, predictions.tsv, suspects.tsv ({suspects})")
    print(f"look at: {folder / 'report.html'}")


def print_remarks(remarks: Mapping[str, Sequence[str]]) -> None:
    """Prints the remarks of each run by its name ("": unnamed) on stderr."""
    for name, lines in remarks.items():
        for line in lines:
            print(f"note: {name}: {line}" if name else f"note: {line}", file=sys.stderr)


if __name__ == "__main__":
    cli.command(main)
