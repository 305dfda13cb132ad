"""example.json: inputs and the probabilities to expect, with which a client in any language verifies itself."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from annotation.lists import Sample
from imaging.images import read_file

if TYPE_CHECKING:
    from inference.reference import Reference

NUM_IMAGES = 3
ABOUT = (
    "pixels_sha256: of the uint8 pixels [3, height, width] in C order, after resize and crop. pattern: an image that "
    "needs no file; in C order its value i is floor(i * 40503 / 64) modulo 256."
)


def pattern(count: int, image_shape: Sequence[int]) -> np.ndarray:
    """Makes images that need no file, float32 [count, 3, H, W]: value i in C order is i * 40503 // 64 modulo 256."""
    values = np.arange(count * int(np.prod(image_shape)), dtype=np.int64) * 40503 // 64 % 256
    return values.reshape(count, *image_shape).astype(np.float32)


def write_example(file: Path, reference: "Reference", samples: Sequence[Sample], max_pixels: int) -> None:
    """Writes the first samples, and the pattern, with the probabilities of the run.

    Args:
        max_pixels: As for images.read_image.
    """
    shape = reference.transform.image_shape
    content = {
        "about": ABOUT,
        "shape": list(shape),
        "pattern": {"probabilities": _predict_one(reference, pattern(1, shape)[0].astype(np.uint8))},
        "examples": [_example(reference, sample, max_pixels) for sample in samples[:NUM_IMAGES]],
    }
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _example(reference: "Reference", sample: Sample, max_pixels: int) -> dict[str, Any]:
    data = read_file(sample.file, sample.path)
    pixels = reference.transform.read(data, max_pixels, sample.path)
    return {
        "picture": sample.path,
        "file_sha256": hashlib.sha256(data).hexdigest(),
        "pixels_sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
        "probabilities": dict(zip(reference.class_names, _predict_one(reference, pixels), strict=True)),
    }


def _predict_one(reference: "Reference", pixels: np.ndarray) -> list[float]:
    return [float(probability) for probability in reference.predict(pixels[None])[0]]


def read_pattern(file: Path) -> np.ndarray | None:
    """Reads the probabilities float32 [C] of the pattern; None where the file or they are missing."""
    try:
        return np.asarray(json.loads(file.read_text(encoding="utf-8"))["pattern"]["probabilities"], np.float32)
    # Exports of other tools have no example, and older ones no pattern.
    except (OSError, ValueError, KeyError, TypeError):
        return None
