"""A model for tests of what surrounds models, and images for it."""

from pathlib import Path

import numpy as np
from PIL import Image

from imaging.transforms import EvalTransform


class ShadeModel:
    """Predicts "bright" with the image's own red, so that a swapped row shows."""

    class_names = ["dark", "bright"]  # noqa: RUF012
    threshold = None
    identity = "shade"
    transform = EvalTransform(4, 4, None)

    def predict(self, images: np.ndarray) -> np.ndarray:
        red = images[:, 0].mean(axis=(1, 2)) / 255
        return np.stack([1 - red, red], axis=1).astype("float32")


def write_image(path: Path, shade: int = 0) -> str:
    """Writes an image of one red and returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 7), (shade, 0, 0)).save(path)
    return str(path)
