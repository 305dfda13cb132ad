"""Scores a trained run, or an exported model, on a list: numbers, calibrated confidence, mistakes, one page of it all.

With several runs it compares them on the same images.
"""

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import config
from system import cli, machine
from system.errors import UserError
from system.settings import Settings


def evaluate(
    run,
    settings: Settings,
    split: str,
    foreign: str | None = None,
    train_suspects: bool = False,
    folder: str | Path | None = None,
    command: str = "python evaluate.py",
) -> dict:
    """Scores a run or an exported model on one split and writes everything told of it into a folder.

    The folder then holds metrics.json, predictions.tsv, suspects.tsv, the figures and report.html; the run
    calibration.json, fitted on its valid images, which predict.py and export.py use.

    Args:
        run: checkpoint.Run or inference.ExportedModel.
        settings: The run's settings with overrides, or for an exported model where the lists are.
        split: "train", "valid" or "test".
        foreign: Folder of images of something else, to measure how many are turned away.
        train_suspects: Also look for wrong labels in train, which costs a pass over it.
        folder: Where the files go; the run's folder, or `evaluation` in that of an exported model.
        command: What the page names as the command that made it.

    Returns:
        The content of metrics.json: run, split, weights ("best", "last" or "exported"), remarks, suspects (their
        number), foreign (see report.calibration.foreign; null where not asked for), and all of metrics.report; and
        `folder`, where the files are.

    Raises:
        UserError: The lists are missing, their label map is not the run's, or an image cannot be read.
    """
    machine.prepare(settings)
    from evaluation import report
    from evaluation.predictors import ExportModel, RunModel
    from evaluation.scoring import answer
    from inference.predictor import ExportedModel

    if foreign is not None and not Path(foreign).is_dir():
        raise UserError(f"{foreign}: no such folder; name a folder of foreign images")
    device = machine.select_device(settings)
    model = ExportModel(run, settings) if isinstance(run, ExportedModel) else RunModel(run, settings)
    scored = {split: answer(model, split, device)}
    remarks = model.remarks()
    if isinstance(model, ExportModel):
        scored[split] = replace(scored[split], temperature=run.temperature, threshold=run.threshold)
    else:
        remarks += report.calibrate(run, model, scored, split, device)
    target = report.target_of(model, folder)
    return report.tell(model, scored, split, target, remarks, foreign, train_suspects, device, command) | {
        "folder": str(target)
    }


def print_report(report: dict) -> None:
    """Prints the table of per-class scores, the headline and what the confidence is worth."""
    width = max(len("class"), *(len(row["name"]) for row in report["classes"]))
    print(f"{'class':<{width}}  precision  recall      f1  images")
    for row in report["classes"]:
        cells = ["-" if row[key] is None else f"{row[key]:.4f}" for key in ("precision", "recall", "f1")]
        print(f"{row['name']:<{width}}  {cells[0]:>9}  {cells[1]:>6}  {cells[2]:>6}  {row['support']:>8}")
    low, high = report["intervals"]["accuracy"]
    print(
        f"{report['split']} accuracy {report['accuracy']:.4f} (95 % interval {low:.4f} to {high:.4f}), "
        f"top-{report['top_k']} {report['top_k_accuracy']:.4f}, macro F1 {report['macro_f1']:.4f}, "
        f"loss {report['loss']:.4f} on {report['num_pictures']} images"
    )
    told, before, after = report["confidence"], report["confidence"]["before"], report["confidence"]["after"]
    print(
        f"confidence: temperature {told['temperature']:.3f}, calibration error "
        f"{before['expected_calibration_error']:.4f} before, {after['expected_calibration_error']:.4f} after"
    )
    if told["threshold"] is not None:
        print(
            f"threshold {told['threshold']:.3f}: {told['coverage']:.1%} of {report['split']} answered, "
            f"{told['accuracy_of_answered'] or 0:.1%} of the answers right"
        )
    if outside := report["foreign"]:
        print(
            f"foreign images: {outside['turned_away']:.1%} of {outside['num_pictures']} turned away "
            f"({outside['known_turned_away']:.1%} of {report['split']})"
        )
    for remark in report["remarks"]:
        print(f"note: {remark}", file=sys.stderr)


def compare(runs: list, overrides: list[str], split: str, folder: str | Path | None, command: str) -> dict:
    """Scores several runs on the same images; two are compared image by image.

    Writes comparison.json and comparison.html, and for two runs disagreements.tsv.

    Args:
        runs: Two or more checkpoint.Run.
        overrides: Settings as `key=value`, laid over those of every run.
        folder: Where the files go; `comparison` beside the first run.
        command: What the page names as the command that made it.

    Returns:
        The content of comparison.json: split, num_pictures, runs (path, remarks and headline numbers), summary (see
        report.comparison.summary), pair (see report.comparison.compare; null for more than two runs), folder.

    Raises:
        UserError: The runs do not share one label map and one list.
    """
    from evaluation import comparison_report
    from models.checkpoint import run_settings

    return comparison_report.compare(runs, lambda run: run_settings(run, overrides), split, folder, command)


