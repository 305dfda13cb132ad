"""Thumbnails: small images for the pages, as data URIs, cropped as the network sees them."""

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from annotation.lists import Sample
from evaluation.plots import overlay
from imaging.transforms import EvalTransform

# Longer side in pixels: sharp on a phone, a few kilobytes each.
SIDE = 192


class Thumbnails:
    """Crops images as the evaluation pipeline does, scaled to a longer side in pixels."""

    def __init__(self, transform: EvalTransform, max_pixels: int, side: int = SIDE):
        factor = side / max(transform.height, transform.width)
        height, width = (max(1, round(side * factor)) for side in (transform.height, transform.width))
        high, wide = (max(1, round(side * factor)) for side in transform.cover or (1, 1))
        cover = (max(high, height), max(wide, width)) if transform.cover else None
        self.transform = replace(transform, height=height, width=width, cover=cover)
        self.max_pixels = max_pixels
        self.cropped: dict[Path, Image.Image] = {}

    def image(self, sample: Sample) -> Image.Image:
        """The crop of an image that the network sees, RGB."""
        if sample.file not in self.cropped:
            pixels = self.transform.read(sample.file, self.max_pixels)
            self.cropped[sample.file] = Image.fromarray(pixels.transpose(1, 2, 0))
        return self.cropped[sample.file]

    def plain(self, sample: Sample) -> str:
        """The image as a data URI."""
        return encode(self.image(sample))

    def heated(self, sample: Sample, heatmap: np.ndarray) -> str:
        """The image under a heat map float [H, W], 0..1, as a data URI."""
        return encode(overlay(self.image(sample), heatmap))


def encode(image: Image.Image) -> str:
    """Turns an image into a JPEG data URI."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def embed(png: bytes) -> str:
    """Turns a PNG into a data URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode()
