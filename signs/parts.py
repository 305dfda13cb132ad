"""Parts that several animals share: eyes, ears, whiskers, shoulders, mouth."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from pen import BLACK, WHITE, Pen, mix

TURN = 0.1  # largest sideways shift of the face of a turned head


@dataclass
class Mood:
    """Random traits of every animal: direction of the head, size of the face, eyes and mouth."""

    turn: float
    nod: float
    face: float
    eye: int
    eye_size: float
    mouth: float  # 0 closed .. 1 open

    @classmethod
    def random(cls, rng: Generator) -> "Mood":
        """Draws a mood."""
        mouth = rng.uniform(0.4, 1) if rng.random() < 0.5 else 0.0
        turn, nod, face = rng.uniform(-TURN, TURN), rng.uniform(-0.04, 0.04), rng.uniform(0.93, 1.07)
        return cls(turn, nod, face, int(rng.integers(4)), rng.uniform(0.85, 1.25), mouth)

    def face_of(self, pen: Pen, share: float = 1.0) -> Pen:
        """Returns the pen for the face of a head that looks at the viewer."""
        return pen.moved(self.turn * share, self.nod, self.face)


def eye(pen: Pen, x: float, y: float, size: float, mood: Mood, pair: bool = False) -> None:
    """Draws an eye: black with a highlight, white or coloured with a pupil, or half closed."""
    size = size * mood.eye_size
    if mood.eye == 0:
        pen.ellipse(x, y, size, size * 1.1, WHITE, pair=pair)
        pen.ellipse(x, y, size * 0.75, size * 0.85, BLACK, pair=pair, edge=False)
        pen.ellipse(x - size * 0.25, y - size * 0.3, size * 0.25, size * 0.25, WHITE, pair=pair, edge=False)
        return
    iris = WHITE if mood.eye == 1 else mix(WHITE, pen.palette.accent, 0.4)
    pen.ellipse(x, y, size * 1.15, size * 1.1, iris, pair=pair)
    pen.ellipse(x, y + size * 0.1, size * 0.5, size * 0.65, BLACK, pair=pair, edge=False)
    if mood.eye == 3:
        lid = np.array([(-1.2, -0.1), (-0.8, -1), (0, -1.25), (0.8, -1), (1.2, -0.1)]) * size + (x, y)
        pen.shape(lid, pen.palette.base, pair=pair)


def round_ear(pen: Pen, x: float, y: float, size: float, pair: bool = True) -> None:
    """Draws a round ear with its inner side."""
    pen.ellipse(x, y, size, size, pen.palette.base, pair=pair)
    pen.ellipse(x, y, size * 0.58, size * 0.58, pen.palette.patch, pair=pair, edge=False)


def whiskers(pen: Pen, x: float, y: float, length: float, count: int = 3, pair: bool = True) -> None:
    """Draws a fan of whiskers from (x, y) to the side of negative x; a negative length points the other way."""
    for spread in np.linspace(-0.5, 0.5, count):
        tip = (x - length, y + spread * abs(length) * 0.9)
        pen.stroke([(x, y + spread * 0.12), ((x + tip[0]) / 2, (y + tip[1]) / 2 - 0.03), tip], pair=pair)


def shoulders(pen: Pen, width: float, top: float) -> None:
    """Draws the breast below a head that looks at the viewer."""
    half = [(-width * 0.6, top + 0.1), (0, top), (width * 0.6, top + 0.1), (width, 1.0)]
    pen.blob([*half, (width * 0.7, 1.12), (0, 1.15), (-width * 0.7, 1.12), (-width, 1.0)], pen.palette.base)


def symmetric(half: list[tuple]) -> list[tuple]:
    """Returns a closed outline from its right half, given from top to bottom."""
    return [*half, *((-x, y) for x, y in half[-2:0:-1])]


def smile(pen: Pen, y: float, width: float, depth: float, mood: Mood, tongue: bool = True) -> None:
    """Draws a mouth below a nose: a closed curve, or an open one with a tongue."""
    if mood.mouth and tongue:
        top, low = y + depth * 0.6, y + depth + 0.22 * mood.mouth
        opening = [(-width * 0.7, top), (0, top - 0.01), (width * 0.7, top), (width * 0.35, low), (-width * 0.35, low)]
        pen.blob(opening, mix(BLACK, pen.palette.accent, 0.15))
        pen.ellipse(0, low - 0.04, width * 0.32, 0.07 * mood.mouth, pen.palette.accent, edge=False)
    pen.stroke([(-width, y), (-width / 2, y + depth), (0, y + depth * 0.7), (width / 2, y + depth), (width, y)])
