"""The shapes of the twelve animals, drawn with a `pen.Pen` in the square -1..1.

Each function draws one animal, looking left or at the viewer, with random proportions. `DRAWINGS` lists them in the
order of the zodiac, which is that of the class indices. The file is long because it holds twelve drawings; what they
share is in `features` and `pen`.
"""

import numpy as np
from numpy.random import Generator
from parts import Mood, eye, round_ear, shoulders, smile, symmetric, whiskers
from pen import BLACK, WHITE, Pen, band, mix, on, smooth

# fmt: off -- points read better in rows

RAT_TAILS = (
    [(0.5, 0.55), (0.8, 0.64), (0.98, 0.3), (0.8, -0.05), (0.74, -0.4), (0.96, -0.72)],
    [(0.5, 0.55), (0.84, 0.6), (1.0, 0.2), (0.84, -0.3), (0.52, -0.56), (0.62, -0.78)],
    [(0.5, 0.58), (0.8, 0.72), (1.04, 0.5), (0.9, 0.18), (1.04, -0.12), (0.86, -0.4)],
)


def ratt(pen: Pen, rng: Generator, mood: Mood) -> None:
    """Draws a rat from the side: pointed snout, big round ears, long thin tail."""
    colours, back, ear = pen.palette, rng.uniform(-0.08, 0.06), 0.3 * rng.uniform(0.9, 1.12)
    pen.tube(RAT_TAILS[rng.integers(len(RAT_TAILS))], (0.14, 0.11, 0.09, 0.06, 0.03), colours.accent)
    pen.ellipse(0.04, -0.42, ear * 0.85, ear * 0.9, colours.patch)
    pen.blob(
        [
            (-1.0, 0.32),
            (-0.72, 0.0),
            (-0.42, -0.24),
            (0.08, -0.38 + back),
            (0.5, -0.16 + back),
            (0.68, 0.3),
            (0.47, 0.68),
            (-0.15, 0.68),
            (-0.6, 0.58),
            (-0.92, 0.46),
        ],
        colours.base,
    )
    pen.blob([(-0.45, 0.52), (0, 0.42), (0.35, 0.55), (0.1, 0.66), (-0.3, 0.64)], colours.patch, edge=False)
    for x in (-0.38 + back, 0.35 - back):
        pen.ellipse(x, 0.72, 0.18, 0.075, colours.accent)
    round_ear(pen, -0.3, -0.34, ear, pair=False)
    pen.ellipse(-0.97, 0.35, 0.08, 0.08, colours.accent)
    eye(pen, -0.62, 0.13, 0.09, mood)
    whiskers(pen, -0.78, 0.4, 0.24, pair=False)
    whiskers(pen, -0.78, 0.4, -0.32, pair=False)
    if mood.mouth:
        pen.shape([(-0.84, 0.5), (-0.74, 0.5), (-0.75, 0.62), (-0.83, 0.62)], WHITE)


def ox(pen: Pen, rng: Generator, mood: Mood) -> None:
    """Draws the head of an ox: wide horns, ears below them, broad muzzle, mostly with a ring."""
    colours, horn = pen.palette, rng.uniform(-0.12, 0.12)
    shoulders(pen, 0.98, 0.28)
    pen.tube(
        [(-0.25, -0.46), (-0.62, -0.48), (-0.92, -0.62 + horn), (-0.86 + horn, -1.0 + horn / 2)],
        (0.24, 0.22, 0.15, 0.02),
        colours.patch,
        pair=True,
    )
    pen.blob([(-0.4, -0.28), (-0.65, -0.32), (-0.92, -0.14), (-0.7, -0.02), (-0.42, -0.1)], colours.base, pair=True)
    pen.blob([(-0.52, -0.21), (-0.8, -0.15), (-0.56, -0.11)], colours.accent, pair=True, edge=False)
    pen.blob(symmetric([(0, -0.6), (0.44, -0.5), (0.5, -0.14), (0.4, 0.5), (0, 0.72)]), colours.base)
    face = mood.face_of(pen)
    face.shape(
        [
            (-0.32, -0.54),
            (-0.14, -0.7),
            (0.02, -0.6),
            (0.15, -0.7),
            (0.32, -0.54),
            (0.13, -0.3),
            (0, -0.42),
            (-0.14, -0.28),
        ],
        colours.accent,
    )
    eye(face, -0.28, -0.12, 0.1, mood, pair=True)
    face.ellipse(0, 0.48, 0.52 * rng.uniform(0.94, 1.06), 0.33, colours.patch)
    face.ellipse(-0.23, 0.4, 0.11, 0.08, on(colours.patch), angle=-25, pair=True)
    if rng.random() < 0.7:
        angle = np.linspace(-2.6, 2.6, 9)
        ring = np.stack([0.15 * np.sin(angle), 0.64 + 0.15 * np.cos(angle)], axis=1)
        face.stroke(ring, colours.ink, 0.1)
        face.stroke(ring, colours.accent, 0.06)
    else:
        face.stroke([(-0.28, 0.62), (0, 0.68), (0.28, 0.62)])


