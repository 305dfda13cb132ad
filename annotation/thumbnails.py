"""Thumbnails of image files for the report. Runs in the worker processes."""

import io
import os

from PIL import Image, ImageFile

from annotation.verdicts import shrink
from imaging.images import ImageError, open_image


def thumbnails(paths: list[bytes], max_pixels: int, side: int) -> list[bytes]:
    """JPEGs of at most side x side pixels; b"" for files that cannot be decoded."""
    return [_thumbnail(path, max_pixels, side) for path in paths]


def _thumbnail(path: bytes, max_pixels: int, side: int) -> bytes:
    try:
        image = shrink(_open_partly(path, max_pixels, side), side)
    # A broken image may raise anything; its verdict has been reported already, and it has no thumbnail.
    except Exception:
        return b""
    image.thumbnail((side, side))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return file.getvalue()


def _open_partly(path: bytes, max_pixels: int, min_side: int) -> Image.Image:
    """Opens an image; of a broken one, the part that can be decoded."""
    try:
        return open_image(os.fsdecode(path), max_pixels, least=min_side)
    except ImageError as error:
        if error.image is None or error.reason not in ("truncated", "corrupt"):
            raise
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        return open_image(os.fsdecode(path), max_pixels, least=min_side)
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
