"""Label suspects: images whose label the network, asked about images it did not learn, does not believe."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from annotation.lists import Sample

FOLDS = 5


@dataclass(frozen=True)
class Suspect:
    """An image whose label is doubted.

    Attributes:
        split: The list it stands in.
        sample: Its row.
        suggested: Index of the class that the network would give.
        label_probability: Of the label it has, 0..1.
        suggested_probability: Of the class suggested, 0..1.
    """

    split: str
    sample: Sample
    suggested: int
    label_probability: float
    suggested_probability: float


def find(split: str, samples: list[Sample], answers: np.ndarray) -> list[Suspect]:
    """Finds labels that confident learning doubts, the most doubtful first.

    Args:
        split: Name of the list.
        samples: Its N rows.
        answers: Probabilities float [N, C] from a network that did not learn these images.

    Source: Northcutt et al. 2021, "Confident Learning" (arXiv:1911.00068), as cleanlab has it.
    """
    labels = np.array([sample.label for sample in samples])
    # It compares classes: with one there is nothing to suggest, and cleanlab raises.
    if answers.shape[1] < 2:
        return []
    # Not at the top: it brings pandas along, a second to import.
    from cleanlab.filter import find_label_issues

    with warnings.catch_warnings():
        # Classes with few or no images are told by the report itself.
        warnings.simplefilter("ignore")
        ranked = find_label_issues(labels, answers, return_indices_ranked_by="normalized_margin", n_jobs=1)
    best = answers.argmax(axis=1)
    return [
        Suspect(split, samples[i], int(best[i]), float(answers[i, labels[i]]), float(answers[i, best[i]]))
        for i in ranked.tolist()
    ]


def merge(found: Iterable[list[Suspect]]) -> list[Suspect]:
    """Puts the suspects of several lists into one order: the largest gap between suggestion and label first."""
    return sorted(
        (suspect for part in found for suspect in part),
        key=lambda one: (one.label_probability - one.suggested_probability, one.sample.path),
    )


def table(found: list[Suspect], class_names: list[str]) -> str:
    """Writes suspects as suspects.tsv holds them, one a line under a header."""
    rows = [
        "\t".join(
            (
                one.sample.path,
                one.split,
                class_names[one.sample.label],
                class_names[one.suggested],
                f"{one.label_probability:.4f}",
                f"{one.suggested_probability:.4f}",
            )
        )
        for one in found
    ]
    head = "path\tsplit\tlabel\tsuggested\tlabel_probability\tsuggested_probability"
    return "".join(f"{row}\n" for row in (head, *rows))


def cross_validated(features: np.ndarray, labels: np.ndarray, num_classes: int, seed: int) -> np.ndarray | None:
    """Probabilities float64 [N, C] of each image from a linear head that has not seen it.

    The head is a logistic regression on standardised features, fitted on four fifths of the images at a time.

    Returns:
        None where some class that occurs has too few images to be in every fold, or only one class occurs.
    """
    held, counts = np.unique(labels, return_counts=True)
    folds = min(FOLDS, int(counts.min()))
    if len(held) < 2 or folds < 2:
        return None
    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed)
    answers = np.zeros((len(labels), num_classes))
    answers[:, held] = cross_val_predict(head, features, labels, cv=splits, method="predict_proba")
    return answers