def tiger(pen: Pen, rng: Generator, mood: Mood) -> None:
    """Draws the head of a tiger: round ears, stripes on brow, cheeks and shoulders, whiskers."""
    colours, ruff = pen.palette, rng.uniform(-0.05, 0.08)
    stripe = BLACK if colours.ink[0] < 128 else WHITE
    shoulders(pen, 0.9, 0.45)
    for y in (0.72, 0.92):
        pen.shape([(-0.92, y + 0.04), (-0.48, y - 0.04), (-0.9, y + 0.13)], stripe, pair=True, edge=False)
    round_ear(pen, -0.56, -0.62, 0.27 * rng.uniform(0.9, 1.1))
    pen.blob(
        symmetric([(0, -0.78), (0.45, -0.66), (0.74, -0.2), (0.88 + ruff, 0.28), (0.6, 0.5), (0.3, 0.72), (0, 0.78)]),
        colours.base,
    )
    face = mood.face_of(pen)
    for x, top, low in ((0, -0.79, -0.3), (-0.23, -0.74, -0.42)):
        pen.shape([(x - 0.09, top), (x + 0.09, top), (x, low)], stripe, pair=x != 0, edge=False)
    for y, x, length in ((-0.24, -0.76, 0.28), (0.02, -0.86, 0.38), (0.27, -0.92, 0.38)):
        pen.shape([(x + 0.04, y - 0.08), (x + length, y + 0.03), (x, y + 0.08)], stripe, pair=True, edge=False)
    eye(face, -0.28, -0.13, 0.11, mood, pair=True)
    face.ellipse(0, 0.54, 0.17, 0.14, colours.patch, edge=False)
    smile(face, 0.42, 0.3, 0.12, mood)
    face.ellipse(-0.18, 0.36, 0.23, 0.18, colours.patch, pair=True)
    face.blob([(-0.18, 0.12), (0, 0.09), (0.18, 0.12), (0, 0.31)], colours.accent)
    whiskers(face, -0.3, 0.38, 0.45)


def rabbit(pen: Pen, rng: Generator, mood: Mood) -> None:
    """Draws a rabbit: two long ears, buck teeth."""
    colours, spread, lean = pen.palette, rng.uniform(5, 18), rng.uniform(-8, 8)
    shoulders(pen, 0.62, 0.55)
    for side in (-1, 1):
        angle = side * spread + lean
        pen.ellipse(side * 0.28, -0.54, 0.18, 0.48, colours.base, angle=angle)
        pen.ellipse(side * 0.28, -0.52, 0.09, 0.35, colours.patch, angle=angle, edge=False)
    cheek = 0.56 + rng.uniform(-0.04, 0.06)
    pen.blob(symmetric([(0, -0.22), (0.38, -0.12), (cheek, 0.3), (0.36, 0.62), (0, 0.7)]), colours.base)
    if rng.random() < 0.5:
        pen.ellipse(0, 0.88, 0.2, 0.2, colours.patch)
    face = mood.face_of(pen)
    eye(face, -0.26, 0.12, 0.1, mood, pair=True)
    teeth = 0.68 + 0.06 * mood.mouth
    face.shape([(-0.1, 0.5), (0.1, 0.5), (0.09, teeth), (-0.09, teeth)], WHITE)
    face.stroke([(0, 0.52), (0, 0.6), (0, teeth)])
    face.ellipse(-0.14, 0.43, 0.18, 0.13, colours.patch, pair=True)
    face.blob([(-0.11, 0.28), (0.11, 0.28), (0, 0.4)], colours.accent)
    whiskers(face, -0.26, 0.42, 0.45, count=2)


