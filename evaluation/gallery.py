"""The first images of a run of predict.py as one figure: with their answers, or with what speaks for them."""

from pathlib import Path

import numpy as np

from imaging.images import read_image

# Images that are drawn at most, and the side of each, in pixels.
SHOWN, SHOWN_SIDE = 60, 256


class Gallery:
    """Remembers the first images answered for, and draws them at the end.

    Args:
        show: PNG for the images with their answers; None: not wanted.
        explain: PNG for the images under the heat map of their likeliest class; None: not wanted.
    """

    def __init__(self, show: str | None, explain: str | None):
        self.show, self.explain = show, explain
        self.items: list[tuple[str, int, float]] = []

    def add(self, path: str, probabilities: np.ndarray) -> None:
        """Takes note of an image and its answer, float32 [C]."""
        if (self.show or self.explain) and len(self.items) < SHOWN:
            best = int(probabilities.argmax())
            self.items.append((path, best, float(probabilities[best])))

    def draw(self, model, settings) -> None:
        """Draws what was asked for.

        Args:
            model: What answered; for heat maps a RunModel, since an exported graph has no gradients.
        """
        from evaluation import plots

        if not self.items:
            return
        captions = [f"{model.class_names[best]} {probability:.2f}" for _, best, probability in self.items]
        if self.show:
            images = [read_image(path, settings.max_pixels) for path, _, _ in self.items]
            for image in images:
                image.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
            plots.grid(images, captions, self.show)
        if self.explain:
            plots.grid(list(self._overlays(model, settings)), captions, self.explain)

    def _overlays(self, model, settings):
        from annotation.lists import Sample
        from evaluation import gradcam
        from evaluation.thumbnails import Thumbnails

        thumbnails = Thumbnails(model.transform, settings.max_pixels)
        for path, best, _ in self.items:
            pixels = model.transform(read_image(path, settings.max_pixels))
            heat = model.explain(pixels[None], [best])[0]
            yield gradcam.overlay(thumbnails.image(Sample(path, Path(path), best)), heat)
