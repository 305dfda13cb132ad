"""The exploration of a data set: everything that its files and its page are written from."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from evaluation import label_errors, metrics
from evaluation.label_errors import Suspect
from exploration import estimate, images, neighbours
from exploration.images import Images
from exploration.neighbours import Neighbours
from exploration.pool import Pool, rank
from exploration.projection import project
from features.extraction import FeatureExtractor
from imaging.transforms import EvalTransform
from models import factory
from models.networks import BASES
from system.errors import UserError
from system.settings import Settings


@dataclass(frozen=True)
class Exploration:
    """What was found.

    Attributes:
        settings: Of the exploration.
        transform: What the images go through.
        backbone: What the features come from, in words.
        images: All images of the lists.
        folds: Number of folds.
        probabilities: float64 [N, C] of every image, by a head that has not seen it.
        scores: See estimate.scores.
        curve: See estimate.learning_curve.
        suspects: Suspected label errors, the most suspect first.
        neighbours: Similar pairs, and images like no other.
        places: float64 [N, 2]: all images in two dimensions.
        projection: How they were placed there.
        pool: What to label next; None without a pool.
    """

    settings: Settings
    transform: EvalTransform
    backbone: str
    images: Images
    folds: int
    probabilities: np.ndarray
    scores: dict[str, Any]
    curve: list[dict[str, float]]
    suspects: list[Suspect]
    neighbours: Neighbours
    places: np.ndarray
    projection: str
    pool: Pool | None

    def content(self) -> dict[str, Any]:
        """Content of explore.json."""
        counts = {split: self.images.splits.count(split) for split in dict.fromkeys(self.images.splits)}
        return {
            "backbone": self.backbone,
            "images": counts,
            "classes": len(self.images.class_names),
            "folds": self.folds,
            "scores": self.scores,
            "learning_curve": self.curve,
            "suspects": len(self.suspects),
            "similar_pairs": len(self.neighbours.similar),
            "unlike_any_other": len(self.neighbours.unlike),
            "pool": None if self.pool is None else {"images": len(self.pool.paths), "left_out": self.pool.left_out},
        }


def require_pretrained(settings: Settings) -> None:
    """Checks that the backbone has learned something.

    Raises:
        UserError: It has not.
    """
    if not settings.pretrained:
        raise UserError(
            "explore.py: pretrained=false, and a network with random weights knows nothing of images; use --config "
            "recipes/photos-transfer.yaml, or set pretrained=true, pretrained=FILE or pretrained=RUN"
        )
    if settings.network in BASES and not Path(str(settings.pretrained)).is_dir():
        raise UserError(
            f"explore.py: network={settings.network}: its dense layers begin at random, so its features know nothing; "
            f"use network={BASES[settings.network]}, or pretrained=RUN"
        )


def explore(settings: Settings, pool: str | None, device: str) -> Exploration:
    """Explores the images of the lists, and ranks those of a pool.

    Raises:
        UserError: A list, an image or the weights cannot be read, or the images are too few.
    """
    lists, class_names = images.read_lists(settings)
    network, _ = factory.build(settings, len(class_names), class_names)
    extractor = FeatureExtractor(network, settings, device)
    loaded = images.load(extractor, lists, class_names, settings)
    folds = estimate.divide(loaded, settings.seed)
    ranked = None if pool is None else rank(pool, loaded, extractor, settings.seed)
    logits = estimate.cross_validate(loaded, folds)
    probabilities = metrics.probabilities(logits)
    places, projection = project(loaded.normalised, settings.seed)
    return Exploration(
        settings=settings,
        transform=extractor.transform,
        backbone=_describe(settings),
        images=loaded,
        folds=int(folds.max()) + 1,
        probabilities=probabilities,
        scores=estimate.scores(loaded, logits, settings.seed),
        curve=estimate.learning_curve(loaded, folds, settings.seed),
        suspects=_suspects(loaded, probabilities),
        neighbours=neighbours.find(loaded),
        places=places,
        projection=projection,
        pool=ranked,
    )


def _describe(settings: Settings) -> str:
    weights = "ImageNet weights" if settings.pretrained is True else Path(str(settings.pretrained)).name
    return f"{settings.network} ({weights})"


def _suspects(loaded: Images, probabilities: np.ndarray) -> list[Suspect]:
    splits = {sample.path: split for sample, split in zip(loaded.samples, loaded.splits, strict=True)}
    found = label_errors.find("", loaded.samples, probabilities)
    return label_errors.merge([[replace(suspect, split=splits[suspect.sample.path]) for suspect in found]])
