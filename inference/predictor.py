"""Exported models: a folder that export.py wrote, checked and run by the engine of the settings."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import paddle

from inference import description, engines
from inference.description import EXAMPLE, GRAPH
from system import files
from system.errors import UserError

# The prediction for an image whose highest probability is below the model's threshold.
NONE_OF_THESE = "none of these"
# Largest difference of a probability from the exporter's on another machine: GPUs round more coarsely than CPUs.
FOREIGN_TOLERANCE = 1e-3


class ExportedModel:
    """A folder that export.py wrote, run by Paddle Inference or ONNX Runtime.

    Attributes:
        path: The folder.
        class_names: Label map.
        transform: The pipeline its images go through.
        temperature: What its graph divides logits by.
        threshold: An image whose highest probability is below it is none of the classes; None: there is no such.
        engine: What runs it, one of deployment.engines; never "auto".
        reason: Why this engine was taken, in words; "" when it was asked for by name.
    """

    def __init__(self, path: str | os.PathLike, device: str = "cpu", threads: int = 1, engine: str = "onednn"):
        """Checks the folder, loads the graph and lets it answer once.

        Raises:
            UserError: A file of the folder is missing, torn or of another export, the engine is not there, or this
                machine answers otherwise than the exporter's.
        """
        self.path = Path(path)
        described = description.read(self.path)
        self.class_names, self.transform = described.class_names, described.transform
        self.temperature, self.threshold = described.temperature, described.threshold
        self.image_shape = (3, self.transform.height, self.transform.width)
        _check_release(self.path, engines.graph_of(self.path, engine)[0], described.paddle)
        self.engine, self.reason = engine, ""
        if engine == "auto":
            description.needed(self.path, engines.graph_of(self.path, engine)[0])
            self.engine, self.reason = engines.choose(self.path, device, threads, self.image_shape, described.engines)
        elif engine == "onednn" and device.startswith("gpu"):
            self.engine = "gpu"
        self._run = engines.load(self.path, self.engine, device, threads, self.image_shape)
        self._answer_once(described.paddle)

    @property
    def identity(self) -> str:
        """What tells its answers from every other model's: digest of inference.yml, and 8 bits or not."""
        return f"{files.file_digest(self.path / description.DESCRIPTION)} {self.engine == 'int8'}"

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Computes probabilities float32 [N, C] of raw pixels [N, 3, height, width], uint8 or float32 in 0..255."""
        return self._run(np.ascontiguousarray(images, dtype=np.float32))

    def _answer_once(self, written_by: str) -> None:
        """Warms the engine up on a known image, and compares with what the exporter's machine answered."""
        try:
            answer = self.predict(engines.pattern(1, self.image_shape))[0]
        except Exception as error:
            raise UserError(
                f"{self.path}: engine={self.engine}: the graph (paddle {written_by or 'unknown'}) fails under paddle "
                f"{paddle.__version__} ({engines.last_line(error)}); install that release or export the run anew"
            ) from None
        if len(answer) != len(self.class_names):
            raise UserError(
                f"{self.path}: the graph answers for {len(answer)} classes, {description.DESCRIPTION} lists "
                f"{len(self.class_names)}; export the run anew"
            )
        expected = _expected(self.path / EXAMPLE)
        # 8 bits answer a little differently by nature; export.py checks their accuracy.
        if expected is None or self.engine == "int8":
            return
        gap = float(np.abs(answer - expected).max()) if len(expected) == len(answer) else float("nan")
        if not gap <= FOREIGN_TOLERANCE:
            raise UserError(
                f"{self.path}: engine={self.engine}: answers {gap:.2g} away from the export's own example on this "
                f"machine (paddle {paddle.__version__}, written by {written_by}); use another engine=NAME"
            )


def rank_classes(probabilities: np.ndarray, class_names: Sequence[str], top_k: int) -> list[tuple[str, float]]:
    """Sorts classes by probability, the likeliest first, at most top_k; probabilities are float [C]."""
    order = (-probabilities).argsort(kind="stable")[:top_k]
    return [(class_names[i], float(probabilities[i])) for i in order]


def _expected(file: Path) -> np.ndarray | None:
    try:
        return np.asarray(json.loads(file.read_text(encoding="utf-8"))["pattern"]["probabilities"], np.float32)
    # Exports of other tools have no example, and older ones no pattern.
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _check_release(folder: Path, graph: str, written_by: str) -> None:
    """Compares releases before anything is loaded: an old paddle crashes on a new graph instead of refusing it."""
    here, there = _release(paddle.__version__), _release(written_by)
    if graph == GRAPH and here and here < (3,):
        raise UserError(
            f"{folder / GRAPH}: paddle {paddle.__version__} is too old for this file; install paddlepaddle "
            f"{written_by or '3.0 or newer'}"
        )
    if here and there and here[0] != there[0]:
        raise UserError(
            f"{folder}: written by paddle {written_by}, this is {paddle.__version__}; install "
            f"paddlepaddle=={written_by} or export the run anew"
        )
    if here and there and here[:2] != there[:2]:
        print(f"{folder}: written by paddle {written_by}, this is {paddle.__version__}", file=sys.stderr)


def _release(version: str) -> tuple[int, ...]:
    parts = version.split(".")[:2]
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ()
