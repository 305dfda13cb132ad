"""Draws the included data set: images of the twelve animals of the Chinese zodiac.

    python signs/draw.py --out DIR --train 400 --valid 100 --test 100 --size 500x375

Every image has its own random generator, seeded by (seed, split, class, number): the same command draws the same
images, and larger counts leave the earlier images unchanged.
"""

import argparse
import io
import math
import sys
import time
from pathlib import Path

import animals
import numpy as np
import parts
import scenery
from numpy.random import Generator
from pen import Palette, Pen
from PIL import Image

HERE = Path(__file__).resolve().parent
DEFAULT_COUNTS = {"train": 40, "valid": 10, "test": 10}  # images per class
SPLITS = tuple(DEFAULT_COUNTS)
CLASS_NAMES = tuple(animals.DRAWINGS)
OVERSAMPLING = 2
TILT = 10.0  # largest tilt, in degrees either way
SIZES = (0.74, 0.92)  # size of the animal as a share of the smaller side
STRETCH = 0.1  # largest change of width against height
BEND = 0.035  # how far shapes are bent, in half the animal's size
TAPER = 0.12  # how much wider or narrower the bottom is than the middle
LINES = (0.0, 0.022, 0.04, 0.058)  # outline widths in half the animal's size; 0 is a faint edge
SKETCHY_CHANCE = 0.25
QUALITY = (72, 92)  # of the JPEG file
MARK = b"drawn by draw.py"  # JPEG comment that marks images drawn by this script


def _placing(width: int, height: int, rng: Generator) -> np.ndarray:
    """Returns float64 [2, 3]: flip, stretch, tilt, scale and move the square -1..1 into the image."""
    share = rng.uniform(*SIZES)
    scale, angle = share * min(width, height) / 2, math.radians(rng.uniform(-TILT, TILT))
    flip, stretch = rng.choice((-1, 1)), 1 + rng.uniform(-STRETCH, STRETCH)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = turn @ np.diag([flip * scale * math.sqrt(stretch), scale / math.sqrt(stretch)])
    room = (np.array([width, height]) - share * min(width, height)) / 2
    centre = np.array([width, height]) / 2 + room * rng.uniform(-0.9, 0.9, 2)
    return np.column_stack([matrix, centre])


def _pen(image: Image.Image, palette: Palette, rng: Generator) -> Pen:
    """Returns a pen with the place, the bend and the line style of one image."""
    waves, phases = rng.uniform(1.5, 3.5, 2), rng.uniform(0, 2 * math.pi, 2)
    bend = BEND * rng.uniform(0.3, 1), waves, phases, rng.uniform(-TAPER, TAPER)
    line, sketchy = LINES[rng.integers(len(LINES))], rng.random() < SKETCHY_CHANCE
    return Pen(image, palette, _placing(*image.size, rng), bend, line, sketchy and line > 0, rng)


def draw_image(class_name: str, width: int, height: int, rng: Generator) -> Image.Image:
    """Draws one animal.

    Args:
        class_name: One of `CLASS_NAMES`.
        width: Width in pixels.
        height: Height in pixels.
        rng: Source of all randomness.

    Returns:
        RGB image.

    Raises:
        KeyError: There is no such animal.
    """
    palette = Palette.random(rng)
    image = scenery.background(width * OVERSAMPLING, height * OVERSAMPLING, palette, rng)
    animals.DRAWINGS[class_name](_pen(image, palette, rng), rng, parts.Mood.random(rng))
    scenery.occlude(image, rng)
    return scenery.photograph(image.reduce(OVERSAMPLING), rng)


def jpeg_bytes(class_name: str, split: str, number: int, size: tuple[int, int], seed: int) -> bytes:
    """Returns one image as a JPEG file; `number` counts from 1 in its class and split, `size` is (width, height)."""
    key = (seed, SPLITS.index(split), CLASS_NAMES.index(class_name), number)
    rng = np.random.default_rng(np.random.SeedSequence(key))
    image, file = draw_image(class_name, *size, rng), io.BytesIO()
    image.save(file, "JPEG", quality=int(rng.integers(*QUALITY)), comment=MARK)
    return file.getvalue()


