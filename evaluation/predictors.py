"""What evaluate.py can score, behind one interface: a trained run, or an exported model."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

from evaluation import gradcam
from imaging.images import ImageError, read_image, suffixes
from imaging.transforms import EvalTransform
from inference.predictor import ExportedModel
from models.checkpoint import LAST, Run
from models.features import penultimate
from system.settings import Settings

# Probabilities below it have no logarithm in float32 to speak of.
TINY = 1e-37


class RunModel:
    """A trained run with its best weights.

    Attributes:
        name: Of the run.
        path: Its folder, where everything told about it goes.
        class_names: Its label map.
        transform: The pipeline its images go through.
        settings: What it was trained with, and how it is looked at now.
        temperature: What its logits are divided by before the softmax.
        threshold: An image whose highest probability is below it is none of the classes; None: there is no such.
    """

    def __init__(self, run: Run, settings: Settings):
        self.run, self.settings = run, settings
        self.name, self.path, self.class_names = run.name, run.path, run.class_names
        self.transform = EvalTransform.from_settings(settings)
        self.temperature, self.threshold = run.temperature, run.threshold
        self.classifier = run.load_network()
        self.weights = run.weights_kind()

    @property
    def identity(self) -> str:
        """What tells this model from every other: the digest of its weights, and the calibration."""
        return f"{self.run.fingerprint()} {self.temperature} {self.threshold}"

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Computes calibrated probabilities float32 [N, C] of raw pixels uint8 [N, 3, H, W]."""
        with paddle.no_grad():
            logits = self.classifier(paddle.to_tensor(images)) / self.temperature
            return nn.functional.softmax(logits, axis=-1).numpy()

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Computes float32 [N, C] of raw pixels uint8 [N, 3, H, W]."""
        with paddle.no_grad():
            return self.classifier(paddle.to_tensor(images)).numpy()

    def features(self, images: np.ndarray) -> np.ndarray:
        """Computes float32 [N, features], what the last dense layer is given."""
        return penultimate(self.classifier, images)

    def explain(self, images: np.ndarray, class_indices: Sequence[int]) -> np.ndarray:
        """Computes heat maps float32 [N, H, W] in 0..1; see gradcam.explain."""
        return gradcam.explain(self.classifier, images, class_indices, self.settings.explain_layer)

    def remarks(self) -> list[str]:
        """Says what a reader should know of the weights."""
        state = self.run.state
        if state.get("finished", False):
            return []
        reached = (
            f"after epoch {state['epoch']} of {self.settings.epochs}" if "epoch" in state else "in its first epoch"
        )
        which = "the last weights, which no valid score chose," if self.weights == LAST else "its best weights so far"
        return [f"the run never finished: it ended {reached}; {which} are scored"]

    def described(self) -> dict[str, Any]:
        """Settings to print in the report."""
        return self.settings.model_dump(mode="json")


class ExportModel:
    """An exported model; its temperature is part of its graph, so logits are those up to a constant an image."""

    weights = "exported"

    def __init__(self, model: ExportedModel, settings: Settings):
        self.model, self.settings = model, settings
        self.path = Path(model.path)
        self.name, self.class_names = self.path.resolve().name, model.class_names
        self.transform = model.transform

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Computes float64 [N, C] of raw pixels uint8 [N, 3, H, W]."""
        answers = self.model.predict(images).astype(np.float64)
        return self.model.temperature * np.log(np.maximum(answers, TINY))

    def remarks(self) -> list[str]:
        """Says what a reader should know of the model."""
        return [f"scored as exported, with the engine {self.model.engine}; Grad-CAM needs the run"]

    def described(self) -> dict[str, Any]:
        """Settings to print in the report."""
        size = [3, self.transform.height, self.transform.width]
        return {"image_shape": size, "engine": self.model.engine, "data_dir": self.settings.data_dir}


def foreign_logits(
    model: RunModel | ExportModel, folder: str | os.PathLike, batch_size: int, max_pixels: int
) -> tuple[np.ndarray, int]:
    """Runs a model over every image below a folder.

    Returns:
        logits [M, C], and how many files did not become an image.
    """
    files = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in suffixes() and path.is_file())
    unreadable, batch, found = 0, [], [np.zeros((0, len(model.class_names)), np.float32)]
    for path in files:
        try:
            batch.append(model.transform(read_image(path, max_pixels)))
        except ImageError:
            unreadable += 1
        if len(batch) == batch_size:
            found.append(model.logits(np.stack(batch)))
            batch = []
    if batch:
        found.append(model.logits(np.stack(batch)))
    return np.concatenate(found), unreadable


def read_images(samples: Iterable[Any], transform: EvalTransform, max_pixels: int) -> np.ndarray:
    """Reads the images of a few rows as the network sees them: uint8 [N, 3, H, W]."""
    return np.stack([transform(read_image(sample.file, max_pixels)) for sample in samples])