def dragon(pen: Pen, rng: Generator, mood: Mood) -> None:
    """Draws a dragon: winding spiny body, antlers, mane, long whiskers."""
    colours, wave = pen.palette, rng.uniform(-0.06, 0.06)
    path = [
        (-0.1, -0.4),
        (0.32, -0.46 + wave),
        (0.64, -0.16),
        (0.3, 0.14),
        (-0.3, 0.22 - wave),
        (-0.66, 0.5),
        (-0.3, 0.8),
        (0.3, 0.72 + wave),
        (0.72, 0.6),
        (0.92, 0.2),
    ]
    widths = (0.28, 0.32, 0.32, 0.3, 0.27, 0.22, 0.14, 0.04)
    for x, y in ((0.05, 0.24), (0.2, 0.78), (-0.5, 0.72)):
        leg(pen, x, y)
    left, right = band(path, widths)
    spikes(pen, left, colours.accent)
    pen.shape(
        [(0.84, 0.24), (0.7, 0.0), (0.86, 0.06), (0.92, -0.2), (0.98, 0.06), (1.12, 0.02), (0.98, 0.26)], colours.accent
    )
    pen.tube(path, widths, colours.base)
    middle = smooth(path, closed=False)
    for index in range(8, len(middle) - 10, 4):
        pen.stroke([middle[index], right[::-1][index]], colours.patch, 0.06)
    dragon_head(pen.moved(mood.turn + 0.06, mood.nod + 0.02, 1.15 * mood.face, about=(-0.3, -0.35)), mood)


def leg(pen: Pen, x: float, y: float) -> None:
    """Draws a short leg with three claws that points down."""
    pen.tube([(x, y), (x + 0.08, y + 0.14), (x, y + 0.24)], (0.17, 0.14, 0.1), pen.palette.base)
    for claw in (-0.11, 0, 0.11):
        pen.stroke([(x, y + 0.23), (x + claw, y + 0.27), (x + claw * 1.3, y + 0.34)], pen.palette.accent, 0.05)


def spikes(pen: Pen, edge: np.ndarray, fill: tuple) -> None:
    """Draws a row of spines on one side of a body, given as points along that side."""
    for index in range(4, len(edge) - 8, 5):
        first, second = edge[index], edge[index + 4]
        out = (second - first)[::-1] * (-1, 1)
        pen.shape([first, (first + second) / 2 + out / np.hypot(*out) * 0.16, second], fill)


def dragon_head(pen: Pen, mood: Mood) -> None:
    """Draws the dragon's head, from the side, at the upper left."""
    colours, jaw = pen.palette, 0.1 + 0.12 * mood.mouth
    pen.shape(
        [
            (-0.3, -0.75),
            (0.02, -0.9),
            (-0.02, -0.72),
            (0.22, -0.68),
            (0.08, -0.52),
            (0.24, -0.36),
            (0.04, -0.33),
            (0.12, -0.1),
            (-0.12, -0.2),
            (-0.25, -0.03),
            (-0.4, -0.3),
        ],
        colours.patch,
    )
    for x in (-0.1, -0.28):
        pen.tube([(x, -0.62), (x + 0.06, -0.82), (x + 0.2, -1.0)], (0.11, 0.09, 0.05), colours.accent)
        pen.tube([(x + 0.06, -0.78), (x - 0.06, -0.88), (x - 0.06, -1.0)], (0.08, 0.07, 0.04), colours.accent)
    pen.blob(
        [(-0.2, -0.3), (-0.5, -0.24), (-0.78, -0.3 + jaw), (-0.8, -0.2 + jaw), (-0.5, -0.08 + jaw / 2), (-0.2, -0.14)],
        colours.base,
    )
    for x in (-0.72, -0.6, -0.48):
        pen.shape([(x - 0.05, -0.36), (x + 0.05, -0.36), (x, -0.22)], WHITE)
    pen.blob(
        [
            (-0.08, -0.5),
            (-0.25, -0.7),
            (-0.5, -0.58),
            (-0.72, -0.56),
            (-0.82, -0.66),
            (-0.94, -0.56),
            (-0.95, -0.38),
            (-0.6, -0.33),
            (-0.25, -0.25),
        ],
        colours.base,
    )
    pen.ellipse(-0.84, -0.53, 0.04, 0.035, on(colours.base), edge=False)
    eye(pen, -0.36, -0.53, 0.09, mood)
    pen.stroke([(-0.5, -0.68), (-0.36, -0.72), (-0.24, -0.67)], width=0.05)
    pen.stroke([(-0.88, -0.42), (-1.0, -0.2), (-0.9, 0.02), (-0.98, 0.2)], colours.accent, 0.05)
    pen.shape([(-0.72, -0.16 + jaw), (-0.48, -0.12 + jaw / 2), (-0.58, 0.14 + jaw / 2)], colours.patch)


