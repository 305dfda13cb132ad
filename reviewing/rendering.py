"""Images for the page, made when they are asked for: as every command reads them, scaled down, the last ones kept."""

import hashlib
import io
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from imaging.colour import to_srgb
from imaging.images import ImageError, open_image, read_file, to_rgb

# What is kept, in bytes, and the longest sides that the page can ask for, in pixels: of a thumbnail and of an image.
KEPT_BYTES = 32 << 20
SIDES = (240, 1280)
# An image of at most this side is sent without loss, so that its pixels can be looked at.
LOSSLESS = 160


@dataclass(frozen=True)
class Rendering:
    """An image as it is sent.

    Attributes:
        digest: SHA-256 of the file that it was made from; "": the file cannot be read.
        media_type: Of the content.
        content: JPEG or PNG; b"" if the file cannot be decoded.
        error: Why it cannot.
    """

    digest: str
    media_type: str = ""
    content: bytes = b""
    error: str = ""


def sha256(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


class Renderer:
    """Renders images, and keeps the last ones, at most KEPT_BYTES.

    Args:
        max_pixels: Largest width x height that is decoded.
        convert_colours: Whether colours of images with a profile become sRGB.
    """

    def __init__(self, max_pixels: int, convert_colours: bool, kept_bytes: int = KEPT_BYTES):
        self.max_pixels, self.convert_colours, self.kept_bytes = max_pixels, convert_colours, kept_bytes
        self._kept: OrderedDict[tuple[Path, int, tuple[int, ...]], Rendering] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def render(self, file: Path, side: int) -> Rendering:
        """Renders a file with at most side x side pixels."""
        try:
            status = os.stat(file)
        except OSError:
            return _render(file, side, self.max_pixels, self.convert_colours)
        key = file, side, (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = _render(file, side, self.max_pixels, self.convert_colours)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = made
                self._size += len(made.content)
            while self._size > self.kept_bytes:
                _, oldest = self._kept.popitem(last=False)
                self._size -= len(oldest.content)
        return made


def _render(file: Path, side: int, max_pixels: int, convert_colours: bool) -> Rendering:
    try:
        data = read_file(file)
    except ImageError as error:
        return Rendering("", error=error.detail)
    digest = sha256(data)
    try:
        image = to_rgb(open_image(data, max_pixels, least=side))
    except ImageError as error:
        return Rendering(digest, error=error.detail)
    image.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    image = to_srgb(image) if convert_colours else image
    media_type = "PNG" if max(image.size) <= LOSSLESS else "JPEG"
    content = io.BytesIO()
    # Pillow would write what the file says about itself into the copy.
    image.info.clear()
    image.save(content, media_type, quality=88)
    return Rendering(digest, f"image/{media_type.lower()}", content.getvalue())
