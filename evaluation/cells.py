"""Cells of figures: images enlarged without steps, grids of even rows, panels side by side."""

import io
import os
from collections.abc import Sequence

from PIL import Image

CELL = 240  # pixels up to which small images are enlarged
COLUMNS = 6  # of a grid, at most


def even_columns(count: int, most: int = COLUMNS) -> int:
    """Returns how many columns, two thirds of most at least, leave the fewest cells of the last row empty."""
    if count <= most:
        return count
    return min(range(most, most - most // 3 - 1, -1), key=lambda columns: -count % columns)


def smooth(image: Image.Image) -> Image.Image:
    """Enlarges an image that is smaller than CELL, without the steps of its pixels."""
    factor = CELL / max(image.size)
    if factor <= 1:
        return image
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def beside(panels: Sequence[bytes], path: str | os.PathLike) -> None:
    """Writes panels, PNGs of the same height, side by side."""
    images = [Image.open(io.BytesIO(panel)) for panel in panels]
    whole = Image.new("RGB", (sum(image.width for image in images), images[0].height), "white")
    left = 0
    for image in images:
        whole.paste(image.convert("RGB"), (left, 0))
        left += image.width
    whole.save(path, "PNG", dpi=images[0].info.get("dpi"))