def snake(pen: Pen, rng: Generator, mood: Mood) -> None:
    """Draws a coiled snake with raised head and forked tongue, its skin spotted or banded."""
    colours, sway, banded = pen.palette, rng.uniform(-0.12, 0.12), rng.random() < 0.4
    pen.tube([(0.5, 0.8), (0.8, 0.72), (0.96, 0.45), (0.86, 0.2)], (0.28, 0.22, 0.13, 0.02), colours.base)
    for y, width in ((0.72, 0.82), (0.44, 0.64), (0.19, 0.45)):
        pen.ellipse(0, y, width, 0.23, colours.base)
        for x in np.linspace(-0.72, 0.72, 5) * width:
            low, half = y + 0.22 * np.sqrt(1 - (x / width) ** 2), 0.05 if banded else 0.09
            high = low - (0.3 if banded else 0.23)
            middle = (low + high) / 2
            pen.blob([(x - half, middle), (x, high), (x + half, middle), (x, low)], colours.patch, edge=False)
    neck = [(0.1, 0.2), (0.32, -0.08), (0.28 + sway, -0.38), (0.02 + sway / 2, -0.62), (-0.3, -0.66)]
    pen.tube(neck, (0.34, 0.3, 0.27, 0.25, 0.22), colours.base)
    for x, y in smooth(neck, closed=False)[2:-6:5]:
        pen.ellipse(x, y, 0.11 if banded else 0.075, 0.04 if banded else 0.065, colours.patch, edge=False)
    head = pen.moved(mood.turn, mood.nod, 1.08 * mood.face, about=(-0.3, -0.6))
    for fork in (-0.1, 0.1):
        head.stroke([(-0.6, -0.55), (-0.82, -0.5), (-0.9, -0.47), (-1.02, -0.47 + fork)], colours.accent, 0.06)
    head.blob(
        [(-0.02, -0.66), (-0.22, -0.86), (-0.5, -0.78), (-0.74, -0.62), (-0.7, -0.5), (-0.4, -0.42), (-0.14, -0.48)],
        colours.base,
    )
    head.stroke([(-0.7, -0.56), (-0.5, -0.54), (-0.28, -0.58)])
    eye(head, -0.4, -0.68, 0.085, mood)


