"""Long images whose object lies at one end: test accuracy with resize=crop, stretch and pad.

    python bench/pad.py

Trains ResNet18 on the square images of signs/, then a head on its frozen features for two other data sets: scenes of
4:1, and scenes of 4:1, 1:1 and 1:4 in equal numbers. The animal is at one end, left or right, above or below.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "signs")]

import animals
import draw
import parts
import scenery
from pen import Palette
from PIL import Image

from system import processor

SIDE, LONG = 96, 4
COUNTS = {"train": 80, "valid": 20, "test": 50}
CLASSES = ("snake", "horse", "rooster", "pig", "rabbit", "monkey")
SHAPES = {"4:1": ((LONG, 1),), "4:1, 1:1, 1:4": ((LONG, 1), (1, 1), (1, LONG))}
BACKBONE = "network=resnet18 epochs=10 run_name=backbone device=cpu".split()
# Padded, an animal is as large as those that the backbone was trained on.
HEAD = (
    "network=resnet18 image_shape=[3,192,192] pretrained=output/backbone freeze=true overwrite=true device=cpu".split()
)


def scene(class_name: str, shape: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Draws an animal at one end of a scene of `shape` squares."""
    palette, side = Palette.random(rng), SIDE * draw.OVERSAMPLING
    width, height = side * shape[0], side * shape[1]
    image = scenery.background(width, height, palette, rng)
    left, top = (int(rng.integers(2)) * (length - side) for length in (width, height))
    square = image.crop((left, top, left + side, top + side))
    animals.DRAWINGS[class_name](draw._pen(square, palette, rng), rng, parts.Mood.random(rng))
    image.paste(square, (left, top))
    scenery.occlude(image, rng)
    return scenery.photograph(image.reduce(draw.OVERSAMPLING), rng)


def write_scenes(folder: Path, shapes: tuple[tuple[int, int], ...]) -> None:
    """Draws the images of every split and class, of each shape in turn."""
    for split, count in COUNTS.items():
        for label, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                rng = np.random.default_rng((draw.SPLITS.index(split), label, number))
                image = scene(name, shapes[number % len(shapes)], rng)
                image.save(folder / split / name / f"{number:03}.png")


def run(place: Path, script: str, *arguments: str) -> str:
    """Runs a command of the project and returns what it printed.

    Raises:
        SystemExit: It failed; its last lines are printed.
    """
    line = [sys.executable, str(ROOT / script), *arguments]
    ended = subprocess.run(line, cwd=place, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{script}: {ended.stdout[-500:]}{ended.stderr[-1500:]}")
    return ended.stdout


def main() -> None:
    """Prints the table."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    versions = f"paddle {version('paddlepaddle')}, Pillow {version('pillow')}"
    print(f"{processor.name()}, {len(os.sched_getaffinity(0))} cores; {versions}")
    print(f"{len(CLASSES)} classes, images of each: {COUNTS}; {' '.join(HEAD)}")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        signs = [f"data_dir={ROOT / 'signs'}", f"lists_dir={place}"]
        run(place, "annotate.py", *signs)
        run(place, "train.py", *signs, *BACKBONE)
        print("| shapes | resize | test accuracy |\n| --- | --- | --- |", flush=True)
        for number, (shapes, sizes) in enumerate(SHAPES.items()):
            data = f"data_dir=data{number}"
            write_scenes(place / f"data{number}", sizes)
            run(place, "annotate.py", data, "duplicates=none")
            for resize in ("crop", "stretch", "pad"):
                run(place, "train.py", data, *HEAD, "run_name=head", f"resize={resize}")
                found = run(place, "evaluate.py", "output/head", "device=cpu").split("test accuracy ")[1]
                print(f"| {shapes} | {resize} | {found.split(')')[0]}) |", flush=True)


if __name__ == "__main__":
    main()
