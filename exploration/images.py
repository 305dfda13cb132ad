"""The images that are explored: those of all lists, with their features."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from annotation.lists import LABELS, SPLITS, Sample, read_groups, read_labels, read_samples
from features.extraction import FeatureExtractor, of_samples
from system.settings import Settings


@dataclass(frozen=True)
class Images:
    """The N images of the lists, split after split.

    Attributes:
        samples: Their rows.
        splits: The list of each.
        labels: int64 [N].
        groups: A number for each; those that belong together share it.
        features: float32 [N, D].
        class_names: C names.
    """

    samples: list[Sample]
    splits: list[str]
    labels: np.ndarray
    groups: np.ndarray
    features: np.ndarray
    class_names: list[str]

    @cached_property
    def known(self) -> np.ndarray:
        """Which of them are not in test, bool [N]: test is left to the evaluation of what is trained."""
        return np.array([split != "test" for split in self.splits])

    @cached_property
    def normalised(self) -> np.ndarray:
        """Features relative to their mean, of length 1: float32 [N, D]; their products are cosines."""
        centred = self.features - self.features.mean(axis=0)
        return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)


def read_lists(settings: Settings) -> tuple[dict[str, list[Sample]], list[str]]:
    """Reads the lists that there are, and the label map.

    Raises:
        UserError: There is no train.txt, or a list is malformed.
    """
    class_names = read_labels(settings.lists / LABELS)
    present = [split for split in SPLITS if split == "train" or (settings.lists / f"{split}.txt").is_file()]
    lists = {}
    for split in present:
        # annotate.py writes an empty list where a split has no image.
        if split == "train" or (settings.lists / f"{split}.txt").stat().st_size:
            lists[split] = read_samples(settings, split, len(class_names))
    return lists, class_names


def load(
    extractor: FeatureExtractor, lists: dict[str, list[Sample]], class_names: list[str], settings: Settings
) -> Images:
    """Computes the features of all lists.

    Raises:
        UserError: An image cannot be read, or groups.tsv is malformed.
    """
    features = np.concatenate([of_samples(extractor, samples, split) for split, samples in lists.items()])
    samples = [sample for split in lists for sample in lists[split]]
    return Images(
        samples,
        [split for split in lists for _ in lists[split]],
        np.array([sample.label for sample in samples], np.int64),
        np.array(read_groups(settings, samples), np.int64),
        features,
        class_names,
    )


def rows_of(images: Images, rows: Iterable[int]) -> list[dict[str, str]]:
    """Describes images for a table: path, split, label."""
    return [
        {
            "path": images.samples[row].path,
            "split": images.splits[row],
            "label": images.class_names[images.labels[row]],
        }
        for row in rows
    ]