def horse(pen: Pen, rng: Generator, mood: Mood) -> None:
    """Draws the head and neck of a horse from the side: long face, upright ears, mane, half of them with a halter."""
    colours, long, wild = pen.palette, rng.uniform(-0.04, 0.06), rng.integers(2, 4)
    crest = [(-0.12, -0.86), (0.2, -0.72), (0.48, -0.4), (0.68, 0.0), (0.8, 0.45), (0.86, 0.95)]
    pen.shape([(0.0, -0.82), (0.0, -1.02), (0.14, -0.8)], colours.base)
    pen.blob(
        [
            (0.08, -0.78),
            (-0.16, -0.7),
            (-0.36, -0.38),
            (-0.6, 0.0),
            (-0.82 - long, 0.22),
            (-0.8 - long, 0.42),
            (-0.6, 0.5),
            (-0.42, 0.34),
            (-0.2, 0.2),
            (0.02, 0.12),
            (0.02, 0.45),
            (-0.12, 0.8),
            (-0.2, 1.12),
            (0.4, 1.16),
            (0.85, 1.12),
            (0.78, 0.4),
            (0.6, -0.2),
            (0.36, -0.6),
        ],
        colours.base,
    )
    ridge = smooth(crest, closed=False)
    lock = [point + ((0.15, -0.08) if index % wild else (-0.02, 0.04)) for index, point in enumerate(ridge)]
    pen.shape([*lock, *(ridge + np.array((-0.2, 0.1)))[::-1]], colours.patch)
    pen.shape([(-0.16, -0.74), (-0.06, -1.06), (0.06, -0.72)], colours.base)
    pen.blob([(-0.06, -0.8), (-0.24, -0.68), (-0.34, -0.4), (-0.2, -0.48), (-0.06, -0.62)], colours.patch)
    eye(pen, -0.2, -0.32, 0.09, mood)
    pen.blob(
        [(-0.66, 0.1), (-0.86 - long, 0.24), (-0.82 - long, 0.44), (-0.62, 0.5), (-0.52, 0.3)],
        colours.patch,
        edge=False,
    )
    pen.ellipse(-0.74, 0.25, 0.05, 0.07, on(colours.patch), angle=30)
    pen.stroke([(-0.8, 0.41), (-0.66, 0.38), (-0.54, 0.42 + 0.05 * mood.mouth)])
    pen.stroke([(0.02, 0.1), (0.1, -0.08), (0.06, -0.25)])
    if rng.random() < 0.5:
        pen.stroke([(-0.56, -0.06), (-0.45, 0.1), (-0.4, 0.33)], colours.accent, 0.08)
        pen.stroke([(-0.47, 0.1), (-0.15, -0.1), (0.12, -0.55)], colours.accent, 0.07)


def goat(pen: Pen, rng: Generator, mood: Mood) -> None:
    """Draws the head of a goat: ridged horns that curve back, hanging ears, beard."""
    colours, curl, beard = pen.palette, rng.uniform(-0.1, 0.1), rng.uniform(0.96, 1.08)
    shoulders(pen, 0.6, 0.4)
    horn = [(-0.14, -0.4), (-0.26, -0.78), (-0.56, -0.96), (-0.84, -0.74 + curl), (-0.8, -0.42 + curl)]
    widths = (0.21, 0.2, 0.17, 0.11, 0.02)
    pen.tube(horn, widths, colours.patch, pair=True)
    left, right = band(horn, widths)
    for index in range(4, 20, 4):
        pen.stroke([left[index], right[-1 - index]], pair=True)
    pen.blob(
        [(-0.3, -0.26), (-0.55, -0.26), (-0.88, 0.02), (-0.84, 0.14), (-0.5, 0.0), (-0.3, -0.08)],
        colours.base,
        pair=True,
    )
    pen.shape(
        smooth(
            [(-0.22, 0.5), (-0.21, 0.75), (-0.06, beard), (0, 0.92), (0.08, beard), (0.21, 0.75), (0.22, 0.5)],
            closed=False,
        ),
        colours.patch,
    )
    pen.blob(symmetric([(0, -0.52), (0.3, -0.42), (0.36, -0.1), (0.24, 0.3), (0.2, 0.55), (0, 0.64)]), colours.base)
    face = mood.face_of(pen, 0.7)
    if rng.random() < 0.6:
        face.blob(symmetric([(0, -0.4), (0.09, -0.1), (0.12, 0.25), (0, 0.35)]), colours.patch, edge=False)
    eye(face, -0.23, -0.12, 0.09, mood, pair=True)
    face.blob([(-0.13, 0.34), (0.13, 0.34), (0, 0.46)], colours.accent)
    face.stroke([(0, 0.44), (0, 0.52)])
    smile(face, 0.5, 0.15, 0.03, mood, tongue=False)