def write_images(folder: Path, counts: dict, class_names: list[str], size: tuple[int, int], seed: int) -> None:
    """Writes the images of all splits and labels.txt; `counts` maps a split to its images per class."""
    for split, count in counts.items():
        for class_name in class_names:
            for number in range(1, count + 1):
                path = folder / split / class_name / f"{number:08d}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(jpeg_bytes(class_name, split, number, size, seed))
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in class_names), encoding="utf-8")


def write_sheet(path: Path, class_names: list[str], size: tuple[int, int], seed: int, columns: int = 8) -> None:
    """Writes a contact sheet: the first train images of each class, one row per class."""
    sheet = Image.new("RGB", (size[0] * columns, size[1] * len(class_names)))
    for row, class_name in enumerate(class_names):
        for column in range(columns):
            image = Image.open(io.BytesIO(jpeg_bytes(class_name, "train", column + 1, size, seed)))
            sheet.paste(image, (column * size[0], row * size[1]))
    sheet.save(path)


def _is_drawn(path: Path) -> bool:
    with path.open("rb") as file:
        return MARK in file.read(256)


def check_free(folder: Path, counts: dict, class_names: list[str], force: bool) -> None:
    """Exits if files are in the way; `force` allows overwriting drawn images, but never any other."""
    folders = [folder / split / name for split, count in counts.items() if count for name in class_names]
    taken = [path for class_folder in folders for path in sorted(class_folder.glob("*"))]
    if force:
        taken = [path for path in taken if path.is_dir() or not _is_drawn(path)]
    remedy = "choose another --out" + ("" if force else ", or overwrite drawn images with --force")
    if taken:
        more = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
        kind = "not drawn by this program" if force else "in the way of the new images"
        sys.exit(f"{taken[0]}{more}: {kind}; {remedy}")
    labels = folder / "labels.txt"
    if not force and labels.exists() and labels.read_text(encoding="utf-8").split() != list(class_names):
        sys.exit(f"{labels}: lists other classes than are drawn; {remedy}")


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and 16 <= int(part) <= 4096 for part in parts):
        raise argparse.ArgumentTypeError(f"{text} is no size; give one like 96 or 500x375, from 16 to 4096 pixels")
    return int(parts[0]), int(parts[-1])


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is no count; give 0 or more")
    return int(text)


def _png(text: str) -> Path:
    if not text.lower().endswith(".png"):
        raise argparse.ArgumentTypeError(f"{text} is no PNG file; give a name that ends in .png")
    return Path(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="draw.py", description="Draws images of the twelve zodiac animals.")
    parser.add_argument(
        "--out", type=Path, default=HERE, metavar="DIR", help="folder to write to (default: %(default)s)"
    )
    for split, count in DEFAULT_COUNTS.items():
        text = f"{split} images per class (default: {count})"
        parser.add_argument(f"--{split}", type=_count, default=count, metavar="N", help=text)
    text = "pixels: 96, or 500x375 for width x height (default: 96)"
    parser.add_argument("--size", type=_size, default=(96, 96), metavar="SIZE", help=text)
    parser.add_argument("--seed", type=_count, default=0, help="0 (the default) draws the included images")
    text = "only these of " + " ".join(CLASS_NAMES)
    parser.add_argument("--classes", nargs="+", choices=CLASS_NAMES, default=CLASS_NAMES, metavar="NAME", help=text)
    parser.add_argument("--sheet", type=_png, metavar="PNG", help="write only a contact sheet, one row per class")
    parser.add_argument("--force", action="store_true", help="overwrite images that were drawn before")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Runs the command."""
    options, start = _parser().parse_args(arguments), time.perf_counter()
    class_names = [name for name in CLASS_NAMES if name in options.classes]
    counts = {split: getattr(options, split) for split in DEFAULT_COUNTS}
    try:
        if options.sheet:
            write_sheet(options.sheet, class_names, options.size, options.seed)
            done = f"{options.sheet}: contact sheet"
        else:
            check_free(options.out, counts, class_names, options.force)
            write_images(options.out, counts, class_names, options.size, options.seed)
            written = " + ".join(f"{count * len(class_names)} {split}" for split, count in counts.items())
            done = f"{options.out}: {written} images"
    except OSError as error:
        sys.exit(f"{error.filename or options.out}: {error.strerror or error}; choose another place to write to")
    size = "x".join(map(str, options.size))
    print(f"{done}, {len(class_names)} classes, {size} pixels, {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
