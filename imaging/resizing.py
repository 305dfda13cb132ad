"""Resizing: what Pillow does, in bounded memory for images of any shape. Imports little: annotate's workers use it."""

from PIL import Image

BILINEAR = Image.Resampling.BILINEAR
# Pillow takes the edges of a box as float32, which cannot tell neighbouring pixels apart beyond this side.
EXACT_SIDE = 2**22


def resize_box(image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float]) -> Image.Image:
    """Resizes a box of an image as Pillow does with BILINEAR, and of very long images too.

    Args:
        size: Width and height of the result.
        box: Left, upper, right and lower edge of the part to resize, in pixels, within the image.
    """
    if max(image.size) <= EXACT_SIDE:
        return image.resize(size, BILINEAR, box=box)
    # The result depends on pixels one filter width around the box.
    left, top, right, bottom = box
    wide, high = 2 + int((right - left) / size[0]), 2 + int((bottom - top) / size[1])
    x, y = max(0, int(left) - wide), max(0, int(top) - high)
    part = image.crop((x, y, min(image.width, int(right) + wide), min(image.height, int(bottom) + high)))
    box = (left - x, top - y, min(right - x, part.width), min(bottom - y, part.height))
    return part.resize(size, BILINEAR, box=box)


def fitted_size(size: tuple[int, int], room: tuple[int, int]) -> tuple[int, int]:
    """Returns width and height of the largest image of the aspect ratio of `size` that fits into `room`, at least 1."""
    scale = min(room[0] / size[0], room[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def pad(image: Image.Image, size: tuple[int, int], fill: tuple[int, int, int]) -> Image.Image:
    """Puts an RGB image in the middle of a larger one of one colour; an odd pixel goes to the right or below."""
    padded = Image.new("RGB", size, fill)
    padded.paste(image, ((size[0] - image.width) // 2, (size[1] - image.height) // 2))
    return padded


def crop_of_strip(image: Image.Image, size: tuple[int, int], crop: tuple[int, int, int, int]) -> Image.Image:
    """Crops an image that is enlarged to `size`, without making it: only the part of the long side that is kept.

    The width is resized before the height, as Pillow does where both grow.
    """
    left, top, right, bottom = crop
    if size[0] > size[1]:
        start, end = left * image.width / size[0], right * image.width / size[0]
        first = max(0, int(start) - 2)
        part = image.crop((first, 0, min(image.width, int(end) + 3), image.height))
        part = part.resize((right - left, part.height), BILINEAR, box=(start - first, 0, end - first, part.height))
        return part.resize((part.width, size[1]), BILINEAR).crop((0, top, part.width, bottom))
    start, end = top * image.height / size[1], bottom * image.height / size[1]
    first = max(0, int(start) - 2)
    part = image.crop((0, first, image.width, min(image.height, int(end) + 3)))
    part = part.resize((size[0], part.height), BILINEAR).crop((left, 0, right, part.height))
    return part.resize((part.width, bottom - top), BILINEAR, box=(0, start - first, part.width, end - first))
