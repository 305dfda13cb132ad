"""The figures of predict.py: its first images with their predictions, and under heat maps."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from annotation.lists import Sample
from evaluation import gradcam, plots
from evaluation.predictors import RunModel
from evaluation.thumbnails import Thumbnails
from imaging.images import read_image
from inference.interfaces import Model
from system.settings import Settings

# Images drawn at most, and the side of each in pixels.
SHOWN, SHOWN_SIDE = 60, 256


class Gallery:
    """Collects the first predictions, and draws them at the end.

    Args:
        show: PNG for the images with their predictions; None: not drawn.
        explain: PNG for the images under the heat map of their top-1 class; None: not drawn.
    """

    def __init__(self, show: str | None, explain: str | None):
        self.show, self.explain = show, explain
        self.items: list[tuple[str, int, float]] = []

    def add(self, path: str, probabilities: np.ndarray) -> None:
        """Adds an image with its probabilities, float32 [C], while there is room."""
        if (self.show or self.explain) and len(self.items) < SHOWN:
            best = int(probabilities.argmax())
            self.items.append((path, best, float(probabilities[best])))

    def draw(self, model: Model, settings: Settings) -> None:
        """Draws the figures asked for; heat maps need a RunModel, since an exported graph has no gradients."""
        if not self.items:
            return
        captions = [f"{model.class_names[best]} {probability:.2f}" for _, best, probability in self.items]
        if self.show:
            images = [read_image(path, settings.max_pixels) for path, _, _ in self.items]
            for image in images:
                image.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
            plots.grid(images, captions, self.show)
        if self.explain and isinstance(model, RunModel):
            plots.grid(list(self._overlays(model, settings.max_pixels)), captions, self.explain)

    def _overlays(self, model: RunModel, max_pixels: int) -> Iterator[Image.Image]:
        thumbnails = Thumbnails(model.transform, max_pixels)
        for path, best, _ in self.items:
            pixels = model.transform.read(path, max_pixels)
            heat = model.explain(pixels[None], [best])[0]
            yield gradcam.overlay(thumbnails.image(Sample(path, Path(path), best)), heat)
