"""Grad-CAM in a worker: heat maps of images, from the training run that the exported model came from."""

import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from evaluation import plots
from evaluation.predictors import RunModel
from evaluation.thumbnails import SIDE, Thumbnails
from models.runs import find_run, run_settings
from serving import decoding
from serving.messages import HeatMap, Result, Task
from serving.refusal import RefusalError
from system import machine
from system.errors import UserError


class Explainer:
    """A trained run that shows which parts of an image speak for a class."""

    def __init__(self, run: str, overrides: Sequence[str], max_pixels: int):
        """Loads the run.

        Raises:
            UserError: It cannot be read.
        """
        found = find_run(run, "")
        settings = run_settings(found, list(overrides))
        machine.select_device(settings)
        self.model, self.max_pixels = RunModel(found, settings), max_pixels
        self.seconds: dict[str, float] = {}
        transform = self.model.transform
        # The heat map is drawn over the crop that the network sees, enlarged where the network takes a small one.
        is_small = max(transform.height, transform.width) < SIDE
        self.background = Thumbnails(transform, max_pixels).transform if is_small else transform

    def model_info(self) -> dict[str, Any]:
        """What the server compares: the run's classes must be those of the exported model."""
        return {"classes": self.model.class_names}

    def run(self, tasks: Sequence[Task], files: Sequence[bytes]) -> list[Result]:
        """Draws a heat map over each image; files that are no images get a RefusalError of their own."""
        return [self._explain(task, data) for task, data in zip(tasks, files, strict=True)]

    def _explain(self, task: Task, data: bytes) -> Result:
        try:
            image = decoding.decode(data, task.name, self.max_pixels)
            pixels = decoding.transform(image, self.model.transform, task.name, self.max_pixels)[None]
            names = self.model.class_names
            index = names.index(task.class_name) if task.class_name else int(self.model.predict(pixels)[0].argmax())
            heatmap = self.model.explain(pixels, [index])[0]
        except RefusalError as error:
            return error
        except UserError as error:
            return RefusalError(400, str(error))
        file = io.BytesIO()
        crop = Image.fromarray(self.background(image, self.max_pixels).transpose(1, 2, 0))
        plots.overlay(crop, heatmap).save(file, "PNG")
        return HeatMap(file.getvalue())
