"""Mistakes worth looking at: which wrong answers were the surest, which classes are taken for which."""

from dataclasses import dataclass

import numpy as np

from evaluation.predictions import Answers


@dataclass(frozen=True)
class Pair:
    """A class that is taken for another one.

    Attributes:
        label: Index of the class shown.
        prediction: Index of the class answered.
        count: Number of images.
        share: Of all images of the label, 0..1.
        examples: Their places in the list, the surest first.
    """

    label: int
    prediction: int
    count: int
    share: float
    examples: list[int]


def surest(answers: Answers, count: int) -> list[int]:
    """Places of the wrong answers with the highest confidence, at most count."""
    wrong = np.flatnonzero(~answers.correct)
    return wrong[np.argsort(-answers.confidences[wrong], kind="stable")][:count].tolist()


def worst_of_classes(answers: Answers, count: int) -> list[int]:
    """For each class the wrong answer that gives its label the least probability; the weakest classes first.

    Returns:
        Places in the list, one a class, at most count.
    """
    own = answers.probabilities[np.arange(len(answers.labels)), answers.labels]
    found = []
    for index in np.unique(answers.labels):
        images = np.flatnonzero(answers.labels == index)
        wrong = images[~answers.correct[images]]
        if len(wrong):
            found.append((answers.correct[images].mean(), int(wrong[own[wrong].argmin()])))
    return [place for _, place in sorted(found)[:count]]


def confused_pairs(answers: Answers, count: int, examples: int) -> list[Pair]:
    """The pairs (label, prediction) with the most wrong answers, at most count, each with a few examples."""
    size, order = len(answers.class_names), surest(answers, len(answers.labels))
    codes = answers.labels * size + answers.predictions
    pairs, counts = np.unique(codes[order], return_counts=True)
    support = np.bincount(answers.labels, minlength=size)
    return [
        Pair(
            int(pairs[i] // size),
            int(pairs[i] % size),
            int(counts[i]),
            float(counts[i] / support[pairs[i] // size]),
            [place for place in order if codes[place] == pairs[i]][:examples],
        )
        for i in np.argsort(-counts, kind="stable")[:count]
    ]
