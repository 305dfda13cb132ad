"""Suspected label errors: images whose label out-of-sample probabilities contradict (confident learning)."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from cleanlab.filter import find_label_issues

from annotation.lists import Sample


@dataclass(frozen=True)
class Suspect:
    """An image whose label is probably wrong.

    Attributes:
        split: Name of its list.
        sample: Its row.
        suggested: Index of the class that the network suggests.
        label_probability: Of the present label, 0..1.
        suggested_probability: Of the suggested class, 0..1.
    """

    split: str
    sample: Sample
    suggested: int
    label_probability: float
    suggested_probability: float


def find(split: str, samples: Sequence[Sample], probabilities: np.ndarray) -> list[Suspect]:
    """Finds suspected label errors with confident learning, the most suspect first.

    Args:
        split: Name of the list.
        samples: Its N rows.
        probabilities: float [N, C] from a network that was not trained on these images.

    Source: Northcutt et al. 2021, "Confident Learning" (arXiv:1911.00068), as implemented by cleanlab.
    """
    labels = np.array([sample.label for sample in samples])
    # It compares classes: with one there is nothing to suggest, and cleanlab raises.
    if probabilities.shape[1] < 2:
        return []
    with warnings.catch_warnings():
        # It warns of classes with few or no images, which the report lists anyway.
        warnings.simplefilter("ignore")
        ranked = find_label_issues(labels, probabilities, return_indices_ranked_by="normalized_margin", n_jobs=1)
    best = probabilities.argmax(axis=1)
    return [
        Suspect(split, samples[i], int(best[i]), float(probabilities[i, labels[i]]), float(probabilities[i, best[i]]))
        for i in ranked.tolist()
    ]


def merge(found: Iterable[list[Suspect]]) -> list[Suspect]:
    """Sorts the suspects of several lists together: the largest gap between suggested class and label first."""
    return sorted(
        (suspect for part in found for suspect in part),
        key=lambda one: (one.label_probability - one.suggested_probability, one.sample.path),
    )


def table(found: Iterable[Suspect], class_names: Sequence[str]) -> str:
    """Content of suspects.tsv: a header, then one line per suspect."""
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
    header = "path\tsplit\tlabel\tsuggested\tlabel_probability\tsuggested_probability"
    return "".join(f"{row}\n" for row in (header, *rows))
