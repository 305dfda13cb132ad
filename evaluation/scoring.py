"""Running a model over the images of a list."""

from collections.abc import Callable, Iterable

import numpy as np
from tqdm import tqdm

from annotation.lists import LABELS, Sample, read_split
from dataset import BatchLoader, ListDataset, choose_workers, reporting_dead_workers
from evaluation.predictions import Predictions
from evaluation.predictors import Evaluable, RunModel
from features.extraction import FeatureExtractor, logits_of_samples
from models.compatibility import check_labels
from system.errors import UserError


def run_batches(
    function: Callable[[np.ndarray], np.ndarray],
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    total: int,
    title: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Applies a function of images to every batch.

    Args:
        function: Takes uint8 [n, 3, H, W], returns an array of n rows.
        batches: Yields images and labels int64 [n], N images together.
        total: Number of images listed.
        title: Of the progress bar.

    Returns:
        The rows [N, ...] and labels int64 [N], in the order of the list.

    Raises:
        RuntimeError: The batches hold fewer or more images than are listed.
    """
    outputs, labels = [], []
    with reporting_dead_workers(), tqdm(total=total, unit=" images", desc=title, leave=False, disable=None) as bar:
        for images, batch_labels in batches:
            outputs.append(function(images))
            labels.append(batch_labels)
            bar.update(len(batch_labels))
    rows, truth = np.concatenate(outputs), np.concatenate(labels)
    if len(rows) != total:
        raise RuntimeError(f"{len(rows)} images were evaluated, {total} are listed")
    return rows, truth


def open_split(model: Evaluable, split: str, device: str) -> tuple[list[Sample], BatchLoader]:
    """Reads a list and makes the loader of its images as the model sees them.

    Raises:
        UserError: The list is missing, empty or malformed, names missing files, or its label map is not the model's.
    """
    settings = model.settings
    samples, class_names = read_split(settings, split)
    check_labels(model, class_names, settings.lists / LABELS)
    dataset = ListDataset(samples, model.transform, settings.max_pixels)
    return samples, BatchLoader(dataset, settings.batch_size, choose_workers(settings, device))


def predict_split(model: Evaluable, split: str, device: str) -> Predictions:
    """Computes predictions for the images of a list, without temperature and threshold.

    Raises:
        UserError: See `open_split`; an image cannot be read, or the network returns NaN or infinity.
    """
    samples, loader = open_split(model, split, device)
    if isinstance(model, RunModel):
        # At the speed of inference, and at once where training has computed the same features.
        extractor = FeatureExtractor(model.classifier, model.settings, device)
        logits, labels = logits_of_samples(extractor, samples, split), loader.dataset.labels
    else:
        logits, labels = run_batches(model.logits, loader, len(samples), split)
    broken = int((~np.isfinite(logits)).any(axis=1).sum())
    if broken:
        raise UserError(f"{model.path}: the network returns NaN or infinity for {broken} images; train it again")
    return Predictions(split, samples, logits, labels, model.class_names)
