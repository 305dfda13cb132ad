"""Comparison of runs on the same images: mean and spread, and for two runs paired differences."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest

from evaluation import metrics
from evaluation.metrics import METRICS
from evaluation.predictions import Predictions
from evaluation.predictors import RunModel
from evaluation.scoring import predict_split
from imaging.transforms import EvalTransform
from system import machine
from system.errors import UserError


@dataclass(frozen=True)
class Comparison:
    """Two or more runs, evaluated on the same images.

    Attributes:
        content: Of comparison.json: split, num_pictures, runs (run: its path, remarks, train_images: their number or
            null, every registered metric, minus_first: difference in accuracy from the first run, as in `differences`,
            null for that run), summary (see `summary`), pair (see `compare`; null for more than two runs), top_k,
            num_classes.
        predictions: Of each run, in the same order.
        transform: How the images of the page are cropped.
        max_pixels: Largest image to decode.
    """

    content: dict[str, Any]
    predictions: list[Predictions]
    transform: EvalTransform
    max_pixels: int


def compare_models(models: Iterable[RunModel], split: str) -> Comparison:
    """Evaluates runs on one list, one after the other: of an iterator only one network is in memory at a time.

    Raises:
        UserError: The runs do not share one label map and one list.
    """
    predictions: list[Predictions] = []
    rows: list[dict[str, Any]] = []
    for model in models:
        predictions.append(predict_split(model, split, machine.select_device(model.settings)))
        first, last, seed = predictions[0], predictions[-1], model.settings.seed
        rows.append(
            {"run": str(model.path), "remarks": model.remarks(), "train_images": model.run.state.get("pictures")}
            | metrics.compute(last.outputs)
        )
        _check_same_images(rows, predictions)
        rows[-1]["minus_first"] = differences(first, last, seed, ["accuracy"])["accuracy"] if len(rows) > 1 else None
    content = {
        "split": split,
        "num_pictures": len(predictions[0].labels),
        "runs": rows,
        "summary": summary(rows),
        "pair": compare(predictions[0], predictions[1], seed) if len(rows) == 2 else None,
        "top_k": min(metrics.TOP_K, len(predictions[0].class_names)),
        "num_classes": len(predictions[0].class_names),
    }
    return Comparison(content, predictions, model.transform, model.settings.max_pixels)


def _check_same_images(rows: Sequence[Mapping[str, Any]], predictions: Sequence[Predictions]) -> None:
    """Checks that the last run was evaluated on the images and classes of the first."""
    first, last, path = predictions[0], predictions[-1], rows[-1]["run"]
    if first.class_names != last.class_names:
        raise UserError(f"{path}: its classes are not those of {rows[0]['run']}; compare runs of one label map")
    if [(one.path, one.label) for one in first.samples] != [(one.path, one.label) for one in last.samples]:
        raise UserError(
            f"{path}: its {last.split} list is not that of {rows[0]['run']}; "
            "name one data set for all with data_dir=FOLDER"
        )


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean, sample standard deviation (n - 1), lowest and highest of every metric over two or more runs."""
    table = {name: np.array([row[name] for row in rows]) for name in METRICS}
    return {
        name: {
            "mean": float(values.mean()),
            "standard_deviation": float(values.std(ddof=1)),
            "lowest": float(values.min()),
            "highest": float(values.max()),
        }
        for name, values in table.items()
    }


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value of the hypothesis that two classifiers are correct equally often.

    Args:
        only_first: Number of images that only the first classifies correctly.
        only_second: Number of images that only the second classifies correctly.

    Source: McNemar 1947 (doi:10.1007/BF02295996), in its exact, binomial form.
    """
    total = only_first + only_second
    return float(binomtest(only_first, total, 0.5).pvalue) if total else 1.0


def compare(first: Predictions, second: Predictions, seed: int) -> dict[str, Any]:
    """Compares two runs image by image; both hold the same rows in the same order.

    Returns:
        both_right, only_first_right, only_second_right, both_wrong: numbers of images.
        mcnemar_p: see `mcnemar`.
        difference: see `differences`.
    """
    one, two = first.correct, second.correct
    only_first, only_second = int((one & ~two).sum()), int((two & ~one).sum())
    return {
        "both_right": int((one & two).sum()),
        "only_first_right": only_first,
        "only_second_right": only_second,
        "both_wrong": int((~one & ~two).sum()),
        "mcnemar_p": mcnemar(only_first, only_second),
        "difference": differences(first, second, seed),
    }


def differences(
    first: Predictions, second: Predictions, seed: int, names: Sequence[str] = ()
) -> dict[str, dict[str, float]]:
    """Second minus first of some metrics, or all: value, low and high end of its paired 95 % bootstrap interval."""
    before, after = first.outputs, second.outputs
    chosen = {name: METRICS[name] for name in names or METRICS}
    by_image = {
        name: one.function(after).astype(float) - one.function(before).astype(float)
        for name, one in chosen.items()
        if one.per_image
    }

    def statistic(rows: np.ndarray) -> list[float]:
        resampled = before.resample(rows), after.resample(rows)
        return [
            by_image[name][rows].mean() if name in by_image else one(resampled[1]) - one(resampled[0])
            for name, one in chosen.items()
        ]

    values = statistic(np.arange(len(first.labels)))
    intervals = metrics.bootstrap(statistic, len(first.labels), seed)
    return {
        name: {"value": float(value), "low": float(low), "high": float(high)}
        for name, value, (low, high) in zip(chosen, values, intervals, strict=True)
    }


def disagreements(first: Predictions, second: Predictions) -> list[int]:
    """Rows of the images that exactly one of two runs classifies correctly, the most confident mistakes first."""
    rows = np.flatnonzero(first.correct != second.correct)
    confidence = np.where(first.correct[rows], second.confidences[rows], first.confidences[rows])
    return rows[np.argsort(-confidence, kind="stable")].tolist()


def table(first: Predictions, second: Predictions, names: tuple[str, str]) -> str:
    """Content of disagreements.tsv: path, label, both predictions and which run is correct."""
    lines = ["\t".join(("path", "label", *names, "right"))]
    classes = first.class_names
    for row in disagreements(first, second):
        predicted = classes[first.predicted[row]], classes[second.predicted[row]]
        correct = names[0] if first.correct[row] else names[1]
        lines.append("\t".join((first.samples[row].path, classes[first.labels[row]], *predicted, correct)))
    return "\n".join(lines) + "\n"
