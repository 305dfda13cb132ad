"""Drawing smooth shapes in an animal's own coordinates.

An animal is drawn in the square -1..1 (x to the right, y downwards). The pen bends that square a little, flips, tilts,
scales and moves it, and knows the line style and the colours of the image.
"""

import colorsys
import copy
import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

CURVE_STEPS = 6  # straight pieces between two control points of a smooth curve
ANGLES = np.linspace(0, 2 * np.pi, 25)[:-1]
CIRCLE = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
NATURAL_CHANCE = 0.6  # of a natural hue instead of any hue
BASE_BRIGHTNESS = (0.32, 0.92)  # of the fur
LIGHT_LINES = 0.36  # below this brightness of the fur, lines are light
FUR_HUES, LAND_HUES = (0.02, 0.15), (0.22, 0.66)  # red-brown to straw; leaf to sky
WHITE, BLACK = (250, 250, 250), (15, 15, 15)


def _spline_weights(steps: int) -> np.ndarray:
    """Returns the Catmull-Rom weights, float64 [steps, 4], of the four points around each piece."""
    t = np.arange(steps)[:, None] / steps
    powers = np.concatenate([np.ones_like(t), t, t**2, t**3], axis=1)
    matrix = 0.5 * np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]])
    return powers @ matrix


SPLINE = _spline_weights(CURVE_STEPS)


def smooth(points: np.ndarray | list, closed: bool) -> np.ndarray:
    """Returns points, float64 [M, 2], on a Catmull-Rom curve through the control points [N, 2]."""
    points = np.asarray(points, float)
    if closed:
        padded = np.concatenate([points[-1:], points, points[:2]])
    else:
        padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    spans = np.stack([padded[:-3], padded[1:-2], padded[2:-1], padded[3:]], axis=1)
    curve = np.einsum("sk,nkd->nsd", SPLINE, spans).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, points[-1:]])


def luma(colour: tuple) -> float:
    """Returns the brightness, 0..1, of an RGB colour 0..255 (Rec. 601 weights)."""
    return (0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]) / 255


def mix(first: tuple, second: tuple, share: float) -> tuple:
    """Returns the colour that lies `share` (0..1) of the way from the first to the second."""
    return tuple(round(a + (b - a) * share) for a, b in zip(first, second, strict=True))


def on(colour: tuple) -> tuple:
    """Returns a dark or light tone that contrasts with a colour: nostrils on a snout."""
    return BLACK if luma(colour) > 0.3 else mix(colour, WHITE, 0.7)


def colour_of(rng: Generator, brightness: float, hues: tuple[float, float] = (0.0, 1.0)) -> tuple:
    """Returns a random colour of a brightness 0..1, mostly with a hue between the two in `hues` (0..1)."""
    low, high = hues if rng.random() < NATURAL_CHANCE else (0.0, 1.0)
    pure = tuple(255 * part for part in colorsys.hsv_to_rgb(rng.uniform(low, high), rng.uniform(0.1, 0.9), 1))
    bright = luma(pure)
    if bright > brightness:
        return mix(BLACK, pure, brightness / bright)
    return mix(pure, (255, 255, 255), (brightness - bright) / (1 - bright))


def brightness_apart(rng: Generator, *others: tuple[float, float]) -> float:
    """Returns a random brightness at a minimum distance from others, each given as (brightness, distance)."""
    candidates = rng.uniform(0.06, 0.95, 24)
    margins = np.min([np.abs(candidates - other) - distance for other, distance in others], axis=0)
    good = np.flatnonzero(margins >= 0)
    return float(candidates[good[0] if len(good) else int(np.argmax(margins))])


@dataclass
class Palette:
    """The colours of one image; nothing in it depends on the animal."""

    base: tuple  # fur or skin
    patch: tuple  # muzzle, belly, stripes
    accent: tuple  # tongue, comb, collar
    ink: tuple  # lines
    back: tuple  # background, and its second tone
    back2: tuple

    @classmethod
    def random(cls, rng: Generator) -> "Palette":
        """Draws colours; adjacent ones differ visibly in brightness."""
        base = rng.uniform(*BASE_BRIGHTNESS)
        back = brightness_apart(rng, (base, 0.36))
        patch = brightness_apart(rng, (base, 0.28), (back, 0.12))
        accent = brightness_apart(rng, (base, 0.2), (patch, 0.12), (back, 0.15))
        back2 = float(np.clip(back + rng.uniform(-0.12, 0.12), 0.03, 0.97))
        ink = mix(BLACK if base > LIGHT_LINES else WHITE, colour_of(rng, 0.5), rng.uniform(0, 0.2))
        animal = [colour_of(rng, value, FUR_HUES) for value in (base, patch, accent)]
        return cls(*animal, ink, *(colour_of(rng, value, LAND_HUES) for value in (back, back2)))


