"""Copies: images with the same bytes, the same pixels, or nearly the same content.

Files with the same bytes are one *content*. Contents are joined into groups; within a group every content but the first
is the copy of another one, so that n - 1 pairs describe a group of n contents.
"""

from array import array
from collections.abc import Iterator

import numpy as np

from annotation.comparison import MAX_DIFFERENCE, NO_MATCH
from annotation.hash_search import RADIUS, near_pairs
from annotation.store import Store
from annotation.verdicts import MINIATURE
from annotation.worker_pool import Pool
from system.progress import over_batches

MIN_CONTRAST = 5  # below it an image is one flat colour, and its hash is noise
BATCH = 32


class Forest:
    """Disjoint sets of contents (union-find), and the pairs that joined them."""

    def __init__(self, size: int):
        self.parents = array("q", range(size))
        self.pairs: list[tuple[int, int, str, float]] = []

    def root(self, item: int) -> int:
        """Lowest number of the item's group."""
        parents = self.parents
        while parents[item] != item:
            parents[item] = parents[parents[item]]
            item = parents[item]
        return item

    def join(self, first: int, second: int, kind: str, difference: float) -> None:
        """Joins two groups by a pair; does nothing if both items are in one group."""
        low, high = sorted((self.root(first), self.root(second)))
        if low != high:
            self.parents[high] = low
            self.pairs.append((first, second, kind, difference))

    def links(self) -> Iterator[tuple[int, int, int, str, float]]:
        """Yields (content, root of its group, content it is a copy of, kind, difference) for all but the roots."""
        neighbours: dict[int, list[tuple[int, str, float]]] = {}
        for first, second, kind, difference in self.pairs:
            neighbours.setdefault(first, []).append((second, kind, difference))
            neighbours.setdefault(second, []).append((first, kind, difference))
        for root in sorted(item for item in neighbours if self.root(item) == item):
            waiting, known = [root], {root}
            while waiting:
                origin = waiting.pop()
                for content, kind, difference in neighbours[origin]:
                    if content not in known:
                        known.add(content)
                        waiting.append(content)
                        yield content, root, origin, kind, difference


def find_copies(store: Store, pool: Pool, duplicates: str) -> None:
    """Groups the kept images that are copies of each other and writes the groups into the store.

    Args:
        duplicates: "none", "exact" (same bytes or pixels) or "near" (near-copies as well).
    """
    store.sql("""UPDATE image SET copy_group = NULL, copy_of = NULL, kind = NULL, difference = NULL
        WHERE copy_group IS NOT NULL""")
    if duplicates == "none":
        return
    _list_contents(store)
    forest = Forest(store.sql("SELECT count(*) FROM content").fetchone()[0])
    mixed = store.sql("SELECT min(jpeg) < max(jpeg) FROM content").fetchone()[0]
    candidates = _candidates(store) if duplicates == "near" or mixed else np.empty((0, 3), np.int64)
    _list_suspects(store, candidates if mixed else candidates[:0])
    _join_same_pixels(store, pool, forest)
    if duplicates == "near":
        _join_near_copies(store, pool, forest, candidates)
    _write_groups(store, forest)


def _list_contents(store: Store) -> None:
    """Numbers the contents from 0 in the order of their first path, the same on every machine."""
    store.sql("DROP TABLE IF EXISTS temp.content")
    store.sql(
        """CREATE TEMP TABLE content(number INTEGER PRIMARY KEY, digest BLOB UNIQUE, image INTEGER, path BLOB,
        phash INTEGER, contrast INTEGER, miniature BLOB, pixel_digest BLOB, jpeg INTEGER, shape TEXT, images INTEGER)"""
    )
    # SQLite takes the columns beside min() from the row with the minimum.
    store.sql(
        """INSERT INTO content SELECT row_number() OVER (ORDER BY path) - 1, digest, id, path, phash, contrast,
        miniature, pixel_digest, jpeg, shape, images FROM
        (SELECT digest, id, min(path) AS path, phash, contrast, miniature, pixel_digest, format = 'JPEG' AS jpeg,
        min(width, height) || 'x' || max(width, height) AS shape, count(*) AS images
        FROM image WHERE outcome = '' GROUP BY digest) ORDER BY path"""
    )


def _list_suspects(store: Store, candidates: np.ndarray) -> None:
    """Lists contents that may have the same pixels as another: those with the same hash and miniature.

    JPEGs are hashed from fewer pixels than other formats (images.open_image), so that the hashes of the same image
    in two formats may differ in a few bits; a JPEG and another format of its size need only be candidates.
    """
    for name in ("near", "suspect"):
        store.sql(f"DROP TABLE IF EXISTS temp.{name}")
    store.sql("CREATE TEMP TABLE near(one INTEGER, two INTEGER)")
    store.connection.executemany("INSERT INTO near VALUES(?, ?)", candidates[:, :2].tolist())
    store.sql(
        """CREATE TEMP TABLE suspect AS WITH crossing AS (SELECT one, two FROM near JOIN content a ON a.number = one
        JOIN content b ON b.number = two WHERE a.jpeg <> b.jpeg AND a.shape = b.shape)
        SELECT number, path, pixel_digest FROM content WHERE number IN (
        SELECT one FROM crossing UNION SELECT two FROM crossing UNION SELECT number FROM content
        JOIN (SELECT phash, miniature FROM content GROUP BY phash, miniature HAVING count(*) > 1)
        USING (phash, miniature)
        UNION SELECT number FROM content WHERE contrast <= ? AND shape IN (SELECT shape FROM content
        WHERE contrast <= ? GROUP BY shape HAVING min(jpeg) < max(jpeg)))""",
        (MIN_CONTRAST, MIN_CONTRAST),
    )
    store.sql("CREATE INDEX temp.suspect_path ON suspect(path)")


