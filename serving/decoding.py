"""From the bytes a client sent to the pixels a network sees, and what to tell a client whose bytes are no image."""

from typing import Any

import numpy as np
from PIL import Image

from imaging.images import ImageError, read_image

# What a client can do, by the reason of a ImageError, whose own advice is for somebody with the file on their disk.
REMEDIES = {
    "empty": "the file is empty; send it anew",
    "not_a_picture": "not an image; send JPEG, PNG, WebP, GIF, BMP or TIFF",
    "lfs_pointer": "this is a Git LFS pointer, not the image; send the image itself",
    "too_much_memory": "decoding it needs more memory than there is; send it smaller",
}


def refusal(error: ImageError, name: str, max_pixels: int) -> dict[str, Any]:
    """Puts an error into words for the one who sent the file, as an answer of a worker."""
    if error.reason == "too_large":
        size = f"{error.image.width}x{error.image.height}" if error.image else "it"
        told = f"{size} is more than the {max_pixels} pixels this server decodes; send it smaller"
    else:
        told = REMEDIES.get(error.reason) or error.detail.rpartition(";")[0] + "; send another file"
    return {"error": f"{name}: {' '.join(told.split())}", "status": 400}


def read(data: bytes, name: str, max_pixels: int) -> Image.Image | dict[str, Any]:
    """Decodes an image as every command does: RGB, or the refusal that a worker answers with."""
    try:
        return read_image(data, max_pixels, name)
    except ImageError as error:
        return refusal(error, name, max_pixels)
    except MemoryError:
        return {"error": f"{name}: {REMEDIES['too_much_memory']}", "status": 400}


def shrink(image: Image.Image | dict[str, Any], transform, name: str) -> np.ndarray | dict[str, Any]:
    """Turns a decoded image into uint8 [3, H, W]; a refusal stays one."""
    if isinstance(image, dict):
        return image
    try:
        return transform(image)
    except MemoryError:
        return {"error": f"{name}: {REMEDIES['too_much_memory']}", "status": 400}
