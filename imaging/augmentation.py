"""Augmentation: random changes to training images, each one function registered under its settings.

To add one, write a function that takes an RGB image, the generator and the values of its settings, register it with
`@augmentation("my_setting")` below the others, and give `my_setting` a line in config.yaml's `augment` group: a
probability or relative change (0..1), or a range. Functions are applied in the order in which they are registered.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from system.errors import UserError, problems
from system.settings import Augment

# Value of pixels that a rotation or an erased rectangle leaves without content: the ImageNet mean colour, near zero
# once normalised.
FILL = (124, 116, 104)
# Area and aspect ratio of an erased rectangle. Source: Zhong et al. 2017 (arXiv:1708.04896), section 4.2.
ERASED_AREA, ERASED_RATIO = (0.02, 0.33), (0.3, 3.3)
# Largest magnitude of RandAugment. Source: Cubuk et al. 2019 (arXiv:1909.13719), section 3.
MAX_MAGNITUDE = 30
# Settings that are read elsewhere: by Geometry (crop and flips) and by `mix`, which works on batches.
OTHER_SETTINGS = frozenset("crop_scale crop_ratio horizontal_flip vertical_flip mixup cutmix".split())

Function = TypeVar("Function", bound=Callable[..., Image.Image])


@dataclass(frozen=True)
class Augmentation:
    """A registered function.

    Attributes:
        function: Takes an RGB image, the generator, and the values of `switches` and `options`; returns an RGB image
            of the same size.
        switches: Settings of which at least one is not neutral (0, or a range of 1 to 1) where the function is applied.
        options: Further settings that it takes.
    """

    function: Callable[..., Image.Image]
    switches: tuple[str, ...]
    options: tuple[str, ...]

    def is_active(self, augment: Augment) -> bool:
        """Returns whether the settings switch it on."""
        return any(getattr(augment, name) not in (0, (1, 1)) for name in self.switches)

    def values(self, augment: Augment) -> list[Any]:
        """Returns the values of its settings, in the order in which the function takes them."""
        return [getattr(augment, name) for name in (*self.switches, *self.options)]


AUGMENTATIONS: list[Augmentation] = []


def augmentation(*switches: str, options: tuple[str, ...] = ()) -> Callable[[Function], Function]:
    """Registers a function under the names of its settings; see Augmentation."""

    def register(function: Function) -> Function:
        AUGMENTATIONS.append(Augmentation(function, switches, options))
        return function

    return register


def active(augment: Augment) -> list[Augmentation]:
    """Lists the augmentations that the settings switch on, in the order of their application.

    Raises:
        UserError: A setting belongs to no registered function.
    """
    known = OTHER_SETTINGS.union(*(one.switches + one.options for one in AUGMENTATIONS))
    if unknown := [f"augment.{name} belongs to no augmentation" for name, _ in augment if name not in known]:
        raise problems("config.yaml", unknown, "register one under this name in imaging/augmentation.py")
    if missing := sorted(known - {name for name, _ in augment}):
        raise UserError(f"config.yaml: augment.{missing[0]} is missing; give it a line")
    return [one for one in AUGMENTATIONS if one.is_active(augment)]


class Geometry(NamedTuple):
    """Random numbers of a crop and of the flips, each 0..1: one image's as floats, or a batch's as arrays [N].

    They are drawn for every image, so that no other random number depends on whether crops and flips are on.
    """

    scale: Any
    ratio: Any
    left: Any
    top: Any
    horizontal_flip: Any
    vertical_flip: Any

    @classmethod
    def draw(cls, generator: np.random.Generator) -> "Geometry":
        """Draws the numbers of one image."""
        return cls(*generator.random(len(cls._fields)).tolist())

    @classmethod
    def draw_batch(cls, generators: Iterator[np.random.Generator], count: int) -> "Geometry":
        """Draws the numbers of several images, each from its own generator, as `draw` does."""
        size = len(cls._fields)
        numbers = np.fromiter((generator.random(size) for generator in generators), np.dtype((float, size)), count)
        return cls(*numbers.T)

    def crop_box(self, size: tuple[int, int], aspect: float, augment: Augment) -> tuple[float, float, float, float]:
        """Returns left, upper, right and lower edge of the crop in pixels, inside the image.

        Args:
            size: Width and height of the image.
            aspect: Width / height of what the crop is resized to; crop_ratio varies around it.

        Source: the random resized crop of Szegedy et al. 2015 (arXiv:1409.4842), section 6, with side lengths clipped
            to the image instead of drawn again.
        """
        width, height = size
        area = _between(augment.crop_scale, self.scale)
        ratio = np.exp(_between(np.log(augment.crop_ratio), self.ratio))
        # The largest box of this aspect ratio; areas are relative to it, so that scale 1 keeps all it can.
        fit = min(width, height * aspect)
        crop_width = min(width, fit * np.sqrt(area * ratio))
        crop_height = min(height, fit / aspect * np.sqrt(area / ratio))
        left, top = _between((0, width - crop_width), self.left), _between((0, height - crop_height), self.top)
        return left, top, min(left + crop_width, width), min(top + crop_height, height)


def _between(limits: Any, number: float) -> float:
    low, high = limits
    return low + (high - low) * number


@augmentation("rotation", "scale", "shift")
def affine(
    image: Image.Image, generator: np.random.Generator, rotation: float, scale: tuple[float, float], shift: float
) -> Image.Image:
    """Rotates by up to `rotation` degrees, scales about the centre, and shifts by up to `shift` of each side."""
    angle = np.deg2rad(generator.uniform(-rotation, rotation))
    factor = np.exp(generator.uniform(*np.log(scale)))
    right, down = generator.uniform(-shift, shift, 2) * image.size
    return _affine(image, np.cos(angle) / factor, np.sin(angle) / factor, right, down)


def _affine(image: Image.Image, cosine: float, sine: float, right: float, down: float) -> Image.Image:
    """Rotates about the centre, then moves right and down (pixels); uncovered pixels become FILL."""
    x, y = image.width / 2, image.height / 2
    # PIL wants the source of each target pixel, so this is the inverse transform.
    dx, dy = -x - right, -y - down
    matrix = (cosine, sine, cosine * dx + sine * dy + x, -sine, cosine, -sine * dx + cosine * dy + y)
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=FILL)


@augmentation("brightness")
def brightness(image: Image.Image, generator: np.random.Generator, change: float) -> Image.Image:
    """Multiplies all levels by a factor of 1 - change to 1 + change."""
    return ImageEnhance.Brightness(image).enhance(1 + generator.uniform(-change, change))


@augmentation("contrast")
def contrast(image: Image.Image, generator: np.random.Generator, change: float) -> Image.Image:
    """Multiplies the distance of all levels from the image's mean by a factor of 1 - change to 1 + change."""
    return ImageEnhance.Contrast(image).enhance(1 + generator.uniform(-change, change))


