"""Predictors: a trained run or an exported model behind one interface."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import paddle
from paddle import nn

from annotation.lists import Sample
from evaluation import gradcam
from features.extraction import FeatureExtractor
from imaging.images import ImageError
from imaging.transforms import EvalTransform
from inference.predictor import ExportedModel
from inference.sources import SkippedFiles, find_images
from models.checkpoint import LAST, Run
from system.settings import Settings

# Smallest probability whose logarithm is taken: float32 holds hardly anything below.
TINY = 1e-37


class Evaluable(Protocol):
    """What can be evaluated.

    Attributes:
        name: Name of the run or export.
        path: Its folder.
        report_folder: Where its report goes by default.
        class_names: Its label map.
        transform: The pipeline its images go through.
        settings: Settings of the evaluation.
        weights: "best", "last" or "exported".
        temperature: What logits are divided by before the softmax.
        threshold: Images whose highest probability is below it are rejected; None: none is.
    """

    name: str
    path: Path
    report_folder: Path
    class_names: list[str]
    transform: EvalTransform
    settings: Settings
    weights: str
    temperature: float
    threshold: float | None

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Computes logits float [N, C] of raw pixels uint8 [N, 3, H, W], without the temperature."""

    def remarks(self) -> list[str]:
        """What a reader of the report should know of the weights."""

    def described(self) -> dict[str, Any]:
        """Settings to print in the report."""


class RunModel:
    """A trained run with its best weights; see Evaluable."""

    def __init__(self, run: Run, settings: Settings):
        self.run, self.settings = run, settings
        self.name, self.path, self.class_names = run.name, run.path, run.class_names
        self.report_folder = run.path
        self.transform = EvalTransform.from_settings(settings)
        self.temperature, self.threshold = run.temperature, run.threshold
        self.classifier = run.load_network()
        self.weights = run.weights_kind()
        self._extractors: dict[str, FeatureExtractor] = {}

    @property
    def identity(self) -> str:
        """Identifies the model: SHA-256 of its weights, temperature and threshold."""
        return f"{self.run.fingerprint()} {self.temperature} {self.threshold}"

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Computes calibrated probabilities float32 [N, C] of raw pixels uint8 [N, 3, H, W]."""
        with paddle.no_grad():
            logits = self.classifier(paddle.to_tensor(images)) / self.temperature
            return nn.functional.softmax(logits, axis=-1).numpy()

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Computes logits float32 [N, C] of raw pixels uint8 [N, 3, H, W]."""
        with paddle.no_grad():
            return self.classifier(paddle.to_tensor(images)).numpy()

    def extractor(self, device: str) -> FeatureExtractor:
        """What computes features and logits at the speed of inference; compiled once for all lists."""
        if device not in self._extractors:
            self._extractors[device] = FeatureExtractor(self.classifier, self.settings, device)
        return self._extractors[device]

    def explain(self, images: np.ndarray, class_indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Computes heat maps float32 [N, H, W] in 0..1; see gradcam.explain."""
        return gradcam.explain(self.classifier, images, class_indices, self.settings.explain_layer)

    def remarks(self) -> list[str]:
        """See Evaluable."""
        state = self.run.state
        if state.get("finished", False):
            return []
        reached = (
            f"after epoch {state['epoch']} of {self.settings.epochs}" if "epoch" in state else "in its first epoch"
        )
        which = "its last weights, never validated," if self.weights == LAST else "its best weights so far"
        return [f"the run never finished: it ended {reached}; {which} are evaluated"]

    def described(self) -> dict[str, Any]:
        """See Evaluable."""
        return self.settings.model_dump(mode="json")


class ExportModel:
    """An exported model; see Evaluable.

    Its graph returns probabilities, temperature included; logits are recovered from them up to a constant per image.
    """

    weights = "exported"

    def __init__(self, model: ExportedModel, settings: Settings):
        self.model, self.settings = model, settings
        self.path = Path(model.path)
        self.name, self.class_names = self.path.resolve().name, model.class_names
        # Beside the graph, the report's metrics.json would look like a part of the export.
        self.report_folder = self.path / "evaluation"
        self.transform = model.transform
        self.temperature, self.threshold = model.temperature, model.threshold

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Computes logits float64 [N, C] of raw pixels uint8 [N, 3, H, W]."""
        probabilities = self.model.predict(images).astype(np.float64)
        return self.temperature * np.log(np.maximum(probabilities, TINY))

    def remarks(self) -> list[str]:
        """See Evaluable."""
        return [f"evaluated as exported, with the engine {self.model.engine}; Grad-CAM needs the run"]

    def described(self) -> dict[str, Any]:
        """See Evaluable."""
        return {
            "image_shape": list(self.transform.image_shape),
            "engine": self.model.engine,
            "data_dir": self.settings.data_dir,
        }


def open_model(run: Run | ExportedModel, settings: Settings) -> RunModel | ExportModel:
    """Loads a run's network, or wraps an exported model, for an evaluation."""
    return ExportModel(run, settings) if isinstance(run, ExportedModel) else RunModel(run, settings)


def folder_logits(model: Evaluable, folder: str, skipped: SkippedFiles) -> tuple[np.ndarray, int]:
    """Runs a model on every image below a folder, as predict.py finds them.

    Args:
        skipped: Told what in the folder is skipped.

    Returns:
        Logits float [M, C], and the number of files that could not be read.

    Raises:
        UserError: There is no image.
    """
    settings = model.settings
    unreadable, batch, found = 0, [], [np.zeros((0, len(model.class_names)), np.float32)]
    for path in find_images([folder], skipped):
        try:
            batch.append(model.transform.read(path, settings.max_pixels))
        except ImageError:
            unreadable += 1
        if len(batch) == settings.batch_size:
            found.append(model.logits(np.stack(batch)))
            batch = []
    if batch:
        found.append(model.logits(np.stack(batch)))
    return np.concatenate(found), unreadable


def read_images(samples: Iterable[Sample], model: Evaluable) -> np.ndarray:
    """Reads images as the network sees them: uint8 [N, 3, H, W]."""
    return np.stack([model.transform.read(sample.file, model.settings.max_pixels) for sample in samples])
