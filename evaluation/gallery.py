"""The figures of predict.py: its first images with their predictions, under heat maps, and feature maps of one."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from annotation.lists import Sample
from evaluation import feature_maps, plots
from evaluation.predictors import RunModel
from evaluation.thumbnails import Thumbnails
from imaging.images import read_image
from inference.interfaces import Model
from inference.ranking import NONE_OF_THESE, is_rejected, rank_classes
from inference.sources import ImageSource
from inference.terminal import label_of
from system.settings import Settings
from system.text import counted, start

# Images drawn at most, and the side of each in pixels.
SHOWN, SHOWN_SIDE = 60, 256
# Letters that fit under an image; Chinese ones count twice.
LINE = 26


class _Item(NamedTuple):
    source: ImageSource
    probabilities: np.ndarray


class Gallery:
    """Collects the first predictions, and draws them at the end.

    Args:
        show: PNG for the images with their predictions; None: not drawn.
        explain: PNG for the images under the heat map of their top-1 class; None: not drawn.
        kind: "maps": filters and the feature maps of the first image there instead.
    """

    def __init__(self, show: str | None, explain: str | None, kind: str = "heat"):
        self.show, self.explain, self.kind = show, explain, kind
        self.items: list[_Item] = []
        self.predicted = 0

    def add(self, source: ImageSource, probabilities: np.ndarray) -> None:
        """Counts an image, and keeps it with its probabilities, float32 [C], while there is room."""
        self.predicted += 1
        if (self.show or self.explain) and len(self.items) < SHOWN:
            self.items.append(_Item(source, probabilities))

    def draw(self, model: Model, settings: Settings) -> None:
        """Draws the figures asked for; heat maps need a RunModel, since an exported graph has no gradients."""
        if not self.items:
            return
        if self.show:
            images = [read_image(item.source.path, settings.max_pixels) for item in self.items]
            for image in images:
                image.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
            self._write(images, model, self.show)
        if self.explain and isinstance(model, RunModel) and self.kind == "maps":
            path = self.items[0].source.path
            pixels = model.transform.read(path, settings.max_pixels)
            title = f"feature maps of {_end(path)}"
            feature_maps.draw(model.classifier, pixels, settings.explain_layer, self.explain, title)
            print(f"{self.explain}: feature maps of {path}, the first of {self.predicted} images", file=sys.stderr)
        elif self.explain and isinstance(model, RunModel):
            self._write(list(self._overlays(model, settings.max_pixels)), model, self.explain)

    def _write(self, images: list[Image.Image], model: Model, file: str) -> None:
        """Draws the grid, and says in it and on the terminal how many images it shows."""
        captions, marked = zip(*(_caption(item, model) for item in self.items), strict=True)
        count = f"the first {len(self.items)} of " if self.predicted > len(self.items) else "all "
        title = f"{count if self.predicted > 1 else ''}{counted(self.predicted, 'image')}"
        plots.grid(images, captions, file, title=title, marked=marked)
        print(f"{file}: {title}", file=sys.stderr)

    def _overlays(self, model: RunModel, max_pixels: int) -> Iterator[Image.Image]:
        thumbnails = Thumbnails(model.transform, max_pixels)
        for source, probabilities in self.items:
            pixels, best = model.transform.read(source.path, max_pixels), int(probabilities.argmax())
            heat = model.explain(pixels[None], [best])[0]
            yield plots.overlay(thumbnails.image(Sample(source.path, Path(source.path), best)), heat)


def _caption(item: _Item, model: Model) -> tuple[str, bool]:
    """Returns the lines under an image, and whether its prediction is not its label."""
    ((name, probability),) = rank_classes(item.probabilities, model.class_names, 1)
    rejected, label = is_rejected(probability, model.threshold), label_of(item.source, model)
    is_wrong = label is not None and (rejected or name != label)
    best = f"{_start(name, LINE - 7)} {probability:.2f}"
    lines = [_end(item.source.path), *([NONE_OF_THESE, f"({best})"] if rejected else [best])]
    if label is not None:
        lines.append(_start(f"{'✗ WRONG, ' if is_wrong else ''}label: {label}"))
    return "\n".join(lines), is_wrong


def _start(text: str, most: int = LINE) -> str:
    """Cuts the end of a text that is too long for a line."""
    return start(_drawable(text), most)


def _end(text: str) -> str:
    """Cuts the start of a text that is too long for a line: of a path, the end tells files apart."""
    return start(_drawable(text)[::-1], LINE)[::-1]


def _drawable(text: str) -> str:
    """Escapes line breaks, and bytes of file names that are not UTF-8."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
