"""Image decoding in a worker: from uploaded bytes to pixels, with errors that address the client."""

import numpy as np
from PIL import Image

from imaging.images import ImageError, read_image
from imaging.transforms import EvalTransform
from serving.refusal import RefusalError

# What a client can do, by ImageError.reason; an ImageError's own advice is for whoever has the file on disk.
REMEDIES = {
    "empty": "the file is empty; upload it again",
    "not_a_picture": "not an image; send JPEG, PNG, WebP, GIF, BMP or TIFF",
    "lfs_pointer": "this is a Git LFS pointer, not the image; send the image itself",
    "too_much_memory": "decoding it takes more memory than available; send a smaller image",
}


def decode(data: bytes, name: str, max_pixels: int) -> Image.Image:
    """Decodes an image as every command does, to RGB.

    Raises:
        RefusalError: The bytes are no image, or one of more than max_pixels.
    """
    try:
        return read_image(data, max_pixels, name)
    except ImageError as error:
        raise _refusal(error, name, max_pixels) from None
    except MemoryError:
        raise _out_of_memory(name) from None


def transform(image: Image.Image, pipeline: EvalTransform, name: str, max_pixels: int) -> np.ndarray:
    """Turns a decoded image into uint8 [3, H, W].

    Raises:
        RefusalError: Memory runs out.
    """
    try:
        return pipeline(image, max_pixels)
    except MemoryError:
        raise _out_of_memory(name) from None


def _out_of_memory(name: str) -> RefusalError:
    return RefusalError(400, f"{name}: {REMEDIES['too_much_memory']}")


def _refusal(error: ImageError, name: str, max_pixels: int) -> RefusalError:
    if error.reason == "too_large":
        size = f"{error.image.width}x{error.image.height}" if error.image else "it"
        message = f"{size} exceeds the {max_pixels} pixels that this server decodes; send a smaller image"
    else:
        message = REMEDIES.get(error.reason) or error.detail.rpartition(";")[0] + "; send another file"
    return RefusalError(400, f"{name}: {' '.join(message.split())}")
