"""Background, occlusion, light and camera."""

import math

import numpy as np
from numpy.random import Generator
from pen import Palette, colour_of, mix
from PIL import Image, ImageDraw, ImageFilter

PATTERN = 0.5  # share of the second background colour in stripes and dots
OCCLUSION_CHANCE = 0.4
OCCLUSION_SIZE = 0.06  # half width of an occluder, as a share of the smaller side
SHADE = 0.22  # strongest change of brightness from one edge to the other
CONTRAST = 0.15
NOISE = 6.0  # strongest standard deviation, in grey levels of 0..255
BLUR = 0.006  # largest radius, as a share of the smaller side


def _ramp(width: int, height: int, first: tuple, second: tuple, angle: float) -> Image.Image:
    """Returns a linear gradient between two colours in the direction of `angle` (radians)."""
    y, x = np.mgrid[-1:1:8j, -1:1:8j]
    share = np.clip(0.5 + 0.5 * (x * math.cos(angle) + y * math.sin(angle)), 0, 1)[..., None]
    small = np.asarray(first) * (1 - share) + np.asarray(second) * share
    return Image.fromarray(small.astype(np.uint8)).resize((width, height), Image.Resampling.BILINEAR)


def _flat(width: int, height: int, palette: Palette, rng: Generator) -> Image.Image:
    return Image.new("RGB", (width, height), palette.back)


def _gradient(width: int, height: int, palette: Palette, rng: Generator) -> Image.Image:
    return _ramp(width, height, palette.back, palette.back2, rng.uniform(0, 2 * math.pi))


def _stripes(width: int, height: int, palette: Palette, rng: Generator) -> Image.Image:
    image = _flat(width, height, palette, rng)
    canvas, reach = ImageDraw.Draw(image), width + height
    angle, gap = rng.uniform(0, math.pi), rng.uniform(0.08, 0.22) * min(width, height)
    along, across = (math.cos(angle) * reach, math.sin(angle) * reach), (-math.sin(angle), math.cos(angle))
    for offset in np.arange(-reach / 2, reach / 2, gap):
        x, y = width / 2 + across[0] * offset, height / 2 + across[1] * offset
        ends = [x - along[0], y - along[1], x + along[0], y + along[1]]
        canvas.line(ends, fill=mix(palette.back, palette.back2, PATTERN), width=max(1, round(gap * 0.45)))
    return image


def _dots(width: int, height: int, palette: Palette, rng: Generator) -> Image.Image:
    image = _flat(width, height, palette, rng)
    canvas, gap = ImageDraw.Draw(image), rng.uniform(0.1, 0.2) * min(width, height)
    radius, tone = gap * rng.uniform(0.15, 0.32), mix(palette.back, palette.back2, PATTERN)
    for row, y in enumerate(np.arange(0, height + gap, gap)):
        for x in np.arange(row % 2 * gap / 2, width + gap, gap):
            canvas.ellipse([x - radius, y - radius, x + radius, y + radius], fill=tone)
    return image


def _blobs(width: int, height: int, palette: Palette, rng: Generator) -> Image.Image:
    image = _flat(width, height, palette, rng)
    canvas = ImageDraw.Draw(image)
    for _ in range(rng.integers(4, 10)):
        x, y, radius = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.08, 0.3) * min(width, height)
        tone = mix(palette.back, palette.back2, rng.uniform(0.3, 1))
        canvas.ellipse([x - radius, y - radius * 0.8, x + radius, y + radius * 0.8], fill=tone)
    return image


