"""Batch classification in a worker: decodes images, runs the exported model once per batch, ranks the classes."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from PIL import Image

from imaging.formats import sniff
from imaging.images import count_pixels
from inference.names import DESCRIPTION
from inference.predictor import ExportedModel
from inference.ranking import is_rejected, rank_classes
from serving import decoding, paddlex_protocol
from serving.messages import Deferred, Prediction, Result, Task
from serving.refusal import RefusalError
from system import machine
from system.files import file_digest
from system.settings import Settings

# Freed memory goes back to the system after images of more pixels, and batches of more bytes, than this, so that one
# large image does not keep the process at its peak for ever.
LARGE_PIXELS, LARGE_BYTES = 2_000_000, 4 << 20
# Images of more pixels are deferred: decoding one may take a second. Of JPEGs, which cost half as much, twice as many.
HEAVY_PIXELS = 8_000_000


@dataclass(frozen=True)
class _Decoded:
    """An image that is ready for the network.

    Attributes:
        pixels: uint8 [3, H, W].
        original: The decoded image, where the prediction is to be drawn onto it.
        is_large: Whether decoding took much memory.
    """

    pixels: np.ndarray
    top_k: int
    original: Image.Image | None
    is_large: bool


class BatchClassifier:
    """An exported model that classifies batches of uploaded files.

    Attributes:
        seconds: How long the last batch took, by stage.
    """

    def __init__(self, folder: str, settings: Settings, engine: str, max_pixels: int):
        """Loads the exported model.

        Raises:
            UserError: It cannot be served.
        """
        path = Path(folder)
        # Before the files are read: an export written meanwhile then counts as a new one.
        self.digest = file_digest(path / DESCRIPTION) if (path / DESCRIPTION).is_file() else ""
        threads = machine.threads(settings)
        device = machine.select_device(settings)
        self.model = ExportedModel(path, device, threads, engine)
        self.device, self.max_pixels = device, max_pixels
        self.indices = {name: index for index, name in enumerate(self.model.class_names)}
        self.decoders = ThreadPoolExecutor(threads)
        self.seconds: dict[str, float] = {}

    def model_info(self) -> dict[str, Any]:
        """The model's part of `GET /model`."""
        model = self.model
        return {
            "name": model.path.resolve().name,
            "classes": model.class_names,
            "threshold": model.threshold,
            "temperature": model.temperature,
            "image_shape": list(model.image_shape),
            "cover": model.transform.cover,
            "fill": model.transform.fill,
            "engine": model.engine,
            "device": self.device,
            "digest": self.digest,
            "paddle": paddle.__version__,
        }

    def run(self, tasks: Sequence[Task], files: Sequence[bytes]) -> list[Result]:
        """Classifies files; those that are no images get a RefusalError of their own, heavy ones are deferred."""
        start = time.perf_counter()
        decoded = list(self.decoders.map(self._decode, tasks, files))
        self.seconds["decode"] = time.perf_counter() - start
        rows = iter(self._probabilities([one.pixels for one in decoded if isinstance(one, _Decoded)]))
        self.seconds["inference"] = time.perf_counter() - start - self.seconds["decode"]
        results: list[Result] = [
            self._predict(one, next(rows)) if isinstance(one, _Decoded) else one for one in decoded
        ]
        is_large = any(isinstance(one, _Decoded) and one.is_large for one in decoded)
        if is_large or sum(map(len, files)) > LARGE_BYTES:
            machine.release_memory()
        return results

    def _decode(self, task: Task, data: bytes) -> _Decoded | RefusalError | Deferred:
        top_k, draws = task.top_k, False
        try:
            if task.paddlex:
                request = paddlex_protocol.parse(data)
                data, top_k, draws = request.image, request.top_k or top_k, request.visualize
            if task.is_comparison:
                top_k, draws = len(self.model.class_names), False
            if not task.is_deferred and _is_heavy(data, draws):
                return Deferred()
            image = decoding.decode(data, task.name, self.max_pixels)
            pixels = decoding.transform(image, self.model.transform, task.name, self.max_pixels)
        except RefusalError as error:
            # Without its traceback, whose frames would keep the file in memory until the next garbage collection.
            return RefusalError(error.status, error.message)
        return _Decoded(pixels, top_k, image if draws else None, image.width * image.height > LARGE_PIXELS)

    def _probabilities(self, images: list[np.ndarray]) -> np.ndarray:
        return self.model.predict(np.stack(images)) if images else np.zeros((0, len(self.model.class_names)))

    def _predict(self, decoded: _Decoded, row: np.ndarray) -> Prediction:
        ranked = rank_classes(row, self.model.class_names, decoded.top_k)
        return Prediction(
            [(self.indices[name], name, probability) for name, probability in ranked],
            is_rejected(ranked[0][1], self.model.threshold),
            paddlex_protocol.draw(decoded.original, *ranked[0]) if decoded.original else b"",
        )


def _is_heavy(data: bytes, is_drawn: bool) -> bool:
    pixels = count_pixels(data)
    if is_drawn:
        # The decoded image is held until its batch is done.
        return pixels > LARGE_PIXELS
    return pixels > HEAVY_PIXELS * (2 if sniff(data) == "JPEG" else 1)
