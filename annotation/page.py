"""Makes annotate.html: the data set in one page that opens without a network."""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from annotation import outputs
from annotation.lists import SPLITS
from annotation.splits import LEAST_TO_SPLIT, Summary, draw
from annotation.store import Store, sql_function
from annotation.summary import advice
from annotation.walk import Layout
from annotation.worker_pool import Pool
from system.settings import Settings

if TYPE_CHECKING:
    import jinja2

SIDE = 112  # px of a thumbnail's longer side
SAMPLES = 600  # thumbnails of samples on the page, shared out over the classes
SAMPLES_A_CLASS = 6
FILES_A_REASON = 12
PAIRS = 60
BATCH = 16
# Of these there is nothing to see, and opening them anew may hang or crash as it did before.
UNSHOWN = frozenset(
    "empty lfs_pointer missing no_permission not_a_file not_a_picture too_large too_much_memory unreadable "
    "unsupported_format decoder_crash decoder_timeout".split()
)
SHORT_SIDES = (32, 64, 128, 224, 384, 512, 768, 1024, 2048)
RATIOS = ((1.05, "square"), (1.29, "5:4"), (1.42, "4:3"), (1.64, "3:2"), (1.85, "16:9"), (2.5, "2:1"))


@dataclass
class Tile:
    """An image of the page: where it is, a line about it, and its thumbnail as a data URI ("" for none)."""

    path: bytes
    name: str
    said: str = ""
    source: str = ""


@cache
def _template() -> "jinja2.Template":
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = lambda value: f"{value:,}"
    return environment.get_template("page.html")


def render(store: Store, pool: Pool, layout: Layout, settings: Settings, summary: Summary) -> str:
    """Draws the page.

    Returns:
        HTML with every thumbnail inside.
    """
    samples = _samples(store, layout, settings.seed)
    left_out = {code: _left_out(store, code) for code in sorted(summary.left_out)}
    pairs = [(pair, _tile(pair["path"]), _tile(pair["copy_of"])) for pair in outputs.copies(store, PAIRS, True)]
    shown = [row for code, row in left_out.items() if code not in UNSHOWN]
    tiles = [tile for row in (*samples.values(), *shown) for tile in row]
    _draw(pool, tiles + [tile for pair in pairs for tile in pair[1:]])
    return _template().render(
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
        least_to_split=LEAST_TO_SPLIT,
    )


def _tile(path: bytes, said: str = "") -> Tile:
    return Tile(path, outputs.escape(path), said)


def _samples(store: Store, layout: Layout, seed: int) -> dict[str, list[Tile]]:
    """A few training images of each class, by lot."""
    each = max(1, min(SAMPLES_A_CLASS, SAMPLES // len(layout.class_names)))
    sql_function(store, "lot", 1, lambda path: draw(seed, path))
    query = """SELECT path FROM image WHERE outcome = '' AND split = 'train' AND class = ? ORDER BY lot(path) LIMIT ?"""
    found = layout.class_names[:SAMPLES]
    return {name: [_tile(path) for (path,) in store.sql(query, (name, each))] for name in found}


def _left_out(store: Store, code: str) -> list[Tile]:
    rows = store.sql(
        """SELECT path, outcome, detail, remarks, mode, width, height FROM image WHERE outcome = ?
        ORDER BY path LIMIT ?""",
        (code, FILES_A_REASON),
    )
    return [_tile(row[0], outputs.explain(*row[1:])) for row in rows.fetchall()]


def _draw(pool: Pool, tiles: Iterable[Tile]) -> None:
    """Gives the tiles their thumbnails; each image is decoded once."""
    paths = list(dict.fromkeys(tile.path for tile in tiles))
    batches = (paths[i : i + BATCH] for i in range(0, len(paths), BATCH))
    drawn: dict[bytes, str] = {}
    for batch, images in pool.run("thumbnails", batches, lambda how: b"", side=SIDE):
        for path, image in zip(batch, images, strict=True):
            drawn[path] = "data:image/jpeg;base64," + base64.b64encode(image).decode() if image else ""
    for tile in tiles:
        tile.source = drawn[tile.path]


def _histogram(store: Store, value: str, bounds: Iterable[float], names: list[str]) -> list[tuple[str, int]]:
    cases = " ".join(f"WHEN {value} < {bound} THEN {place}" for place, bound in enumerate(bounds))
    rows = dict(
        store.sql(f"SELECT CASE {cases} ELSE {len(names) - 1} END, count(*) FROM image WHERE outcome = '' GROUP BY 1")
    )
    return [(name, rows.get(place, 0)) for place, name in enumerate(names)]


def _short_sides(store: Store) -> list[tuple[str, int]]:
    names = [f"under {SHORT_SIDES[0]} px"]
    names += [f"{low} to {high - 1} px" for low, high in pairwise(SHORT_SIDES)]
    return _histogram(store, "min(width, height)", SHORT_SIDES, [*names, f"{SHORT_SIDES[-1]} px and more"])


def _ratios(store: Store) -> list[tuple[str, int]]:
    names = [f"about {name}" if ":" in name else name for _, name in RATIOS]
    value = "1.0 * max(width, height) / min(width, height)"
    return _histogram(store, value, [bound for bound, _ in RATIOS], [*names, "longer"])