def monkey(pen: Pen, rng: Generator, mood: Mood) -> None:
    """Draws a sitting monkey: heart-shaped face, ears at the sides, curled tail; some wave a hand."""
    colours, lift = pen.palette, rng.uniform(-0.08, 0.08)
    pen.tube(
        [
            (0.25, 0.85),
            (0.65, 0.9),
            (0.94, 0.6),
            (0.9, 0.2 + lift),
            (0.66, 0.2 + lift),
            (0.64, 0.42 + lift),
            (0.76, 0.44 + lift),
        ],
        (0.14, 0.13, 0.12, 0.11, 0.1, 0.08, 0.05),
        colours.base,
    )
    pen.blob(symmetric([(0, 0.1), (0.3, 0.3), (0.42, 0.75), (0.3, 1.02), (0, 1.06)]), colours.base)
    pen.ellipse(0, 0.68, 0.24, 0.3, colours.patch, edge=False)
    near, far = [(-0.26, 0.3), (-0.56, 0.55), (-0.5, 0.8), (-0.28, 0.86)], [(0.26, 0.3), (0.46, 0.55), (0.4, 0.75)]
    if mood.mouth:
        near = [(-0.24, 0.34), (-0.56, 0.48), (-0.82, 0.3), (-0.88, 0.06)]
    for arm in (near, far):
        pen.tube(arm, (0.17, 0.16, 0.14, 0.13), colours.base)
        pen.ellipse(*arm[-1], 0.1, 0.09, colours.patch)
    pen.ellipse(-0.34, 0.98, 0.22, 0.1, colours.patch, pair=True)
    round_ear(pen, -0.62, -0.34, 0.25 * rng.uniform(0.9, 1.12))
    pen.ellipse(0, -0.36, 0.58, 0.52, colours.base)
    pen.shape([(-0.16, -0.84), (-0.1, -1.04), (0, -0.9), (0.12, -1.04), (0.14, -0.84)], colours.base)
    face = mood.face_of(pen)
    face.blob(
        symmetric([(0, -0.5), (0.2, -0.66), (0.42, -0.5), (0.36, -0.24), (0.42, -0.04), (0.24, 0.12), (0, 0.15)]),
        colours.patch,
    )
    eye(face, -0.19, -0.42, 0.1, mood, pair=True)
    face.ellipse(-0.06, -0.2, 0.04, 0.035, on(colours.patch), pair=True, edge=False)
    smile(face, -0.1, 0.26, 0.1, mood)


def rooster(pen: Pen, rng: Generator, mood: Mood) -> None:
    """Draws a rooster from the side: comb, beak, wattle, arched tail feathers, clawed legs."""
    colours, lift, step = pen.palette, rng.uniform(-0.08, 0.08), rng.uniform(-0.06, 0.12)
    for index, (x, y) in enumerate([(0.56, -0.8), (0.84, -0.62), (1.0, -0.28), (1.02, 0.08)]):
        middle = (0.45 + 0.12 * index, y * 0.75 - 0.14 + 0.08 * index + lift)
        pen.tube(
            [(0.35, 0.2), middle, (x, y + lift), (x + 0.05, y + 0.2 + lift)],
            (0.1, 0.24, 0.22, 0.02),
            (colours.patch, colours.accent)[index % 2],
        )
    for x, foot in ((-0.05, -0.05 - step), (0.2, 0.2 + step)):
        pen.stroke([(x, 0.5), ((x + foot) / 2 + 0.02, 0.72), (foot, 0.94)], colours.accent, 0.08)
        for toe in (-0.18, -0.06, 0.12):
            pen.stroke([(foot, 0.9), (foot + toe / 2, 0.95), (foot + toe, 1.0)], colours.accent, 0.06)
    for x, y, size in ((-0.64, -0.84, 0.11), (-0.49, -0.93, 0.14), (-0.32, -0.87, 0.13), (-0.21, -0.72, 0.11)):
        pen.ellipse(x, y, size, size * 1.15, colours.accent)
    pen.blob(
        [
            (-0.46, -0.76),
            (-0.64, -0.6),
            (-0.56, -0.36),
            (-0.6, 0.0),
            (-0.48, 0.36),
            (-0.1, 0.62),
            (0.3, 0.5),
            (0.54, 0.1),
            (0.3, 0.02),
            (0.02, -0.02),
            (-0.16, -0.3),
            (-0.24, -0.66),
        ],
        colours.base,
    )
    pen.shape(
        [
            (-0.58, -0.34),
            (-0.2, -0.34),
            (-0.02, 0.0),
            (-0.14, 0.0),
            (-0.2, 0.14),
            (-0.3, 0.02),
            (-0.38, 0.18),
            (-0.46, 0.02),
            (-0.56, 0.1),
            (-0.6, -0.04),
        ],
        colours.patch,
    )
    pen.blob([(-0.1, 0.1), (0.2, 0.08), (0.48, 0.22), (0.22, 0.42), (-0.04, 0.36)], colours.patch)
    pen.stroke([(0.05, 0.28), (0.2, 0.3), (0.36, 0.25)])
    gap = 0.1 * mood.mouth
    pen.shape([(-0.58, -0.52), (-0.8, -0.44 + gap), (-0.58, -0.42)], mix(colours.patch, BLACK, 0.2))
    pen.shape([(-0.58, -0.66), (-0.96, -0.5), (-0.58, -0.5)], colours.patch)
    pen.blob([(-0.56, -0.44), (-0.48, -0.3), (-0.56, -0.1), (-0.68, -0.18), (-0.66, -0.34)], colours.accent)
    eye(pen, -0.45, -0.6, 0.08, mood)


