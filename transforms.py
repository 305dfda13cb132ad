"""Pixels: one pipeline for training pictures, one for every other use. The only resizes of the project are here."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from config import Augment, Settings

# Corners that a rotation lays bare: the ImageNet mean colour, near zero once normalised.
FILL = (124, 116, 104)


@dataclass(frozen=True)
class EvalTransform:
    """What happens to a picture before a network judges it: the same steps PaddleX's operators can express.

    Attributes:
        height: Of the result, in pixels.
        width: Of the result, in pixels.
        resize_short: The short side is resized to so many pixels before a centre crop; None: resize to height and
            width directly, shape not kept.
    """

    height: int
    width: int
    resize_short: int | None

    @classmethod
    def from_settings(cls, settings: Settings) -> "EvalTransform":
        """Reads size and way of resizing from the settings."""
        _, height, width = settings.image_shape
        short = round(max(height, width) / settings.crop_fraction) if settings.resize == "crop" else None
        return cls(height, width, short)

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Turns an RGB picture into uint8 [3, height, width], 0..255."""
        if self.resize_short is None:
            return to_array(image.resize((self.width, self.height), Image.BILINEAR))
        # The long side is rounded as PaddleX's ResizeImage does, so that its pixels are ours.
        scale = self.resize_short / min(image.size)
        size = (round(image.width * scale), round(image.height * scale))
        resized = image.resize(size, Image.BILINEAR)
        left, top = (size[0] - self.width) // 2, (size[1] - self.height) // 2
        return to_array(resized.crop((left, top, left + self.width, top + self.height)))


@dataclass(frozen=True)
class TrainTransform:
    """Random crop, flips and rotation, each a setting; the same generator state gives the same picture.

    Attributes:
        height: Of the result, in pixels.
        width: Of the result, in pixels.
        augment: The settings' augment group.
    """

    height: int
    width: int
    augment: Augment

    @classmethod
    def from_settings(cls, settings: Settings) -> "TrainTransform":
        """Reads size and augmentation from the settings."""
        _, height, width = settings.image_shape
        return cls(height, width, settings.augment)

    def __call__(self, image: Image.Image, generator: np.random.Generator) -> np.ndarray:
        """Turns an RGB picture into uint8 [3, height, width], 0..255."""
        box = random_box(image.size, self.width / self.height, self.augment, generator)
        image = image.resize((self.width, self.height), Image.BILINEAR, box=box)
        if generator.random() < self.augment.horizontal_flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if generator.random() < self.augment.vertical_flip:
            image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        if self.augment.rotation:
            angle = generator.uniform(-self.augment.rotation, self.augment.rotation)
            image = image.rotate(angle, Image.BILINEAR, fillcolor=FILL)
        return to_array(image)


def random_box(
    size: tuple[int, int], aspect: float, augment: Augment, generator: np.random.Generator
) -> tuple[float, float, float, float]:
    """Draws a crop: a share of the picture's area and a stretch, then a place.

    Args:
        size: Width and height of the picture.
        aspect: Width / height of what the crop is resized to; crop_ratio stretches around it.

    Returns:
        Left, upper, right and lower edge in pixels, inside the picture.

    Source: the random resized crop of Szegedy et al. 2015 (arXiv:1409.4842), section 6, with the side lengths
        clipped to the picture instead of drawn again.
    """
    width, height = size
    share = generator.uniform(*augment.crop_scale)
    stretch = np.exp(generator.uniform(*np.log(augment.crop_ratio)))
    # The largest box of the wanted aspect has this area; shares are of it, so that scale 1 keeps all it can.
    fit = min(width, height * aspect)
    crop_width = min(width, fit * np.sqrt(share * stretch))
    crop_height = min(height, fit / aspect * np.sqrt(share / stretch))
    left, top = generator.uniform(0, width - crop_width), generator.uniform(0, height - crop_height)
    return left, top, min(left + crop_width, width), min(top + crop_height, height)


def to_array(image: Image.Image) -> np.ndarray:
    """Copies an RGB picture into uint8 [3, height, width]."""
    return np.ascontiguousarray(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1))
