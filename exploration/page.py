"""explore.html: the exploration in one file that opens offline."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from annotation.lists import Sample
from evaluation.metrics import RESAMPLES
from evaluation.thumbnails import Thumbnails, embed
from exploration.explorer import Exploration
from system.language import counted, translate
from system.machine import cores
from system.pages import templates

# How many are shown: suspects, similar pairs, images unlike any other, of the pool, and thumbnails of the map.
SUSPECTS, PAIRS, UNLIKE, FIRST, THUMBNAILS = 18, 12, 12, 18, 600
# Suspects that are ringed on the map, the surest.
RINGED = 100
# Side of the map's thumbnails, in pixels, and points that it draws at most.
SIDE, POINTS = 96, 20_000


def render(found: Exploration, folder: Path, command: str) -> str:
    """Renders the page.

    Args:
        folder: Holds learning_curve.png.
        command: The command line to show.

    Returns:
        HTML with every image, style and script inside.
    """
    thumbnails = Thumbnails(found.transform, found.settings.max_pixels)
    return templates.render(
        Path(__file__).parent / "explore.html",
        found=found,
        content=found.content(),
        created=datetime.now().strftime("%Y-%m-%d %H:%M"),
        advice=advice(found.curve),
        curve=embed((folder / "learning_curve.png").read_bytes()),
        suspects=[_suspect(one, found, thumbnails) for one in found.suspects[:SUSPECTS]],
        pairs=[_pair(pair, found, thumbnails) for pair in found.neighbours.similar[:PAIRS]],
        unlike=[_tile(row, found, thumbnails) for row, _ in found.neighbours.unlike[:UNLIKE]],
        pool=_pool(found, thumbnails),
        ringed=RINGED,
        map=_map(found),
        resamples=RESAMPLES,
        command=command,
    )


def advice(curve: list[dict[str, float]]) -> str:
    """Says in words whether more images would help."""
    if len(curve) < 2:
        return translate("There are too few images a class to see how the accuracy grows with their number.")
    last = curve[-1]
    before = next(
        (point for point in curve[::-1] if 2 * point["images_per_class"] <= last["images_per_class"]), curve[0]
    )
    gain = 100 * (last["accuracy"] - before["accuracy"])
    words = translate(
        "From {before:,} to {images} a class it changed by {gain:+.1f} points",
        before=before["images_per_class"],
        images=counted(int(last["images_per_class"]), "image"),
        gain=gain,
    )
    if gain >= 1:
        return words + translate(": more labelled images are likely to help.")
    return words + translate(
        ": more images of the same kind are unlikely to help much; correct labels, or try another backbone."
    )


def _tile(row: int, found: Exploration, thumbnails: Thumbnails) -> dict[str, Any]:
    sample = found.images.samples[row]
    return {
        "path": sample.path,
        "split": found.images.splits[row],
        "label": found.images.class_names[sample.label],
        "image": thumbnails.plain(sample),
    }


def _suspect(one: Any, found: Exploration, thumbnails: Thumbnails) -> dict[str, Any]:
    names = found.images.class_names
    return {
        "path": one.sample.path,
        "split": one.split,
        "label": names[one.sample.label],
        "suggested": names[one.suggested],
        "confidence": one.suggested_probability,
        "image": thumbnails.plain(one.sample),
    }


def _pair(pair: tuple[int, int, float], found: Exploration, thumbnails: Thumbnails) -> dict[str, Any]:
    first, second, cosine = pair
    one, two = _tile(first, found, thumbnails), _tile(second, found, thumbnails)
    return {"one": one, "two": two, "cosine": cosine, "differs": one["label"] != two["label"]}


def _pool(found: Exploration, thumbnails: Thumbnails) -> list[dict[str, Any]]:
    if found.pool is None:
        return []
    names, margins = found.images.class_names, found.pool.margins()
    tiles = []
    for index, path in enumerate(found.pool.paths[:FIRST]):
        best = int(found.pool.probabilities[index].argmax())
        image = thumbnails.plain(Sample(path, Path(path), best))
        tiles.append({"path": path, "prediction": names[best], "margin": margins[index], "image": image})
    return tiles


def _map(found: Exploration) -> dict[str, Any]:
    """The map's points: place, class, whether suspect, path; and thumbnails of some of them, all where they are few."""
    images = found.images
    suspects = {suspect.sample.path for suspect in found.suspects[:RINGED]}
    count, draw = len(images.samples), np.random.default_rng(found.settings.seed)
    shown = np.sort(draw.permutation(count)[:POINTS])
    marked = [row for row in shown.tolist() if images.samples[row].path in suspects]
    pictured = {*marked[:THUMBNAILS], *draw.permutation(shown)[: max(0, THUMBNAILS - len(marked))].tolist()}
    small = dict(zip(sorted(pictured), _small(found, sorted(pictured)), strict=True))
    return {
        "classes": images.class_names,
        "left": count - len(shown),
        "points": [
            [
                *(round(float(place), 4) for place in found.places[row]),
                int(images.labels[row]),
                int(images.samples[row].path in suspects),
                f"{images.splits[row]}: {images.samples[row].path}",
                small.get(row, ""),
            ]
            for row in shown.tolist()
        ],
    }


def _small(found: Exploration, rows: Iterable[int]) -> list[str]:
    thumbnails = Thumbnails(found.transform, found.settings.max_pixels, SIDE)
    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(lambda row: thumbnails.plain(found.images.samples[row]), rows))
