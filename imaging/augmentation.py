"""Random changes to training images: what the settings' `augment` group names, on small uint8 images."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from system.settings import Augment

# Corners that a rotation lays bare and holes that are cut: the ImageNet mean colour, near zero once normalised.
FILL = (124, 116, 104)
# Area and stretch of an erased rectangle. Source: Zhong et al. 2017 (arXiv:1708.04896), section 4.2.
ERASED_AREA, ERASED_RATIO = (0.02, 0.33), (0.3, 3.3)
# What RandAugment's magnitude is counted against. Source: Cubuk et al. 2019 (arXiv:1909.13719), section 3.
MAGNITUDES = 30


def random_box(
    size: tuple[int, int], aspect: float, augment: Augment, generator: np.random.Generator
) -> tuple[float, float, float, float]:
    """Draws a crop: a share of the image's area and a stretch, then a place.

    Args:
        size: Width and height of the image.
        aspect: Width / height of what the crop is resized to; crop_ratio stretches around it.

    Returns:
        Left, upper, right and lower edge in pixels, inside the image.

    Source: the random resized crop of Szegedy et al. 2015 (arXiv:1409.4842), section 6, with the side lengths
        clipped to the image instead of drawn again.
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


def turn(image: Image.Image, augment: Augment, generator: np.random.Generator) -> Image.Image:
    """Flips, rotates, scales about the centre and shifts; the size stays, what is laid bare gets FILL."""
    if generator.random() < augment.horizontal_flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if generator.random() < augment.vertical_flip:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    if not (augment.rotation or augment.shift or augment.scale != (1, 1)):
        return image
    angle = np.deg2rad(generator.uniform(-augment.rotation, augment.rotation))
    factor = np.exp(generator.uniform(*np.log(augment.scale)))
    right, down = generator.uniform(-augment.shift, augment.shift, 2) * image.size
    return _affine(image, np.cos(angle) / factor, np.sin(angle) / factor, right, down)


def _affine(image: Image.Image, cosine: float, sine: float, right: float, down: float) -> Image.Image:
    """Turns about the centre, then moves right and down (pixels)."""
    x, y = image.width / 2, image.height / 2
    # PIL asks where each pixel of the result comes from, so this is the inverse of the move.
    dx, dy = -x - right, -y - down
    matrix = (cosine, sine, cosine * dx + sine * dy + x, -sine, cosine, -sine * dx + cosine * dy + y)
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=FILL)


def jitter(image: Image.Image, augment: Augment, generator: np.random.Generator) -> Image.Image:
    """Changes brightness, contrast and saturation by a factor each, and turns the colour circle."""
    enhancers = (
        (augment.brightness, ImageEnhance.Brightness),
        (augment.contrast, ImageEnhance.Contrast),
        (augment.saturation, ImageEnhance.Color),
    )
    for most, enhancer in enhancers:
        if most:
            image = enhancer(image).enhance(1 + generator.uniform(-most, most))
    if augment.hue:
        image = turn_hue(image, generator.uniform(-augment.hue, augment.hue))
    if augment.invert and generator.random() < augment.invert:
        image = ImageOps.invert(image)
    return image


def turn_hue(image: Image.Image, share: float) -> Image.Image:
    """Turns every colour by a share of the circle: 1/3 makes red green."""
    hue, saturation, value = image.convert("HSV").split()
    turned = hue.point(np.roll(np.arange(256), -round(share * 256)).tolist())
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")


def _shear(image: Image.Image, along: float, down: float) -> Image.Image:
    matrix = (1, along, -along * image.height / 2, down, 1, -down * image.width / 2)
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=FILL)


def _solarize_add(image: Image.Image, amount: float) -> Image.Image:
    return image.point([min(255, level + round(amount)) if level < 128 else level for level in range(256)] * 3)


