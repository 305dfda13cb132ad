"""Transforms: from an image to the pixels that a network sees."""

import os
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from PIL import Image

from imaging.augmentation import Augmentation, Geometry, active
from imaging.colour import to_srgb
from imaging.images import read_image
from imaging.resizing import BILINEAR, crop_of_strip, fitted_size, pad, resize_box
from system.settings import Augment, Settings

CHANNELS = 3
# Where a caller names no limit: the largest image, in pixels, that a resize makes on its way to the result.
MAX_PIXELS = 10**8
# The short side of a training image is first reduced to so many times the larger side of the network's input, with or
# without a cache: crops still have pixels to choose from, and both give the same bytes.
CACHE_SCALE = 1.25


@dataclass(frozen=True)
class EvalTransform:
    """Preprocessing for evaluation and prediction.

    Attributes:
        height: Of the result, in pixels.
        width: Of the result, in pixels.
        cover: Height and width that the image, its aspect ratio kept, is resized to cover before a centre crop; None:
            it is resized to the result's size directly, its aspect ratio kept only where `fill` is given.
        color_profile: As the setting: convert (to sRGB, which costs little after the resize) or ignore.
        fill: Red, green and blue, 0..255, of the borders that an image whose aspect ratio is kept leaves beside it;
            None: there are no borders.
    """

    height: int
    width: int
    cover: tuple[int, int] | None
    color_profile: str = "convert"
    # Not in the key of caches that know nothing of it.
    fill: tuple[int, int, int] | None = field(default=None, repr=False)

    # Whether cached images of the result's size are used as they are.
    only_flips = True

    @classmethod
    def from_settings(cls, settings: Settings) -> "EvalTransform":
        """Reads size and kind of resizing from the settings."""
        _, height, width = settings.image_shape
        high, wide = round(height / settings.crop_fraction), round(width / settings.crop_fraction)
        longer = max(high, wide)
        covers = {"crop": (high, wide), "crop_short": (longer, longer), "stretch": None, "pad": None}
        return cls(height, width, covers[settings.resize], settings.color_profile, _fill(settings))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of the result: channels, height, width."""
        return CHANNELS, self.height, self.width

    @property
    def resize_short(self) -> int | None:
        """Length that the short side is resized to, whatever the image; None where no one length says it."""
        return self.cover[0] if self.cover and self.cover[0] == self.cover[1] else None

    @property
    def cache_key(self) -> str:
        """What the pixels in a cache depend on."""
        return repr(self) + (f", fill {self.fill}" if self.fill else "")

    def cached_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Returns width and height of what a cache keeps of an image of this size."""
        return self.width, self.height

    def __call__(self, image: Image.Image, max_pixels: int = MAX_PIXELS) -> np.ndarray:
        """Turns an RGB image into uint8 [3, height, width], 0..255.

        Args:
            max_pixels: Where the resized image would be larger, of a long strip, only the part that the crop keeps is
                made; its levels may differ by one. Commands pass the setting.
        """
        resized = _in_srgb(self._fit(image, max_pixels), self.color_profile)
        return to_array(pad(resized, (self.width, self.height), self.fill) if self.fill else resized)

    def read(self, source: str | os.PathLike | bytes, max_pixels: int, name: str | None = None) -> np.ndarray:
        """Reads an image as every command does; arguments, errors: see images.read_image; result: see __call__."""
        return self(read_image(source, max_pixels, name), max_pixels)

    def _fit(self, image: Image.Image, max_pixels: int) -> Image.Image:
        if self.fill:
            return image.resize(fitted_size(image.size, (self.width, self.height)), BILINEAR)
        if self.cover is None:
            if self.width * image.height > max_pixels:
                # Pillow before 13 resizes the width first, to more pixels than there are.
                image = image.resize((image.width, self.height), BILINEAR)
            return image.resize((self.width, self.height), BILINEAR)
        # The long side is rounded as PaddleX's ResizeImage does, so that its pixels are the same.
        scale = max(self.cover[0] / image.height, self.cover[1] / image.width)
        size = round(image.width * scale), round(image.height * scale)
        left, top = (size[0] - self.width) // 2, (size[1] - self.height) // 2
        crop = left, top, left + self.width, top + self.height
        if size[0] * size[1] <= max_pixels:
            return image.resize(size, BILINEAR).crop(crop)
        return crop_of_strip(image, size, crop)


@dataclass(frozen=True)
class TrainTransform:
    """Preprocessing and augmentation of training images; the same generator state gives the same result.

    Attributes:
        height: Of the result, in pixels.
        width: Of the result, in pixels.
        augment: The settings' augment group.
        color_profile: As the setting: convert (to sRGB, which costs little after the resize) or ignore.
        fill: As EvalTransform's: the whole image is padded to the result's aspect ratio before the random crop, so
            that crop_scale is a fraction of the padded image. None: crops of that aspect ratio are of the image.
    """

    height: int
    width: int
    augment: Augment
    color_profile: str = "convert"
    fill: tuple[int, int, int] | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> "TrainTransform":
        """Reads size and augmentation from the settings.

        Raises:
            UserError: A setting of the augment group belongs to no registered function.
        """
        _, height, width = settings.image_shape
        transform = cls(height, width, settings.augment, settings.color_profile, _fill(settings))
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
        if self.fill:
            return f"padded {self.height}, {self.width}, {self.fill}, color profile {self.color_profile}"
        return f"short side {round(CACHE_SCALE * max(self.height, self.width))}, color profile {self.color_profile}"

    def cached_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Returns width and height of `reduce`'s result for an image of this size."""
        if self.fill:
            # The smallest of the result's aspect ratio that holds the image, where that is not too large.
            most = round(CACHE_SCALE * self.width), round(CACHE_SCALE * self.height)
            wide, high = round(size[1] * self.width / self.height), round(size[0] * self.height / self.width)
            return min(most, (max(size[0], wide), max(size[1], high)))
        scale = round(CACHE_SCALE * max(self.height, self.width)) / min(size)
        return size if scale >= 1 else (round(size[0] * scale), round(size[1] * scale))

    def reduce(self, image: Image.Image) -> Image.Image:
        """The deterministic part, which a cache keeps: reduces large images, smaller ones stay as they are."""
        size = room = self.cached_size(image.size)
        if self.fill:
            size = fitted_size(image.size, room)
        reduced = _in_srgb(image if size == image.size else image.resize(size, BILINEAR), self.color_profile)
        return pad(reduced, room, self.fill) if self.fill else reduced

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
            image = resize_box(image, (self.width, self.height), box)
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


def _fill(settings: Settings) -> tuple[int, int, int] | None:
    """Colour of the borders of resize=pad: the mean that the network subtracts, so that they are near zero there."""
    red, green, blue = (min(255, max(0, round(255 * mean))) for mean in settings.mean)
    return (red, green, blue) if settings.resize == "pad" else None


def _in_srgb(image: Image.Image, color_profile: str) -> Image.Image:
    return to_srgb(image) if color_profile == "convert" else image


def to_array(image: Image.Image) -> np.ndarray:
    """Copies an RGB image into uint8 [3, height, width]."""
    return np.array(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1), order="C")
