"""Transforms: from an image to the pixels that a network sees. The only resizes of the project are here."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from imaging.augmentation import Augmentation, Geometry, active
from system.settings import Augment, Settings

CHANNELS = 3
# The short side of a training image is first reduced to so many times the larger side of the network's input, with or
# without a cache: crops still have pixels to choose from, and both give the same bytes.
CACHE_SCALE = 1.25


@dataclass(frozen=True)
class EvalTransform:
    """Preprocessing for evaluation and prediction: the steps that PaddleX's operators can express.

    Attributes:
        height: Of the result, in pixels.
        width: Of the result, in pixels.
        resize_short: The short side is resized to so many pixels before a centre crop; None: resize to height and
            width directly, without keeping the aspect ratio.
    """

    height: int
    width: int
    resize_short: int | None

    # Whether cached images of the result's size are used as they are.
    only_flips = True

    @classmethod
    def from_settings(cls, settings: Settings) -> "EvalTransform":
        """Reads size and kind of resizing from the settings."""
        _, height, width = settings.image_shape
        short = round(max(height, width) / settings.crop_fraction) if settings.resize == "crop" else None
        return cls(height, width, short)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of the result: channels, height, width."""
        return CHANNELS, self.height, self.width

    @property
    def cache_key(self) -> str:
        """What the pixels in a cache depend on."""
        return repr(self)

    def cached_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Returns width and height of what a cache keeps of an image of this size."""
        return self.width, self.height

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Turns an RGB image into uint8 [3, height, width], 0..255."""
        if self.resize_short is None:
            return to_array(image.resize((self.width, self.height), Image.Resampling.BILINEAR))
        # The long side is rounded as PaddleX's ResizeImage does, so that its pixels are the same.
        scale = self.resize_short / min(image.size)
        size = (round(image.width * scale), round(image.height * scale))
        resized = image.resize(size, Image.Resampling.BILINEAR)
        left, top = (size[0] - self.width) // 2, (size[1] - self.height) // 2
        return to_array(resized.crop((left, top, left + self.width, top + self.height)))


@dataclass(frozen=True)
class TrainTransform:
    """Preprocessing and augmentation of training images; the same generator state gives the same result.

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
        """Reads size and augmentation from the settings.

        Raises:
            UserError: A setting of the augment group belongs to no registered function.
        """
        _, height, width = settings.image_shape
        transform = cls(height, width, settings.augment)
        # Listed now, so that the error is raised here.
        _ = transform.augmentations
        return transform

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of the result: channels, height, width."""
        return CHANNELS, self.height, self.width

    @property
    def cache_key(self) -> str:
        """What the pixels in a cache depend on."""
        return f"short side {round(CACHE_SCALE * max(self.height, self.width))}"

    def cached_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Returns width and height of `reduce`'s result for an image of this size."""
        scale = round(CACHE_SCALE * max(self.height, self.width)) / min(size)
        return size if scale >= 1 else (round(size[0] * scale), round(size[1] * scale))

    def reduce(self, image: Image.Image) -> Image.Image:
        """The deterministic part, which a cache keeps: reduces large images, smaller ones stay as they are."""
        size = self.cached_size(image.size)
        return image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)

    @cached_property
    def augmentations(self) -> list[Augmentation]:
        """The augmentations that are switched on."""
        return active(self.augment)

    @cached_property
    def only_flips(self) -> bool:
        """Whether images of the result's size are at most flipped."""
        crops = (self.augment.crop_scale, self.augment.crop_ratio) != ((1, 1), (1, 1))
        return not crops and not self.augmentations

    def flip_batch(self, images: np.ndarray, generators: list[np.random.Generator]) -> None:
        """Does in place to uint8 [N, 3, height, width] what `vary` does where `only_flips` holds."""
        drawn = Geometry.draw_batch(iter(generators), len(generators))
        flipped = np.flatnonzero(drawn.horizontal_flip < self.augment.horizontal_flip)
        images[flipped] = images[flipped, :, :, ::-1]
        flipped = np.flatnonzero(drawn.vertical_flip < self.augment.vertical_flip)
        images[flipped] = images[flipped, :, ::-1]

    def vary(self, image: Image.Image, generator: np.random.Generator) -> np.ndarray:
        """The random part: turns a reduced image into uint8 [3, height, width]."""
        augment, drawn = self.augment, Geometry.draw(generator)
        box = drawn.crop_box(image.size, self.width / self.height, augment)
        if image.size != (self.width, self.height) or box != (0, 0, *image.size):
            image = image.resize((self.width, self.height), Image.Resampling.BILINEAR, box=box)
        if drawn.horizontal_flip < augment.horizontal_flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if drawn.vertical_flip < augment.vertical_flip:
            image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        for one in self.augmentations:
            image = one.function(image, generator, *one.values(augment))
        return to_array(image)

    def __call__(self, image: Image.Image, generator: np.random.Generator) -> np.ndarray:
        """Turns an RGB image into uint8 [3, height, width], 0..255."""
        return self.vary(self.reduce(image), generator)


def to_array(image: Image.Image) -> np.ndarray:
    """Copies an RGB image into uint8 [3, height, width]."""
    return np.array(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1), order="C")