@augmentation("saturation")
def saturation(image: Image.Image, generator: np.random.Generator, change: float) -> Image.Image:
    """Multiplies the distance of all colours from grey by a factor of 1 - change to 1 + change."""
    return ImageEnhance.Color(image).enhance(1 + generator.uniform(-change, change))


@augmentation("hue")
def hue(image: Image.Image, generator: np.random.Generator, change: float) -> Image.Image:
    """Rotates all hues by up to `change` of the colour circle, either way."""
    return rotate_hue(image, generator.uniform(-change, change))


def rotate_hue(image: Image.Image, fraction: float) -> Image.Image:
    """Rotates all hues by a fraction of the colour circle: 1/3 makes red green."""
    hues, saturations, values = image.convert("HSV").split()
    rotated = hues.point(np.roll(np.arange(256), -round(fraction * 256)).tolist())
    return Image.merge("HSV", (rotated, saturations, values)).convert("RGB")


@augmentation("invert")
def invert(image: Image.Image, generator: np.random.Generator, probability: float) -> Image.Image:
    """Makes a negative."""
    return ImageOps.invert(image) if generator.random() < probability else image


def _shear(image: Image.Image, along: float, down: float) -> Image.Image:
    matrix = (1, along, -along * image.height / 2, down, 1, -down * image.width / 2)
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=FILL)