# Each takes an image, a strength 0..1 and a sign. Ranges as in the reference implementation named by the paper's
# appendix: 30 degrees, shear 0.3, shift by 0.45 of a side, enhancement by 0.9.
OPERATIONS: tuple[Callable[[Image.Image, float, int], Image.Image], ...] = (
    lambda image, strength, sign: image,
    lambda image, strength, sign: ImageOps.autocontrast(image),
    lambda image, strength, sign: ImageOps.equalize(image),
    lambda image, strength, sign: image.rotate(sign * 30 * strength, Image.Resampling.BILINEAR, fillcolor=FILL),
    lambda image, strength, sign: ImageOps.solarize(image, round(256 * (1 - strength))),
    lambda image, strength, sign: ImageOps.posterize(image, 8 - round(4 * strength)),
    lambda image, strength, sign: ImageEnhance.Color(image).enhance(1 + sign * 0.9 * strength),
    lambda image, strength, sign: ImageEnhance.Contrast(image).enhance(1 + sign * 0.9 * strength),
    lambda image, strength, sign: ImageEnhance.Brightness(image).enhance(1 + sign * 0.9 * strength),
    lambda image, strength, sign: ImageEnhance.Sharpness(image).enhance(1 + sign * 0.9 * strength),
    lambda image, strength, sign: _shear(image, sign * 0.3 * strength, 0),
    lambda image, strength, sign: _shear(image, 0, sign * 0.3 * strength),
    lambda image, strength, sign: _affine(image, 1, 0, sign * 0.45 * strength * image.width, 0),
    lambda image, strength, sign: _affine(image, 1, 0, 0, sign * 0.45 * strength * image.height),
)


def rand_augment(image: Image.Image, count: int, magnitude: float, generator: np.random.Generator) -> Image.Image:
    """Applies `count` operations drawn from fourteen, at one magnitude 0..30.

    Source: Cubuk et al. 2019 (arXiv:1909.13719).
    """
    for _ in range(count):
        operation = OPERATIONS[generator.integers(len(OPERATIONS))]
        image = operation(image, magnitude / MAGNITUDES, 1 if generator.random() < 0.5 else -1)
    return image


def erase(pixels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Cuts a rectangle of 2-33 % of the area out of uint8 [3, H, W], in place; the hole gets FILL."""
    _, height, width = pixels.shape
    area = generator.uniform(*ERASED_AREA) * height * width
    ratio = np.exp(generator.uniform(*np.log(ERASED_RATIO)))
    rows, columns = min(height, round(np.sqrt(area / ratio))), min(width, round(np.sqrt(area * ratio)))
    top, left = generator.integers(height - rows + 1), generator.integers(width - columns + 1)
    pixels[:, top : top + rows, left : left + columns] = np.reshape(FILL, (3, 1, 1))
    return pixels


def mix(
    images: np.ndarray, labels: np.ndarray, num_classes: int, augment: Augment, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Mixes each image of a batch with another one: mixup (faded over) or cutmix (a rectangle pasted in).

    With both wanted, each batch gets one of them, with equal chance.

    Args:
        images: uint8 [N, 3, H, W].
        labels: int64 [N].

    Returns:
        Images uint8 [N, 3, H, W] and targets float32 [N, C], rows of sum 1.

    Source: Zhang et al. 2017 (arXiv:1710.09412) and Yun et al. 2019 (arXiv:1905.04899).
    """
    targets = np.eye(num_classes, dtype=np.float32)[labels]
    ways = [(_fade, augment.mixup)] * bool(augment.mixup) + [(_paste, augment.cutmix)] * bool(augment.cutmix)
    way, alpha = ways[generator.integers(len(ways))]
    partners = generator.permutation(len(images))
    images, share = way(images, images[partners], generator.beta(alpha, alpha), generator)
    return images, (share * targets + (1 - share) * targets[partners]).astype(np.float32)


def _fade(
    images: np.ndarray, others: np.ndarray, share: float, generator: np.random.Generator
) -> tuple[np.ndarray, float]:
    faded = images * np.float32(share) + others * np.float32(1 - share)
    return np.rint(faded).astype(np.uint8), share


def _paste(
    images: np.ndarray, others: np.ndarray, share: float, generator: np.random.Generator
) -> tuple[np.ndarray, float]:
    height, width = images.shape[2:]
    rows, columns = round(height * np.sqrt(1 - share)), round(width * np.sqrt(1 - share))
    top, left = generator.integers(height - rows + 1), generator.integers(width - columns + 1)
    box = np.s_[:, :, top : top + rows, left : left + columns]
    pasted = images.copy()
    pasted[box] = others[box]
    return pasted, 1 - rows * columns / (height * width)