def _join_same_pixels(store: Store, pool: Pool, forest: Forest) -> None:
    """Joins contents with the same pixels: only those of `_list_suspects` are decoded for it."""
    undecoded = [path for (path,) in store.sql("SELECT path FROM suspect WHERE pixel_digest IS NULL ORDER BY number")]
    for batch, digests in pool.run("pixel_digests", _batches(undecoded), lambda ending: b""):
        rows = list(zip(digests, batch, strict=True))
        store.connection.executemany("UPDATE suspect SET pixel_digest = ? WHERE path = ?", rows)
        store.connection.executemany("UPDATE image SET pixel_digest = ? WHERE path = ?", rows)
    equal = store.sql(
        "SELECT number, min(number) OVER (PARTITION BY pixel_digest) FROM suspect WHERE pixel_digest <> x''"
    )
    for number, first in sorted(equal):
        forest.join(first, number, "same_pixels", 0.0)


def _batches(items: list) -> Iterator[list]:
    return (items[i : i + BATCH] for i in range(0, len(items), BATCH))


def _join_near_copies(store: Store, pool: Pool, forest: Forest, candidates: np.ndarray) -> None:
    """Joins candidates whose images match when overlaid, the nearest hashes first."""
    for distance in range(RADIUS + 1):
        here = candidates[candidates[:, 2] == distance]
        pairs = [(one, two) for one, two, _ in here.tolist() if forest.root(one) != forest.root(two)]
        for (one, two), difference in zip(pairs, _differences(store, pool, pairs), strict=True):
            if difference <= MAX_DIFFERENCE:
                forest.join(one, two, "near_copy", difference)


def _candidates(store: Store) -> np.ndarray:
    """Pairs of contents to be overlaid, int64 [M, 3] (earlier, later, differing bits), sorted."""
    numbers, hashes, pixels = array("q"), array("q"), bytearray()
    for number, phash, miniature in store.sql(
        "SELECT number, phash, miniature FROM content WHERE contrast >= ? ORDER BY number", (MIN_CONTRAST,)
    ):
        numbers.append(number)
        hashes.append(phash)
        pixels += miniature
    miniatures = np.frombuffer(pixels, np.uint8).reshape(len(numbers), MINIATURE * MINIATURE * 3)
    pairs = near_pairs(np.frombuffer(hashes, np.uint64), miniatures)
    pairs[:, :2] = np.frombuffer(numbers, np.int64)[pairs[:, :2]]
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0], pairs[:, 2]))]


def _differences(store: Store, pool: Pool, pairs: list[tuple[int, int]]) -> list[float]:
    """Overlay differences of the pairs; stored by the digests of both files, and computed once."""
    lookup = """SELECT a.digest, b.digest, a.path, b.path, difference FROM content a, content b
        LEFT JOIN compared ON first = a.digest AND second = b.digest WHERE a.number = ? AND b.number = ?"""
    rows = [store.sql(lookup, pair).fetchone() for pair in pairs]
    unknown = {row[2:4]: row[:2] for row in rows if row[4] is None}
    known = {row[2:4]: row[4] for row in rows if row[4] is not None}
    batches = over_batches(list(_batches(list(unknown))), "pairs")
    for batch, results in pool.run("differences", batches, lambda ending: NO_MATCH):
        for paths, difference in zip(batch, results, strict=True):
            known[paths] = difference
            store.sql("INSERT OR REPLACE INTO compared VALUES(?, ?, ?)", (*unknown[paths], difference))
    return [known[row[2:4]] for row in rows]


def _write_groups(store: Store, forest: Forest) -> None:
    store.sql("DROP TABLE IF EXISTS temp.link")
    store.sql(
        "CREATE TEMP TABLE link(number INTEGER PRIMARY KEY, root INTEGER, origin INTEGER, kind TEXT, difference REAL)"
    )
    store.connection.executemany("INSERT INTO link VALUES(?, ?, ?, ?, ?)", forest.links())
    store.sql("INSERT OR IGNORE INTO link SELECT DISTINCT root, root, root, '', 0 FROM link")
    store.sql("INSERT OR IGNORE INTO link SELECT number, number, number, '', 0 FROM content WHERE images > 1")
    # The first image of a content is a copy of another content's first image; images with its bytes are copies of it.
    store.sql(
        """UPDATE image SET copy_group = link.root,
        copy_of = CASE WHEN id <> mine.image THEN mine.image WHEN link.kind <> '' THEN theirs.image END,
        kind = CASE WHEN id <> mine.image THEN 'same_bytes' WHEN link.kind <> '' THEN link.kind END,
        difference = CASE WHEN id <> mine.image THEN 0 WHEN link.kind <> '' THEN link.difference END
        FROM content AS mine JOIN link ON link.number = mine.number
        JOIN content AS theirs ON theirs.number = link.origin
        WHERE image.outcome = '' AND image.digest = mine.digest"""
    )