def _landscape(width: int, height: int, palette: Palette, rng: Generator) -> Image.Image:
    image = _ramp(width, height, palette.back, mix(palette.back, palette.back2, 0.5), math.pi / 2)
    canvas, x = ImageDraw.Draw(image), np.linspace(0, width, 24)
    sun, high, radius = (
        rng.uniform(0, width),
        rng.uniform(0, height * 0.3),
        rng.uniform(0.06, 0.14) * min(width, height),
    )
    canvas.ellipse([sun - radius, high - radius, sun + radius, high + radius], fill=palette.back2)
    for level, tone in ((0.45, 0.6), (0.65, 1.0)):
        waves = np.sin(x / width * rng.uniform(3, 9) + rng.uniform(0, 6)) * 0.08 + level + rng.uniform(-0.08, 0.08)
        ridge = np.stack([x, waves * height], axis=1).ravel().tolist()
        canvas.polygon([*ridge, width, height, 0, height], fill=mix(palette.back, palette.back2, tone))
    return image


BACKGROUNDS = (_flat, _gradient, _stripes, _dots, _blobs, _landscape)


def background(width: int, height: int, palette: Palette, rng: Generator) -> Image.Image:
    """Returns a random background, RGB, in the background colours of the palette."""
    return BACKGROUNDS[rng.integers(len(BACKGROUNDS))](width, height, palette, rng)


def _leaf(canvas: ImageDraw.ImageDraw, side: int, start: np.ndarray, angle: float, colour: tuple) -> None:
    """Draws one long leaf that starts at a point of the edge."""
    length, half = side * OCCLUSION_SIZE * 5, side * OCCLUSION_SIZE * 0.6
    along, across = np.array([math.cos(angle), math.sin(angle)]), np.array([-math.sin(angle), math.cos(angle)])
    points = [start - across * half * 0.4, start + along * length * 0.5 - across * half, start + along * length]
    points += [start + along * length * 0.5 + across * half, start + across * half * 0.4]
    canvas.polygon(np.concatenate(points).tolist(), fill=colour)


def _leaves(canvas: ImageDraw.ImageDraw, width: int, height: int, colour: tuple, rng: Generator) -> None:
    for _ in range(rng.integers(3, 8)):
        start = np.array([rng.uniform(0, width), height * 1.02])
        _leaf(canvas, min(width, height), start, rng.uniform(-0.75, -0.25) * math.pi, colour)


def _bar(canvas: ImageDraw.ImageDraw, width: int, height: int, colour: tuple, rng: Generator) -> None:
    thick = max(1, round(min(width, height) * OCCLUSION_SIZE * rng.uniform(0.4, 0.9)))
    start, end = rng.uniform(0.1, 0.9) + rng.uniform(-0.05, 0.05, 2)
    upright = [width * start, 0, width * end, height]
    level = [0, height * start, width, height * end]
    canvas.line(upright if rng.random() < 0.5 else level, fill=colour, width=thick)


def _spots(canvas: ImageDraw.ImageDraw, width: int, height: int, colour: tuple, rng: Generator) -> None:
    for _ in range(rng.integers(1, 4)):
        radius = min(width, height) * OCCLUSION_SIZE * rng.uniform(0.5, 1)
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        canvas.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)


OCCLUSIONS = (_leaves, _bar, _spots)


def occlude(image: Image.Image, rng: Generator) -> None:
    """Draws leaves, a bar or spots in front of everything in some of the images, in place."""
    if rng.random() < OCCLUSION_CHANCE:
        kind = OCCLUSIONS[rng.integers(len(OCCLUSIONS))]
        kind(ImageDraw.Draw(image), *image.size, colour_of(rng, rng.uniform(0.1, 0.9)), rng)


def photograph(image: Image.Image, rng: Generator) -> Image.Image:
    """Returns the image with uneven light, changed contrast, blur and noise."""
    width, height = image.size
    if rng.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, BLUR) * min(width, height)))
    angle, shade = rng.uniform(0, 2 * math.pi), rng.uniform(0, SHADE)
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    light = 1 + shade * (x * np.float32(math.cos(angle)) + y * np.float32(math.sin(angle)))
    contrast, grey = rng.uniform(1 - CONTRAST, 1 + CONTRAST), rng.uniform(118, 138)
    pixels = (np.asarray(image, np.float32) * light[..., None] - grey) * contrast + grey
    noise = rng.standard_normal(pixels.shape, dtype=np.float32) * rng.uniform(0, NOISE)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))
