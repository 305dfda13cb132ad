"""Scores a trained run on a list it has not seen: accuracy, per-class scores, confusion matrix."""

import argparse
import json
import shlex
from pathlib import Path

import config
import runtime
from config import Settings, UserError


def run_settings(run, overrides: list[str]) -> Settings:
    """Reads a run's own settings and lays the changeable overrides over them.

    Raises:
        UserError: An override would change what the network is or sees.
    """
    keys = {argument.partition("=")[0].lower() for argument in overrides}
    fixed = sorted(keys - config.CHANGEABLE & set(config.known_keys()))
    if fixed:
        raise UserError(f"{fixed[0]}: this belongs to the run {run.path} and cannot be changed now; train anew with it")
    return config.load(base=run.path / "config.yaml", overrides=overrides)


def predict_logits(network, loader, total: int, title: str):
    """Runs a network over every batch of a loader.

    Returns:
        logits float32 [N, C] and labels int64 [N], in the order of the list; N equals total.

    Raises:
        RuntimeError: Fewer or more pictures were scored than are listed.
    """
    import numpy as np
    import paddle
    from tqdm import tqdm

    logits, labels = [], []
    with paddle.no_grad(), tqdm(total=total, unit=" pictures", desc=title, leave=False, disable=None) as bar:
        for images, batch_labels in loader:
            logits.append(network(paddle.to_tensor(images)).numpy())
            labels.append(batch_labels)
            bar.update(len(batch_labels))
    scores, truth = np.concatenate(logits), np.concatenate(labels)
    if len(scores) != total:
        raise RuntimeError(f"{len(scores)} pictures were scored, {total} are listed")
    return scores, truth


def evaluate(run, settings: Settings, split: str) -> dict:
    """Scores a run on one split and writes metrics.json and confusion.png into its folder.

    Returns:
        The content of metrics.json (see metrics.report).

    Raises:
        UserError: The lists are missing, or their label map is not the run's.
    """
    runtime.prepare(settings)
    import metrics
    import plots
    from checkpoint import check_labels
    from dataset import BatchLoader, ListDataset, choose_workers
    from lists import LABELS, read_split, write_text
    from transforms import EvalTransform

    device = runtime.select_device(settings)
    entries, class_names = read_split(settings, split)
    check_labels(run, class_names, settings.lists / LABELS)
    network = run.load_network()
    dataset = ListDataset(entries, EvalTransform.from_settings(settings), settings.max_pixels)
    loader = BatchLoader(dataset, settings.batch_size, choose_workers(settings, device))
    logits, labels = predict_logits(network, loader, len(entries), split)
    report = {"run": run.name, "split": split, "weights": run.weights_kind()} | metrics.report(logits, labels, class_names)
    write_text(run.path / "metrics.json", json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    plots.confusion(report["confusion_matrix"], class_names, run.path / "confusion.png")
    return report


def print_report(report: dict) -> None:
    """Prints the table of per-class scores and the headline."""
    width = max(len("class"), *(len(row["name"]) for row in report["classes"]))
    print(f"{'class':<{width}}  precision  recall      f1  pictures")
    for row in report["classes"]:
        scores = (row[key] for key in ("precision", "recall", "f1"))
        cells = ["-" if value is None else f"{value:.4f}" for value in scores]
        print(f"{row['name']:<{width}}  {cells[0]:>9}  {cells[1]:>6}  {cells[2]:>6}  {row['support']:>8}")
    top = min(5, len(report["classes"]))
    print(
        f"{report['split']} accuracy {report['accuracy']:.4f}, top-{top} {report['top_5_accuracy']:.4f}, "
        f"macro F1 {report['macro_f1']:.4f}, loss {report['loss']:.4f} on {report['num_pictures']} pictures"
    )


def main() -> None:
    """Command line of evaluate.py."""
    parser = config.parser(__doc__)
    parser.add_argument("arguments", nargs="*", metavar="RUN|KEY=VALUE", help="run folder (the one trained last) and settings")
    parser.add_argument("--split", default="test", choices=("train", "valid", "test"), help="which list (test)")
    arguments = parser.parse_args()
    run, settings = open_run(parser, arguments)
    report = evaluate(run, settings, arguments.split)
    print_report(report)
    print(f"{run.path}: metrics.json, confusion.png")
    print(f"next: python predict.py PICTURE --run {shlex.quote(str(run.path))}, "
          f"or python export.py {shlex.quote(str(run.path))}")


def open_run(parser: argparse.ArgumentParser, arguments: argparse.Namespace):
    """Finds the run a command line names, or the one trained last, and its settings.

    Returns:
        The run (checkpoint.Run) and its Settings with the changeable overrides laid over.

    Raises:
        UserError: There is no such run, or an override is not changeable.
    """
    overrides, rest = config.split_overrides(arguments.arguments)
    if len(rest) > 1:
        parser.error(f"one run at a time: {' '.join(rest)}")
    given = config.load(arguments.config, overrides)
    runtime.prepare(given)
    from checkpoint import find

    run = find(rest[0] if rest else None, given.output_dir)
    if not rest:
        print(f"run: {run.path} (the one trained last)")
    return run, run_settings(run, overrides)


if __name__ == "__main__":
    config.command(main)
