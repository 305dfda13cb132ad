"""What to label next among unlabelled images: those that a head on the labelled ones decides with the least margin."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.metrics import probabilities
from exploration.estimate import fit_medium
from exploration.images import Images
from features.extraction import FeatureExtractor
from imaging.images import ImageError
from inference.sources import SkippedFiles, find_images
from system.errors import UserError
from system.text import counted

# With fewer labelled images the order is random: of 16, the smallest margins taught less than random images
# (0.851 against 0.879 on the ants and bees, 20 draws), of 64 more (0.957 against 0.935).
FEWEST = 32


@dataclass(frozen=True)
class Pool:
    """Unlabelled images, those to label first at the beginning.

    Attributes:
        paths: M paths.
        probabilities: float64 [M, C].
        is_random: Whether the order is random.
        left_out: What was not ranked, in words; "" if nothing.
    """

    paths: list[str]
    probabilities: np.ndarray
    is_random: bool
    left_out: str

    def margins(self) -> np.ndarray:
        """Difference of the two highest probabilities of each, float64 [M]."""
        return _margins(self.probabilities)


def rank(folder: str, images: Images, extractor: FeatureExtractor, seed: int) -> Pool:
    """Ranks the images of a folder that are in no list.

    Raises:
        UserError: There is no such folder, or every image of it is in a list, or none can be read.
    """
    if not Path(folder).is_dir():
        raise UserError(f"{folder}: no such folder; name one of unlabelled images")
    skipped = SkippedFiles()
    listed = {os.path.realpath(sample.file) for sample in images.samples}
    found = list(find_images([folder], skipped))
    unlisted = [path for path in found if os.path.realpath(path) not in listed]
    if not unlisted:
        raise UserError(f"{folder}: all {len(found)} images are in the lists; name a folder of unlabelled images")
    paths, features = _features(unlisted, extractor, skipped)
    if not paths:
        raise UserError(f"{folder}: no image can be read ({skipped}); name another folder")
    found_probabilities = probabilities(fit_medium(images, images.known).logits(features))
    is_random = int(images.known.sum()) < FEWEST
    if is_random:
        order = np.random.default_rng(seed).permutation(len(paths))
    else:
        order = np.argsort(_margins(found_probabilities), kind="stable")
    twice = len(found) - len(unlisted)
    known = f"{counted(twice, 'image is', 'images are')} in the lists"
    parts = [known] * bool(twice) + [str(skipped)] * bool(str(skipped))
    return Pool([paths[row] for row in order], found_probabilities[order], is_random, "; ".join(parts))


def _margins(found: np.ndarray) -> np.ndarray:
    highest = np.sort(found, axis=1)
    return highest[:, -1] - highest[:, -2]


def _features(paths: list[str], extractor: FeatureExtractor, skipped: SkippedFiles) -> tuple[list[str], np.ndarray]:
    settings = extractor.settings
    read, rows, batch = [], [np.zeros((0, extractor.width), np.float32)], []
    for path in paths:
        try:
            batch.append(extractor.transform.read(path, settings.max_pixels))
            read.append(path)
        except ImageError as error:
            skipped.add(path, f"images that cannot be read: {error.reason}")
        if len(batch) == settings.batch_size:
            rows.append(extractor(np.stack(batch)))
            batch = []
    if batch:
        rows.append(extractor(np.stack(batch)))
    return read, np.concatenate(rows)
