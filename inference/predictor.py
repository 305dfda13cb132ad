"""Exported models: a folder that export.py wrote, verified and run by one engine."""

import os
import sys
from pathlib import Path

import numpy as np
import paddle

from inference import description, engines
from inference.example import pattern, read_pattern
from inference.extras import is_exact
from inference.names import DESCRIPTION, EXAMPLE, GRAPH
from system import files
from system.errors import UserError

# Largest difference of a probability from the exporter's on another machine: GPUs round more coarsely than CPUs.
EXAMPLE_TOLERANCE = 1e-3


class ExportedModel:
    """A folder that export.py wrote, run by Paddle Inference or ONNX Runtime.

    Attributes:
        path: The folder.
        class_names: Label map.
        transform: Preprocessing of its images.
        temperature: Logits are divided by it inside the graph.
        threshold: An image whose highest probability is below it is none of the classes; None: every image is one.
        engine: What runs it, one of the setting `engine`'s values except "auto".
        reason: Why `auto` chose this engine, or how it differs from the run; "" for an exact one that was named.
    """

    def __init__(self, path: str | os.PathLike, device: str = "cpu", threads: int = 1, engine: str = "onednn"):
        """Verifies the folder, loads the graph and predicts the pattern of example.json.

        Raises:
            UserError: A file of the folder is missing, torn or of another export, the engine is not available, or the
                probabilities on this machine are not the exporter's.
        """
        self.path = Path(path)
        described = description.read(self.path)
        self.class_names, self.transform = described.class_names, described.transform
        self.temperature, self.threshold = described.temperature, described.threshold
        _check_release(self.path, engines.graph_files(self.path, engine)[0], described.paddle)
        self.engine, self.reason = engine, "" if is_exact(engine) else "probabilities differ a little from the run's"
        if engine == "auto":
            description.require(self.path, engines.graph_files(self.path, engine)[0])
            self.engine, self.reason = engines.choose(self.path, device, threads, self.image_shape, described.engines)
        elif engine == "onednn" and device.startswith("gpu"):
            self.engine = "gpu"
        self._run = engines.load(self.path, self.engine, device, threads, self.image_shape)
        self._verify_example(described.paddle)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of one image before the graph: channels, height, width."""
        return self.transform.image_shape

    @property
    def identity(self) -> str:
        """Digest of inference.yml, and the engine if it is not exact: other predictions have another identity."""
        return f"{files.file_digest(self.path / DESCRIPTION)} {not is_exact(self.engine) and self.engine}"

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Computes probabilities float32 [N, C] of raw pixels [N, 3, height, width], uint8 or float32 in 0..255."""
        return self._run(np.ascontiguousarray(images, dtype=np.float32))

    def _verify_example(self, written_by: str) -> None:
        """Warms the engine up on the pattern, and compares with the probabilities on the exporter's machine."""
        try:
            found = self.predict(pattern(1, self.image_shape))[0]
        except Exception as error:
            raise UserError(
                f"{self.path}: engine={self.engine}: the graph (paddle {written_by or 'unknown'}) fails under paddle "
                f"{paddle.__version__} ({engines.last_line(error)}); install that release or export the run again"
            ) from None
        if len(found) != len(self.class_names):
            raise UserError(
                f"{self.path}: the graph returns {len(found)} classes, {DESCRIPTION} lists "
                f"{len(self.class_names)}; export the run again"
            )
        expected = read_pattern(self.path / EXAMPLE)
        # Less than 32 bits differ a little by nature; export.py verifies their accuracy.
        if expected is None or not is_exact(self.engine):
            return
        difference = float(np.abs(found - expected).max()) if len(expected) == len(found) else float("nan")
        if not difference <= EXAMPLE_TOLERANCE:
            raise UserError(
                f"{self.path}: engine={self.engine}: probabilities of the export's own example differ by "
                f"{difference:.2g} on this machine (paddle {paddle.__version__}, written by {written_by}); use another "
                f"engine=NAME"
            )


def load_engines(folder: Path, device: str, threads: int) -> dict[str, ExportedModel]:
    """Loads a folder into every engine that can run it on this machine.

    Returns:
        Models by name of the engine.
    """
    return {name: ExportedModel(folder, device, threads, name) for name in engines.available(folder, device)}


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
            f"paddlepaddle=={written_by} or export the run again"
        )
    if here and there and here[:2] != there[:2]:
        print(f"{folder}: written by paddle {written_by}, this is {paddle.__version__}", file=sys.stderr)


def _release(version: str) -> tuple[int, ...]:
    parts = version.split(".")[:2]
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ()