class Pen:
    """Draws in the square -1..1 onto an image.

    Args:
        image: RGB image, drawn on in place.
        palette: Colours of the animal and the background.
        placing: Affine map from the square to pixels, float64 [2, 3].
        bend: (size, waves, phases, taper): amplitude, frequencies and phases of the bend; how much wider the bottom is.
        line: Outline width in units of the square; 0 for a faint edge.
        sketchy: Draw outlines twice, with jitter.
        rng: Source of the jitter.
    """

    def __init__(self, image: Image.Image, palette: Palette, placing: np.ndarray, bend: tuple, line: float,
                 sketchy: bool, rng: Generator):  # fmt: skip
        self.canvas = ImageDraw.Draw(image)
        self.palette, self.placing, self.bend = palette, placing, bend
        self.sketchy, self.rng = sketchy, rng
        self.unit = math.sqrt(abs(np.linalg.det(placing[:, :2])))
        self.faint = line == 0
        self.line = max(1, round((line or 0.02) * self.unit))
        self.shift, self.scale = np.zeros(2), 1.0

    def moved(self, x: float, y: float, scale: float = 1.0, about: tuple = (0.0, 0.0)) -> "Pen":
        """Returns a pen shifted by (x, y) and scaled about the point `about`: a turned head, a big head."""
        other = copy.copy(self)
        other.shift = self.shift + self.scale * (np.asarray(about) * (1 - scale) + (x, y))
        other.scale = self.scale * scale
        return other

    def pixels(self, points: np.ndarray | list) -> np.ndarray:
        """Maps points of the square to pixel positions, float64 [N, 2]."""
        points = np.asarray(points, float) * self.scale + self.shift
        size, waves, phases, taper = self.bend
        points = points + size * np.sin(points[:, ::-1] * waves + phases)
        points[:, 0] *= 1 + taper * points[:, 1]
        return points @ self.placing[:, :2].T + self.placing[:, 2]

    def _edge(self, pixels: np.ndarray, fill: tuple) -> None:
        """Draws the outline of a shape in the style of the image."""
        colour = mix(fill, self.palette.ink, 0.35) if self.faint else self.palette.ink
        pixels = np.concatenate([pixels, pixels[:2]])
        for _ in range(2 if self.sketchy else 1):
            shaken = pixels + self.rng.normal(0, 0.011 * self.unit, pixels.shape) if self.sketchy else pixels
            self.canvas.line(shaken.ravel().tolist(), fill=colour, width=self.line, joint="curve")

    def shape(self, points: np.ndarray | list, fill: tuple, pair: bool = False, edge: bool = True) -> None:
        """Fills a polygon [N, 2] and draws its outline; `pair` draws its mirror image (x to -x) as well."""
        points = np.asarray(points, float)
        for side in (points, points * (-1, 1)) if pair else (points,):
            pixels = self.pixels(side)
            self.canvas.polygon(pixels.ravel().tolist(), fill=fill)
            if edge:
                self._edge(pixels, fill)

    def blob(self, points: np.ndarray | list, fill: tuple, pair: bool = False, edge: bool = True) -> None:
        """Fills the smooth closed curve through the control points."""
        self.shape(smooth(points, closed=True), fill, pair, edge)

    def ellipse(self, x: float, y: float, width: float, height: float, fill: tuple, angle: float = 0,
                pair: bool = False, edge: bool = True) -> None:  # fmt: skip
        """Fills an ellipse with semi-axes `width` and `height`, rotated clockwise by `angle` degrees."""
        cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        self.shape(CIRCLE * (width, height) @ [[cosine, sine], [-sine, cosine]] + (x, y), fill, pair, edge)

    def tube(self, points: np.ndarray | list, widths: tuple, fill: tuple, pair: bool = False) -> None:
        """Fills a band along the smooth curve through `points`; `widths` are spread evenly along it."""
        self.shape(np.concatenate(band(points, widths)), fill, pair)

    def stroke(
        self, points: np.ndarray | list, colour: tuple | None = None, width: float = 0, pair: bool = False
    ) -> None:
        """Draws a smooth open line, by default as thick as the outlines."""
        curve = smooth(points, closed=False)
        for side in (curve, curve * (-1, 1)) if pair else (curve,):
            thick = max(self.line, round(width * self.unit))
            pixels = self.pixels(side).ravel().tolist()
            self.canvas.line(pixels, fill=colour or self.palette.ink, width=thick, joint="curve")


def band(points: np.ndarray | list, widths: tuple) -> tuple[np.ndarray, np.ndarray]:
    """Returns both sides of a band, float64 [M, 2] each; the second runs backwards: together a closed outline."""
    curve = smooth(points, closed=False)
    step = np.gradient(curve, axis=0)
    normal = step[:, ::-1] * (-1, 1) / np.maximum(np.hypot(step[:, :1], step[:, 1:]), 1e-9)
    half = np.interp(np.linspace(0, 1, len(curve)), np.linspace(0, 1, len(widths)), widths)[:, None] / 2
    return curve + normal * half, (curve - normal * half)[::-1]