def print_comparison(told: dict) -> None:
    """Prints the table of runs, their mean and spread, and for two what they differ in."""
    from evaluation.comparison import MEASURES

    width = max(len("standard deviation"), *(len(row["run"]) for row in told["runs"]))
    print(f"{'run':<{width}}  " + "  ".join(f"{name:>17}" for name in MEASURES))
    for row in told["runs"]:
        print(f"{row['run']:<{width}}  " + "  ".join(f"{row[name]:>17.4f}" for name in MEASURES))
    for key, name in (("mean", "mean"), ("standard_deviation", "standard deviation")):
        print(f"{name:<{width}}  " + "  ".join(f"{told['summary'][measure][key]:>17.4f}" for measure in MEASURES))
    if pair := told["pair"]:
        gap = pair["difference"]["accuracy"]
        print(
            f"second - first: accuracy {gap['value']:+.4f} (95 % interval {gap['low']:+.4f} to {gap['high']:+.4f}), "
            f"only the first right {pair['only_first_right']}, only the second {pair['only_second_right']}, "
            f"McNemar p = {pair['mcnemar_p']:.3g}"
        )
    for row in told["runs"]:
        for remark in row["remarks"]:
            print(f"note: {row['run']}: {remark}", file=sys.stderr)


def main() -> None:
    """Command line of evaluate.py."""
    parser = cli.parser(__doc__)
    parser.add_argument("arguments", nargs="*", metavar="RUN|KEY=VALUE",
                        help="run folder (the one trained last), several to compare them, and settings")  # fmt: skip
    parser.add_argument("--split", default="test", choices=("train", "valid", "test"), help="which list (test)")
    parser.add_argument("--model", metavar="FOLDER", help="score a model that export.py made instead of a run")
    parser.add_argument("--foreign", metavar="FOLDER", help="images of something else: how many are turned away?")
    parser.add_argument("--train-suspects", action="store_true",
                        help="look for wrong labels among the training images too")  # fmt: skip
    parser.add_argument("--out", metavar="FOLDER", help="where the files go (into the run's folder)")
    arguments = parser.parse_intermixed_args()
    overrides, named = cli.split_overrides(arguments.arguments)
    command = shlex.join(["python", "evaluate.py", *sys.argv[1:]])
    if arguments.model and (named or arguments.train_suspects):
        parser.error("--model takes neither runs nor --train-suspects")
    if len(named) > 1:
        if arguments.foreign or arguments.train_suspects:
            parser.error("--foreign and --train-suspects look at one run at a time")
        _compare_command(arguments, overrides, named, command)
        return
    run, settings = _open_export(arguments, overrides) if arguments.model else _open_run(arguments, overrides, named)
    report = evaluate(
        run, settings, arguments.split, arguments.foreign, arguments.train_suspects, arguments.out, command
    )
    print_report(report)
    folder = Path(report["folder"])
    print(f"{folder}: metrics.json, predictions.tsv, suspects.tsv ({report['suspects']} labels to look at)")
    print(f"look at: {folder / 'report.html'}")
    if not arguments.model:
        name = shlex.quote(str(run.path))
        print(f"next: python predict.py IMAGE --run {name}, or python export.py {name}")


def _compare_command(arguments: argparse.Namespace, overrides: list[str], named: list[str], command: str) -> None:
    given = config.load(arguments.config, overrides)
    machine.prepare(given)
    from models.checkpoint import find

    runs = [find(name, given.output_dir) for name in named]
    told = compare(runs, overrides, arguments.split, arguments.out, command)
    print_comparison(told)
    print(f"look at: {Path(told['folder']) / 'comparison.html'}")


def _open_export(arguments: argparse.Namespace, overrides: list[str]):
    settings = config.load(arguments.config, overrides)
    machine.prepare(settings)
    from inference.predictor import ExportedModel

    device = machine.select_device(settings)
    return ExportedModel(arguments.model, device, machine.threads(settings)), settings


def _open_run(arguments: argparse.Namespace, overrides: list[str], named: list[str]):
    given = config.load(arguments.config, overrides)
    machine.prepare(given)
    from models.checkpoint import open_run

    return open_run(named[0] if named else None, given.output_dir, overrides)


if __name__ == "__main__":
    cli.command(main)