def dog(pen: Pen, rng: Generator, mood: Mood) -> None:
    """Draws the head of a dog: hanging ears, big nose, tongue, collar, half of them with a patch around one eye."""
    colours, swing = pen.palette, rng.uniform(-0.06, 0.12)
    shoulders(pen, 0.78, 0.5)
    pen.tube([(-0.5, 0.74), (0, 0.92), (0.5, 0.74)], (0.16, 0.16, 0.16), colours.accent)
    pen.blob(symmetric([(0, -0.7), (0.36, -0.64), (0.55, -0.3), (0.53, 0.15), (0.4, 0.55), (0, 0.72)]), colours.base)
    face = mood.face_of(pen)
    if rng.random() < 0.5:
        face.ellipse(0.24, -0.14, 0.2, 0.23, colours.patch, edge=False)
    pen.blob(
        [
            (-0.3, -0.68),
            (-0.58, -0.68),
            (-0.8 - swing, -0.2),
            (-0.86 - swing, 0.3),
            (-0.68 - swing, 0.48),
            (-0.52, 0.2),
            (-0.46, -0.3),
        ],
        colours.patch,
        pair=True,
    )
    eye(face, -0.22, -0.14, 0.1, mood, pair=True)
    tip = 0.8 + 0.12 * mood.mouth
    face.blob([(-0.15, 0.5), (0.15, 0.5), (0.16, tip), (0, tip + 0.1), (-0.16, tip)], colours.accent)
    face.stroke([(0, 0.55), (0, tip - 0.04)])
    face.ellipse(-0.18, 0.4, 0.24, 0.19, colours.patch, pair=True)
    face.blob([(-0.21, 0.16), (0, 0.11), (0.21, 0.16), (0.1, 0.33), (0, 0.36), (-0.1, 0.33)], on(colours.patch))
    for x in (-0.26, -0.16):
        face.ellipse(x, 0.43, 0.022, 0.022, on(colours.patch), pair=True, edge=False)


def pig(pen: Pen, rng: Generator, mood: Mood) -> None:
    """Draws a pig: round head, ears upright or folded, snout disc, curly tail."""
    colours, angle = pen.palette, np.linspace(0, 4 * np.pi, 21)
    pen.ellipse(0.14, 0.6, 0.82, 0.5, colours.base)
    curl = np.stack([0.76 + 0.016 * angle + 0.09 * np.sin(angle), 0.2 - 0.03 * angle + 0.11 * np.cos(angle)], axis=1)
    pen.stroke(curl, colours.ink, 0.12)
    pen.stroke(curl, colours.accent, 0.07)
    tip, fold = ((-0.8, -0.92), (-0.72, -0.98)) if rng.random() < 0.5 else ((-0.86, -0.8), (-0.72, -0.92))
    pen.blob([(-0.64, -0.26), tip, fold, (-0.18, -0.66)], colours.base, pair=True)
    pen.blob([(-0.58, -0.44), (-0.7, -0.78), (-0.36, -0.62)], colours.patch, pair=True, edge=False)
    pen.ellipse(0, -0.06, 0.7 * rng.uniform(0.95, 1.05), 0.64, colours.base)
    face = mood.face_of(pen)
    eye(face, -0.36, -0.22, 0.09, mood, pair=True)
    smile(face, 0.3, 0.36, 0.12, mood)
    face.ellipse(0, 0.1, 0.36, 0.27, colours.patch)
    face.ellipse(-0.14, 0.1, 0.075, 0.13, on(colours.patch), pair=True)


DRAWINGS = {
    animal.__name__: animal
    for animal in (ratt, ox, tiger, rabbit, dragon, snake, horse, goat, monkey, rooster, dog, pig)
}
