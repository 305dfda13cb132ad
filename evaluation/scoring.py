"""Running a model over the images of a list."""

from collections.abc import Sequence

import numpy as np

from annotation.lists import LABELS, Sample, read_split
from dataset import BatchLoader, ListDataset
from evaluation.predictions import Predictions
from evaluation.predictors import Evaluable, RunModel
from features.extraction import logits_of_samples
from models.compatibility import check_labels
from system import progress
from system.errors import UserError
from system.workers import choose_workers, reporting_dead_workers


def read_samples(model: Evaluable, split: str) -> list[Sample]:
    """Reads a list of the model's data set.

    Raises:
        UserError: It is missing, empty or malformed, names missing files, or its label map is not the model's.
    """
    samples, class_names = read_split(model.settings, split)
    check_labels(model, class_names, model.settings.lists / LABELS)
    return samples


def predict_split(model: Evaluable, split: str, device: str) -> Predictions:
    """Computes predictions for the images of a list, without temperature and threshold.

    Raises:
        UserError: See `read_samples` and `predict_samples`.
    """
    samples = read_samples(model, split)
    labels = np.array([sample.label for sample in samples], np.int64)
    return Predictions(split, samples, predict_samples(model, samples, split, device), labels, model.class_names)


def predict_samples(model: Evaluable, samples: Sequence[Sample], title: str, device: str) -> np.ndarray:
    """Computes the logits of N images, float [N, C], without temperature.

    Args:
        title: Of the progress bar.

    Raises:
        UserError: An image cannot be read, or the network returns NaN or infinity.
    """
    if isinstance(model, RunModel):
        # At the speed of inference, and at once where training has computed the same features.
        logits = logits_of_samples(model.extractor(device), samples, title)
    else:
        logits = _run_batches(model, samples, title, device)
    broken = int((~np.isfinite(logits)).any(axis=1).sum())
    if broken:
        raise UserError(f"{model.path}: the network returns NaN or infinity for {broken} images; train it again")
    return logits


def _run_batches(model: Evaluable, samples: Sequence[Sample], title: str, device: str) -> np.ndarray:
    settings = model.settings
    dataset = ListDataset(samples, model.transform, settings.max_pixels)
    loader = BatchLoader(dataset, settings.batch_size, choose_workers(settings, device))
    rows = []
    with reporting_dead_workers(), progress.bar(len(samples), "images", title) as bar:
        for images, labels in loader:
            rows.append(model.logits(images))
            bar.update(len(labels))
    logits = np.concatenate(rows)
    if len(logits) != len(samples):
        raise RuntimeError(f"{len(logits)} images were evaluated, {len(samples)} are listed")
    return logits