# Each takes an image, a magnitude 0..1 and a sign. Ranges as in the reference implementation named by the paper's
# appendix: 30 degrees, shear 0.3, shift by 0.45 of a side, enhancement by 0.9.
RANDAUGMENT_OPS: tuple[Callable[[Image.Image, float, int], Image.Image], ...] = (
    lambda image, magnitude, sign: image,
    lambda image, magnitude, sign: ImageOps.autocontrast(image),
    lambda image, magnitude, sign: ImageOps.equalize(image),
    lambda image, magnitude, sign: image.rotate(sign * 30 * magnitude, Image.Resampling.BILINEAR, fillcolor=FILL),
    lambda image, magnitude, sign: ImageOps.solarize(image, round(256 * (1 - magnitude))),
    lambda image, magnitude, sign: ImageOps.posterize(image, 8 - round(4 * magnitude)),
    lambda image, magnitude, sign: ImageEnhance.Color(image).enhance(1 + sign * 0.9 * magnitude),
    lambda image, magnitude, sign: ImageEnhance.Contrast(image).enhance(1 + sign * 0.9 * magnitude),
    lambda image, magnitude, sign: ImageEnhance.Brightness(image).enhance(1 + sign * 0.9 * magnitude),
    lambda image, magnitude, sign: ImageEnhance.Sharpness(image).enhance(1 + sign * 0.9 * magnitude),
    lambda image, magnitude, sign: _shear(image, sign * 0.3 * magnitude, 0),
    lambda image, magnitude, sign: _shear(image, 0, sign * 0.3 * magnitude),
    lambda image, magnitude, sign: _affine(image, 1, 0, sign * 0.45 * magnitude * image.width, 0),
    lambda image, magnitude, sign: _affine(image, 1, 0, 0, sign * 0.45 * magnitude * image.height),
)


@augmentation("randaugment_num_ops", options=("randaugment_magnitude",))
def randaugment(image: Image.Image, generator: np.random.Generator, num_ops: int, magnitude: float) -> Image.Image:
    """RandAugment: applies `num_ops` operations drawn from fourteen, at a magnitude of 0..30.

    Source: Cubuk et al. 2019 (arXiv:1909.13719).
    """
    for _ in range(num_ops):
        operation = RANDAUGMENT_OPS[generator.integers(len(RANDAUGMENT_OPS))]
        image = operation(image, magnitude / MAX_MAGNITUDE, 1 if generator.random() < 0.5 else -1)
    return image


@augmentation("random_erasing")
def random_erasing(image: Image.Image, generator: np.random.Generator, probability: float) -> Image.Image:
    """Fills a rectangle of 2 to 33 % of the area with FILL."""
    if generator.random() >= probability:
        return image
    area = generator.uniform(*ERASED_AREA) * image.height * image.width
    ratio = np.exp(generator.uniform(*np.log(ERASED_RATIO)))
    height, width = min(image.height, round(np.sqrt(area / ratio))), min(image.width, round(np.sqrt(area * ratio)))
    top = int(generator.integers(image.height - height + 1))
    left = int(generator.integers(image.width - width + 1))
    erased = image.copy()
    erased.paste(FILL, (left, top, left + width, top + height))
    return erased


def mix(
    images: np.ndarray, labels: np.ndarray, num_classes: int, augment: Augment, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Mixes each image of a batch with another one: mixup (blended) or cutmix (a rectangle pasted).

    Where both are on, each batch gets one of them, with equal probability.

    Args:
        images: uint8 [N, 3, H, W].
        labels: int64 [N].

    Returns:
        Images uint8 [N, 3, H, W] and targets float32 [N, C], rows of sum 1.

    Source: Zhang et al. 2017 (arXiv:1710.09412) and Yun et al. 2019 (arXiv:1905.04899).
    """
    targets = np.eye(num_classes, dtype=np.float32)[labels]
    methods = [(_mixup, augment.mixup)] * bool(augment.mixup) + [(_cutmix, augment.cutmix)] * bool(augment.cutmix)
    method, alpha = methods[generator.integers(len(methods))]
    partners = generator.permutation(len(images))
    images, weight = method(images, images[partners], generator.beta(alpha, alpha), generator)
    return images, (weight * targets + (1 - weight) * targets[partners]).astype(np.float32)


def _mixup(
    images: np.ndarray, others: np.ndarray, weight: float, generator: np.random.Generator
) -> tuple[np.ndarray, float]:
    blended = images * np.float32(weight) + others * np.float32(1 - weight)
    return np.rint(blended).astype(np.uint8), weight


def _cutmix(
    images: np.ndarray, others: np.ndarray, weight: float, generator: np.random.Generator
) -> tuple[np.ndarray, float]:
    height, width = images.shape[2:]
    rows, columns = round(height * np.sqrt(1 - weight)), round(width * np.sqrt(1 - weight))
    top, left = generator.integers(height - rows + 1), generator.integers(width - columns + 1)
    box = np.s_[:, :, top : top + rows, left : left + columns]
    pasted = images.copy()
    pasted[box] = others[box]
    return pasted, 1 - rows * columns / (height * width)
