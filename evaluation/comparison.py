"""Several runs on the same images: their mean and spread, and for two what they differ in."""

from typing import Any

import numpy as np
from scipy.stats import binomtest

from evaluation import metrics
from evaluation.predictions import Answers

MEASURES = ("accuracy", "top_k_accuracy", "balanced_accuracy", "macro_f1", "loss")


def scores(answers: Answers) -> dict[str, float]:
    """The headline numbers of one run; see metrics.report."""
    balanced, macro_f1 = metrics.macro_scores(answers.labels, answers.predictions, len(answers.class_names))
    return {
        "accuracy": metrics.accuracy(answers.logits, answers.labels),
        "top_k_accuracy": metrics.accuracy(answers.logits, answers.labels, metrics.TOP_K),
        "balanced_accuracy": balanced,
        "macro_f1": macro_f1,
        "loss": metrics.log_loss(answers.logits, answers.labels),
    }


def summary(rows: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Mean, standard deviation (of a sample: n - 1), lowest and highest of each measure over two or more runs."""
    table = {name: np.array([row[name] for row in rows]) for name in MEASURES}
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
    """Exact two-sided p-value that two classifiers are equally often right, from the images only one gets right.

    Source: McNemar 1947 (doi:10.1007/BF02295996), in its exact, binomial form.
    """
    total = only_first + only_second
    return float(binomtest(only_first, total, 0.5).pvalue) if total else 1.0


def compare(first: Answers, second: Answers, seed: int) -> dict[str, Any]:
    """Compares two runs image by image; both must hold the same rows in the same order.

    Returns:
        both_right, only_first_right, only_second_right, both_wrong: numbers of images.
        mcnemar_p: see `mcnemar`.
        difference: second minus first of each measure but top_k_accuracy, with its paired 95 % bootstrap interval:
            value, low, high.
    """
    one, two, labels = first.correct, second.correct, first.labels
    only_first, only_second = int((one & ~two).sum()), int((two & ~one).sum())
    gained = two.astype(float) - one.astype(float)
    lost = metrics.losses(second.logits, labels) - metrics.losses(first.logits, labels)
    size = len(first.class_names)

    def differences(rows: np.ndarray) -> list[float]:
        before = metrics.macro_scores(labels[rows], first.predictions[rows], size)
        after = metrics.macro_scores(labels[rows], second.predictions[rows], size)
        return [gained[rows].mean(), after[0] - before[0], after[1] - before[1], lost[rows].mean()]

    values = differences(np.arange(len(labels)))
    spans = metrics.bootstrap(differences, len(labels), seed)
    names = ("accuracy", "balanced_accuracy", "macro_f1", "loss")
    return {
        "both_right": int((one & two).sum()),
        "only_first_right": only_first,
        "only_second_right": only_second,
        "both_wrong": int((~one & ~two).sum()),
        "mcnemar_p": mcnemar(only_first, only_second),
        "difference": {
            name: {"value": float(value), "low": float(low), "high": float(high)}
            for name, value, (low, high) in zip(names, values, spans, strict=True)
        },
    }


def disagreements(first: Answers, second: Answers) -> list[int]:
    """Places of the images that exactly one of two runs gets right, the surest wrong answers first."""
    places = np.flatnonzero(first.correct != second.correct)
    sure = np.where(first.correct[places], second.confidences[places], first.confidences[places])
    return places[np.argsort(-sure, kind="stable")].tolist()


def table(first: Answers, second: Answers, names: tuple[str, str]) -> str:
    """Writes disagreements.tsv: path, label, both predictions and which run is right."""
    lines = ["\t".join(("path", "label", *names, "right"))]
    classes = first.class_names
    for place in disagreements(first, second):
        said = classes[first.predictions[place]], classes[second.predictions[place]]
        right = names[0] if first.correct[place] else names[1]
        lines.append("\t".join((first.samples[place].path, classes[first.labels[place]], *said, right)))
    return "\n".join(lines) + "\n"
