"""What a worker does with a batch: decode it, run the exported model once, and rank the classes of each image."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from inference.description import DESCRIPTION
from inference.predictor import ExportedModel, rank_classes
from serving import decoding, paddlex_protocol
from system import machine
from system.files import file_digest
from system.settings import Settings

# Freed memory goes back to the system after images of more pixels than this: the peak of one must not stay for ever.
LARGE_PIXELS = 2_000_000


class Judge:
    """An exported model that answers jobs."""

    def __init__(self, folder: str, settings: Settings, engine: str, max_pixels: int):
        """Loads the folder.

        Raises:
            UserError: It cannot be served.
        """
        path = Path(folder)
        # Before the files are read: an export that comes in between then counts as a new one.
        self.digest = file_digest(path / DESCRIPTION) if (path / DESCRIPTION).is_file() else ""
        device = machine.select_device(settings)
        self.model = ExportedModel(path, device, settings.threads, engine)
        self.device, self.max_pixels = device, max_pixels
        self.indices = {name: index for index, name in enumerate(self.model.class_names)}
        self.threads = ThreadPoolExecutor(settings.threads)

    def about(self) -> dict[str, Any]:
        """What `GET /model` tells."""
        import paddle

        model = self.model
        return {
            "name": model.path.resolve().name,
            "classes": model.class_names,
            "threshold": model.threshold,
            "temperature": model.temperature,
            "image_shape": list(model.image_shape),
            "resize_short": model.transform.resize_short,
            "engine": model.engine,
            "device": self.device,
            "digest": self.digest,
            "paddle": paddle.__version__,
        }

    def answer(self, jobs: Sequence[dict[str, Any]], files: Sequence[bytes]) -> list[dict[str, Any]]:
        """Judges images.

        Args:
            jobs: `kind` ("classify" or "paddlex"), `name` of the file, `top`: how many classes to tell.
            files: What the client sent for each.

        Returns:
            For each `top` as [index, class, probability] and `none_of_these`, or `error` and its HTTP `status`.
        """
        read = list(self.threads.map(self._read, jobs, files))
        rows = iter(self._probabilities([one["pixels"] for one in read if "pixels" in one]))
        answers = [self._told(one, next(rows)) if "pixels" in one else one for one in read]
        if any(one.pop("large", False) for one in read):
            machine.release_memory()
        return answers

    def _read(self, job: dict[str, Any], data: bytes) -> dict[str, Any]:
        read = {"top": job["top"]}
        if job["kind"] == "paddlex":
            request = paddlex_protocol.parse(data)
            if "error" in request:
                return request
            data, read["top"], read["draw"] = request["image"], request["topk"] or job["top"], request["visualize"]
        image = decoding.read(data, job["name"], self.max_pixels)
        small = decoding.shrink(image, self.model.transform, job["name"])
        if isinstance(small, dict):
            return small
        if read.get("draw"):
            read["draw"] = image
        return read | {"pixels": small, "large": image.width * image.height > LARGE_PIXELS}

    def _probabilities(self, images: list[np.ndarray]) -> np.ndarray:
        return self.model.predict(np.stack(images)) if images else np.zeros((0, len(self.model.class_names)))

    def _told(self, read: dict[str, Any], row: np.ndarray) -> dict[str, Any]:
        best = rank_classes(row, self.model.class_names, read["top"])
        threshold = self.model.threshold
        told: dict[str, Any] = {
            "top": [[self.indices[name], name, probability] for name, probability in best],
            "none_of_these": threshold is not None and best[0][1] < threshold,
        }
        if read.get("draw"):
            told["image"] = paddlex_protocol.draw(read["draw"], *best[0])
        return told
