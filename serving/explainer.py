"""What the explaining worker does: Grad-CAM over an image, with the run that the exported model came from."""

import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from serving import decoding
from system import machine
from system.errors import UserError


class Explainer:
    """A trained run that shows where an image speaks for a class."""

    def __init__(self, run: str, overrides: Sequence[str], max_pixels: int):
        """Loads the run.

        Raises:
            UserError: It cannot be read.
        """
        from evaluation.predictors import RunModel
        from evaluation.thumbnails import SIDE, Thumbnails
        from models.checkpoint import find, run_settings

        found = find(run, "")
        self.settings = run_settings(found, list(overrides))
        machine.select_device(self.settings)
        self.model, self.max_pixels = RunModel(found, self.settings), max_pixels
        transform = self.model.transform
        # The heat map lies over the section that the network sees, larger where the network sees little.
        small = max(transform.height, transform.width) < SIDE
        self.shown = Thumbnails(transform, max_pixels).transform if small else transform

    def about(self) -> dict[str, Any]:
        """What the server checks: that the run knows the classes of the exported model."""
        return {"classes": self.model.class_names}

    def answer(self, jobs: Sequence[dict[str, Any]], files: Sequence[bytes]) -> list[dict[str, Any]]:
        """Draws a heat map over each image: `image` as the bytes of a PNG, or `error` and its HTTP `status`.

        Args:
            jobs: `name` of the file, `class`: which class is to be explained; "": the likeliest.
        """
        return [self._one(job, data) for job, data in zip(jobs, files, strict=True)]

    def _one(self, job: dict[str, Any], data: bytes) -> dict[str, Any]:
        from evaluation import gradcam

        image = decoding.read(data, job["name"], self.max_pixels)
        small = decoding.shrink(image, self.model.transform, job["name"])
        if isinstance(small, dict):
            return small
        names = self.model.class_names
        index = names.index(job["class"]) if job["class"] else int(self.model.predict(small[None])[0].argmax())
        try:
            heat = self.model.explain(small[None], [index])[0]
        except UserError as error:
            return {"error": str(error), "status": 400}
        file = io.BytesIO()
        seen = Image.fromarray(self.shown(image).transpose(1, 2, 0))
        gradcam.overlay(seen, heat).save(file, "PNG")
        return {"image": file.getvalue(), "class": names[index]}
