"""Pixels: one pipeline for training images, one for every other use. The only resizes of the project are here."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from imaging import augmentation
from system.settings import Augment, Settings

# Training images are first shrunk to so many times the larger side of what the network sees, with or without a
# cache: crops still have pixels to choose from, and both ways give the same bytes.
SPARE = 1.25
# Augmentation that leaves every pixel of an image where it is and as it is.
UNTOUCHED = Augment(
    crop_scale=(1, 1), crop_ratio=(1, 1), horizontal_flip=0, vertical_flip=0, rotation=0, scale=(1, 1), shift=0,
    brightness=0, contrast=0, saturation=0, hue=0, invert=0, randaugment_num_ops=0, randaugment_magnitude=0, random_erasing=0,
    mixup=0, cutmix=0,
)  # fmt: skip


@dataclass(frozen=True)
class EvalTransform:
    """What happens to an image before a network judges it: the same steps PaddleX's operators can express.

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

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of the result: channels, height, width."""
        return 3, self.height, self.width

    # A finished image needs no further change.
    is_whole = True

    @property
    def kept(self) -> str:
        """What decides about the pixels that a cache keeps, in words."""
        return repr(self)

    def kept_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height of what a cache keeps of an image of this size."""
        return self.width, self.height

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Turns an RGB image into uint8 [3, height, width], 0..255."""
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
    """Random changes to a training image, each a setting; the same generator state gives the same image.

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

    @property
    def kept(self) -> str:
        """What decides about the pixels that a cache keeps, in words."""
        return f"short side {round(SPARE * max(self.height, self.width))}"

    def kept_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height of what a cache keeps of an image of this size: `shrink`'s result."""
        scale = round(SPARE * max(self.height, self.width)) / min(size)
        return size if scale >= 1 else (round(size[0] * scale), round(size[1] * scale))

    def shrink(self, image: Image.Image) -> Image.Image:
        """The part without chance, which a cache keeps: the short side to SPARE times the network's larger side.

        Smaller images stay as they are.
        """
        size = self.kept_size(image.size)
        return image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)

    @property
    def is_whole(self) -> bool:
        """Tells whether images of the network's size are at most flipped."""
        # Strength without operations, and mixing, which works on whole batches later, touch no single image.
        without = dict.fromkeys(("horizontal_flip", "vertical_flip", "mixup", "cutmix", "randaugment_magnitude"), 0)
        return self.augment.model_copy(update=without) == UNTOUCHED

    def flip_batch(self, images: np.ndarray, generators: list[np.random.Generator]) -> None:
        """Does in place to uint8 [N, 3, height, width] what `vary` does where `is_whole` holds."""
        # The first four numbers are those that the crop draws.
        draws = np.stack([generator.random(6)[4:] for generator in generators])
        flipped = np.flatnonzero(draws[:, 0] < self.augment.horizontal_flip)
        images[flipped] = images[flipped, :, :, ::-1]
        flipped = np.flatnonzero(draws[:, 1] < self.augment.vertical_flip)
        images[flipped] = images[flipped, :, ::-1]

    def vary(self, image: Image.Image, generator: np.random.Generator) -> np.ndarray:
        """The part with chance: turns a shrunk image into uint8 [3, height, width]."""
        augment = self.augment
        box = augmentation.random_box(image.size, self.width / self.height, augment, generator)
        if image.size != (self.width, self.height) or box != (0, 0, *image.size):
            image = image.resize((self.width, self.height), Image.Resampling.BILINEAR, box=box)
        image = augmentation.turn(image, augment, generator)
        image = augmentation.jitter(image, augment, generator)
        image = augmentation.rand_augment(image, augment.randaugment_num_ops, augment.randaugment_magnitude, generator)
        pixels = to_array(image)
        if augment.random_erasing and generator.random() < augment.random_erasing:
            augmentation.erase(pixels, generator)
        return pixels

    def __call__(self, image: Image.Image, generator: np.random.Generator) -> np.ndarray:
        """Turns an RGB image into uint8 [3, height, width], 0..255."""
        return self.vary(self.shrink(image), generator)


def to_array(image: Image.Image) -> np.ndarray:
    """Copies an RGB image into uint8 [3, height, width]."""
    return np.array(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1), order="C")
