"""annotate.html: report on the data set, one file that needs no network."""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from annotation import outputs
from annotation.layout import Layout
from annotation.lists import SPLITS
from annotation.splits import Summary, random_key
from annotation.store import Store
from annotation.summary import advice
from annotation.worker_pool import Pool
from system.language import translate
from system.pages import templates
from system.settings import Settings

SIDE = 112  # px, longer side of a thumbnail
SAMPLES = 600  # thumbnails of samples on the page, divided among the classes
SAMPLES_PER_CLASS = 6
FILES_PER_REASON = 12
PAIRS = 60
BATCH = 16
# Reasons without thumbnails: there is nothing to see, or opening the file again may hang or crash again.
UNSHOWN = frozenset(
    "empty lfs_pointer missing not_found outside several_files no_path bad_row "
    "no_permission not_a_file not_a_picture too_large too_much_memory unreadable "
    "unsupported_format decoder_crash decoder_timeout".split()
)
SHORT_SIDES = (32, 64, 128, 224, 384, 512, 768, 1024, 2048)
RATIOS = ((1.05, "square"), (1.29, "5:4"), (1.42, "4:3"), (1.64, "3:2"), (1.85, "16:9"), (2.5, "2:1"))


@dataclass
class Tile:
    """An image on the page.

    Attributes:
        path: As in the store.
        name: The path as shown.
        caption: A line of text.
        source: Thumbnail as a data URI; "" for none.
    """

    path: bytes
    name: str
    caption: str = ""
    source: str = ""


def render(store: Store, pool: Pool, layout: Layout, settings: Settings, summary: Summary) -> str:
    """Renders the page.

    Returns:
        HTML with embedded thumbnails.
    """
    samples = _samples(store, layout, settings.seed)
    left_out = {code: _left_out(store, code) for code in sorted(summary.left_out)}
    pairs = [(pair, _tile(pair.path), _tile(pair.copy_of)) for pair in outputs.copy_pairs(store, PAIRS, True)]
    shown = [row for code, row in left_out.items() if code not in UNSHOWN]
    tiles = [tile for row in (*samples.values(), *shown) for tile in row]
    _add_thumbnails(pool, [*tiles, *(tile for _, *both in pairs for tile in both)])
    return templates.render(
        Path(__file__).parent / "page.html",
        created=datetime.now().strftime("%Y-%m-%d %H:%M"),
        layout=layout,
        settings=settings,
        summary=summary,
        splits=SPLITS,
        advice=advice(summary, layout, settings),
        most=max([sum(summary.kept[s].get(n, 0) for s in SPLITS) for n in layout.class_names] or [0]) or 1,
        samples=samples,
        left_out=left_out,
        pairs=pairs,
        copies=sum(summary.copies.values()),
        short_sides=_short_sides(store),
        ratios=_ratios(store),
        formats=store.sql(
            "SELECT format, count(*) FROM image WHERE outcome = '' GROUP BY 1 ORDER BY 2 DESC"
        ).fetchall(),
    )


def _tile(path: bytes, caption: str = "") -> Tile:
    return Tile(path, outputs.escape(path), caption)


def _samples(store: Store, layout: Layout, seed: int) -> dict[str, list[Tile]]:
    """A few random training images of each class."""
    each = max(1, min(SAMPLES_PER_CLASS, SAMPLES // len(layout.class_names)))
    store.add_function("random_key", lambda path: random_key(seed, path))
    query = """SELECT path FROM image WHERE outcome = '' AND split = 'train' AND class = ?
        ORDER BY random_key(path) LIMIT ?"""
    class_names = layout.class_names[:SAMPLES]
    return {name: [_tile(path) for (path,) in store.sql(query, (name, each))] for name in class_names}


def _left_out(store: Store, code: str) -> list[Tile]:
    rows = store.sql(
        """SELECT path, outcome, detail, remarks, mode, width, height FROM image WHERE outcome = ?
        ORDER BY path LIMIT ?""",
        (code, FILES_PER_REASON),
    )
    return [_tile(row[0], outputs.explain(*row[1:])) for row in rows.fetchall()]


def _add_thumbnails(pool: Pool, tiles: list[Tile]) -> None:
    """Sets the thumbnails of the tiles; each image is decoded once."""
    paths = list(dict.fromkeys(tile.path for tile in tiles))
    batches = (paths[i : i + BATCH] for i in range(0, len(paths), BATCH))
    sources: dict[bytes, str] = {}
    for batch, images in pool.run("thumbnails", batches, lambda ending: b"", side=SIDE):
        for path, image in zip(batch, images, strict=True):
            sources[path] = "data:image/jpeg;base64," + base64.b64encode(image).decode() if image else ""
    for tile in tiles:
        tile.source = sources[tile.path]


def _histogram(store: Store, value: str, bounds: Iterable[float], names: list[str]) -> list[tuple[str, int]]:
    cases = " ".join(f"WHEN {value} < {bound} THEN {place}" for place, bound in enumerate(bounds))
    rows = dict(
        store.sql(f"SELECT CASE {cases} ELSE {len(names) - 1} END, count(*) FROM image WHERE outcome = '' GROUP BY 1")
    )
    return [(name, rows.get(place, 0)) for place, name in enumerate(names)]


def _short_sides(store: Store) -> list[tuple[str, int]]:
    names = [translate("under {side} px", side=SHORT_SIDES[0])]
    names += [translate("{low} to {high} px", low=low, high=high - 1) for low, high in pairwise(SHORT_SIDES)]
    names.append(translate("{side} px and more", side=SHORT_SIDES[-1]))
    return _histogram(store, "min(width, height)", SHORT_SIDES, names)


def _ratios(store: Store) -> list[tuple[str, int]]:
    names = [translate("about {ratio}", ratio=name) if ":" in name else translate(name) for _, name in RATIOS]
    value = "1.0 * max(width, height) / min(width, height)"
    return _histogram(store, value, [bound for bound, _ in RATIOS], [*names, translate("longer")])
