"""Runs a model over the images of a list."""

from collections.abc import Callable, Iterable

import numpy as np
from tqdm import tqdm

from annotation.lists import LABELS, Sample, read_split
from dataset import BatchLoader, ListDataset, choose_workers
from evaluation.predictions import Answers
from evaluation.predictors import ExportModel, RunModel
from models.checkpoint import check_labels
from system.errors import UserError


def score(
    answer: Callable[[np.ndarray], np.ndarray],
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    total: int,
    title: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Runs a function of images over every batch.

    Args:
        answer: Takes uint8 [n, 3, H, W], gives an array of n rows.
        batches: Yields images and labels int64 [n], N images together.
        total: How many images are listed.
        title: Of the progress bar.

    Returns:
        The rows [N, ...] and labels int64 [N], in the order of the list.

    Raises:
        RuntimeError: Fewer or more images were scored than are listed.
    """
    rows, labels = [], []
    with tqdm(total=total, unit=" images", desc=title, leave=False, disable=None) as bar:
        for images, batch_labels in batches:
            rows.append(answer(images))
            labels.append(batch_labels)
            bar.update(len(batch_labels))
    scores, truth = np.concatenate(rows), np.concatenate(labels)
    if len(scores) != total:
        raise RuntimeError(f"{len(scores)} images were scored, {total} are listed")
    return scores, truth


def listed(model: RunModel | ExportModel, split: str, device: str) -> tuple[list[Sample], BatchLoader]:
    """Reads a list and makes the loader of its images as the model sees them.

    Raises:
        UserError: The list is missing, empty or malformed, names missing files, or its label map is not the model's.
    """
    settings = model.settings
    samples, class_names = read_split(settings, split)
    check_labels(model, class_names, settings.lists / LABELS)
    dataset = ListDataset(samples, model.transform, settings.max_pixels)
    return samples, BatchLoader(dataset, settings.batch_size, choose_workers(settings, device))


def answer(model: RunModel | ExportModel, split: str, device: str) -> Answers:
    """Answers for the images of a list, still without a temperature.

    Raises:
        UserError: See `listed`; an image cannot be read, or the network answers with no number.
    """
    samples, loader = listed(model, split, device)
    logits, labels = score(model.logits, loader, len(samples), split)
    broken = int((~np.isfinite(logits)).any(axis=1).sum())
    if broken:
        raise UserError(f"{model.path}: the network answers {broken} images with NaN or infinity; train it anew")
    return Answers(split, samples, logits, labels, model.class_names)
