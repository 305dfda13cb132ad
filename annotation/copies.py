"""Finds images that are copies of each other: same bytes, same pixels, or nearly the same image.

Images with the same bytes are one *content*. Contents are joined into groups; within a group every content but the
first is the copy of another one, so that a group of n contents is told by n - 1 pairs.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator
from itertools import combinations

import numpy as np

from annotation.store import Store
from annotation.verdicts import MARK
from annotation.worker_pool import Pool

BANDS = 4  # a 64-bit hash is cut into so many 16-bit keys
BAND_BITS = 16
FLIPS = 2  # bits of a key that may differ
# Up to BANDS * (FLIPS + 1) - 1 = 11 differing bits some band has FLIPS at most, and every pair is found; of the pairs
# a little further apart, most are.
RADIUS = 14
NEIGHBOURS = 16  # candidates kept an image, nearest first: a burst of frames stays linear, not quadratic
PIECE = 1 << 19  # pairs weighed at once
MOST_FOUND = 1 << 19  # pairs held before all but the nearest are dropped
LEAST_CONTRAST = 5  # below it an image is one flat colour, and its hash is noise
MARK_DIFFERENCE = 0.1  # 1 - correlation of the miniatures above which two images are not laid over each other
NEAR = 0.06  # overlay difference up to which two images are copies
UNLIKE = 9.0  # the difference from an image that cannot be decoded any more
BATCH = 32


def near_pairs(hashes: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """Finds pairs of images whose hashes differ in few bits, without comparing all of them.

    Multi-index hashing: hashes that differ in few bits agree, but for FLIPS bits, in one of BANDS keys, so that those
    under each key need only be compared with those under the keys that FLIPS flipped bits make of it.

    Args:
        hashes: uint64 [N].
        marks: uint8 [N, K], miniatures; pairs less alike than MARK_DIFFERENCE are dropped.

    Returns:
        int64 [M, 3] (earlier, later, distance): indices with earlier < later and the number of differing bits, at
        most RADIUS; every later index has at most NEIGHBOURS rows, the nearest. Of equal hashes only the first is
        compared with others; each of the rest is paired with the one before it.

    Source: M. Norouzi, A. Punjani, D. Fleet, Fast Search in Hamming Space with Multi-Index Hashing, CVPR 2012.
    """
    order = np.argsort(hashes, kind="stable")
    same = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]]) + 1
    found = _alike(np.stack([order[same - 1], order[same], np.zeros(len(same), np.int64)], axis=1), marks)
    firsts = np.sort(np.delete(order, same))
    fresh, most = [], MOST_FOUND
    for band in range(BANDS):
        for pairs in _pairs_of_band(hashes[firsts], band):
            pairs[:, :2] = firsts[pairs[:, :2]]
            fresh.append(_alike(pairs, marks))
            if sum(map(len, fresh)) > most:
                found, fresh = _nearest(np.concatenate([found, *fresh])), []
                most = max(MOST_FOUND, len(found))
    return _nearest(np.concatenate([found, *fresh]))


def _alike(pairs: np.ndarray, marks: np.ndarray) -> np.ndarray:
    one, two = (_standardised(marks[pairs[:, column]]) for column in (0, 1))
    return pairs[1 - (one * two).sum(axis=1) <= MARK_DIFFERENCE]


def _standardised(marks: np.ndarray) -> np.ndarray:
    marks = marks.astype(np.float32)
    marks -= marks.mean(axis=1, keepdims=True)
    return marks / np.maximum(np.linalg.norm(marks, axis=1, keepdims=True), 1e-6)


def _pairs_of_band(hashes: np.ndarray, band: int) -> Iterator[np.ndarray]:
    keys = ((hashes >> np.uint64(BAND_BITS * band)) & np.uint64(2**BAND_BITS - 1)).astype(np.int64)
    order = np.argsort(keys, kind="stable")
    # In the order of their keys those under one key lie side by side, where the processor reads them fastest.
    hashes, keys = hashes[order], keys[order]
    bounds = np.searchsorted(keys, np.arange(2**BAND_BITS + 1))
    masks = (
        sum(1 << bit for bit in bits) for flips in range(FLIPS + 1) for bits in combinations(range(BAND_BITS), flips)
    )
    for mask in masks:
        other = keys ^ mask
        # Each pair of keys once; under one and the same key, those that come later.
        begin = bounds[other] if mask else np.arange(1, len(keys) + 1)
        counts = np.where(keys <= other, bounds[other + 1] - begin, 0)
        for one, two, distance in _compare(hashes, begin, counts):
            pair = np.sort(np.stack([order[one], order[two]], axis=1), axis=1)
            yield np.concatenate([pair, distance[:, None]], axis=1)


def _compare(hashes: np.ndarray, begin: np.ndarray, counts: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Compares each place with the `counts` places from `begin` on; yields (place, place, distance) of near ones."""
    totals = np.cumsum(counts)
    for limit in range(0, int(totals[-1]) if len(totals) else 0, PIECE):
        # Pieces cut through the row of one place, which may be longer than a piece.
        first, last = np.searchsorted(totals, [limit, min(limit + PIECE, totals[-1]) - 1], side="right")
        low = np.maximum(limit - (totals[first : last + 1] - counts[first : last + 1]), 0)
        high = np.minimum(
            limit + PIECE - (totals[first : last + 1] - counts[first : last + 1]), counts[first : last + 1]
        )
        many = high - low
        offset = begin[first : last + 1] + low - (np.cumsum(many) - many)
        two = np.repeat(offset, many) + np.arange(many.sum())
        distance = np.bitwise_count(np.repeat(hashes[first : last + 1], many) ^ hashes[two])
        near = np.flatnonzero(distance <= RADIUS)
        if len(near):
            one = first + np.searchsorted(np.cumsum(many), near, side="right")
            yield one, two[near], distance[near].astype(np.int64)


def _nearest(pairs: np.ndarray) -> np.ndarray:
    pairs = np.unique(pairs, axis=0)
    pairs = pairs[np.lexsort((pairs[:, 0], pairs[:, 2], pairs[:, 1]))]
    first = np.searchsorted(pairs[:, 1], pairs[:, 1])
    return pairs[np.arange(len(pairs)) - first < NEIGHBOURS]


class Forest:
    """Contents joined by pairs; a pair that would join what is joined already is not taken."""

    def __init__(self, size: int):
        self.parents = array("q", range(size))
        self.pairs: list[tuple[int, int, str, float]] = []

    def root(self, item: int) -> int:
        """Finds the lowest number of the item's group."""
        parents = self.parents
        while parents[item] != item:
            parents[item] = parents[parents[item]]
            item = parents[item]
        return item

    def join(self, first: int, second: int, kind: str, difference: float) -> None:
        """Joins two groups by this pair."""
        low, high = sorted((self.root(first), self.root(second)))
        if low != high:
            self.parents[high] = low
            self.pairs.append((first, second, kind, difference))

    def links(self) -> Iterator[tuple[int, int, int, str, float]]:
        """Yields (content, its group's root, the content it is a copy of, kind, difference), roots left out."""
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


def find_copies(store: Store, pool: Pool, how: str, progress: Callable[[list, str], Iterable]) -> None:
    """Groups the kept images that are copies of each other and writes the groups into the store.

    Args:
        how: "none", "exact" (same bytes or pixels) or "near" (near-copies as well).
        progress: Wraps a list of batches that take time, as tqdm does; it is told what is counted.
    """
    store.sql("UPDATE image SET copies = NULL, copy_of = NULL, kind = NULL, difference = NULL WHERE copies IS NOT NULL")
    if how == "none":
        return
    _list_contents(store)
    forest = Forest(store.sql("SELECT count(*) FROM content").fetchone()[0])
    mixed = store.sql("SELECT min(jpeg) < max(jpeg) FROM content").fetchone()[0]
    candidates = _candidates(store) if how == "near" or mixed else np.empty((0, 3), np.int64)
    _list_alike(store, candidates if mixed else candidates[:0])
    _join_same_pixels(store, pool, forest)
    if how == "near":
        _join_near_copies(store, pool, forest, candidates, progress)
    _write_groups(store, forest)


def _list_contents(store: Store) -> None:
    """Numbers the contents from 0 in the order of their first path, the same on every machine."""
    store.sql("DROP TABLE IF EXISTS temp.content")
    store.sql(
        """CREATE TEMP TABLE content(number INTEGER PRIMARY KEY, digest BLOB UNIQUE, image INTEGER, path BLOB,
        phash INTEGER, contrast INTEGER, mark BLOB, pixels BLOB, jpeg INTEGER, shape TEXT, images INTEGER)"""
    )
    # SQLite takes the columns beside min() from the row that holds the minimum.
    store.sql(
        """INSERT INTO content SELECT row_number() OVER (ORDER BY path) - 1, digest, id, path, phash, contrast, mark,
        pixels, jpeg, shape, images FROM (SELECT digest, id, min(path) AS path, phash, contrast, mark, pixels,
        format = 'JPEG' AS jpeg, min(width, height) || 'x' || max(width, height) AS shape, count(*) AS images
        FROM image WHERE outcome = '' GROUP BY digest) ORDER BY path"""
    )


def _list_alike(store: Store, candidates: np.ndarray) -> None:
    """Lists contents that may have the same pixels as another: those with the same hash and miniature.

    JPEGs are hashed from fewer pixels than other formats (images.open_image), so that the hashes of the same image
    in two formats may differ in a few bits; between a JPEG and another format of its size, nearness is enough.
    """
    for name in ("near", "alike"):
        store.sql(f"DROP TABLE IF EXISTS temp.{name}")
    store.sql("CREATE TEMP TABLE near(one INTEGER, two INTEGER)")
    store.connection.executemany("INSERT INTO near VALUES(?, ?)", candidates[:, :2].tolist())
    store.sql(
        """CREATE TEMP TABLE alike AS WITH crossing AS (SELECT one, two FROM near JOIN content a ON a.number = one
        JOIN content b ON b.number = two WHERE a.jpeg <> b.jpeg AND a.shape = b.shape)
        SELECT number, path, pixels FROM content WHERE number IN (
        SELECT one FROM crossing UNION SELECT two FROM crossing UNION SELECT number FROM content
        JOIN (SELECT phash, mark FROM content GROUP BY phash, mark HAVING count(*) > 1) USING (phash, mark)
        UNION SELECT number FROM content WHERE contrast <= ? AND shape IN (SELECT shape FROM content
        WHERE contrast <= ? GROUP BY shape HAVING min(jpeg) < max(jpeg)))""",
        (LEAST_CONTRAST, LEAST_CONTRAST),
    )
    store.sql("CREATE INDEX temp.alike_path ON alike(path)")


def _join_same_pixels(store: Store, pool: Pool, forest: Forest) -> None:
    """Joins contents with the same pixels: only those that `_list_alike` has listed are decoded for it."""
    undone = [path for (path,) in store.sql("SELECT path FROM alike WHERE pixels IS NULL ORDER BY number")]
    for batch, digests in pool.run("pixel_digests", _cut(undone), lambda how: b""):
        rows = list(zip(digests, batch, strict=True))
        store.connection.executemany("UPDATE alike SET pixels = ? WHERE path = ?", rows)
        store.connection.executemany("UPDATE image SET pixels = ? WHERE path = ?", rows)
    rows = store.sql("SELECT number, min(number) OVER (PARTITION BY pixels) FROM alike WHERE pixels <> x''")
    for number, first in sorted(rows):
        forest.join(first, number, "same_pixels", 0.0)


def _cut(items: list) -> Iterator[list]:
    return (items[i : i + BATCH] for i in range(0, len(items), BATCH))


def _join_near_copies(
    store: Store, pool: Pool, forest: Forest, candidates: np.ndarray, progress: Callable[[list, str], Iterable]
) -> None:
    """Joins contents whose images nearly cover each other, the most alike first."""
    for distance in range(RADIUS + 1):
        here = candidates[candidates[:, 2] == distance]
        pairs = [(one, two) for one, two, _ in here.tolist() if forest.root(one) != forest.root(two)]
        for (one, two), difference in zip(pairs, _differences(store, pool, pairs, progress), strict=True):
            if difference <= NEAR:
                forest.join(one, two, "near_copy", difference)


def _candidates(store: Store) -> np.ndarray:
    """Pairs of contents worth laying over each other, int64 [M, 3] (earlier, later, differing bits), sorted."""
    numbers, hashes, marks = array("q"), array("q"), bytearray()
    for number, bits, mark in store.sql(
        "SELECT number, phash, mark FROM content WHERE contrast >= ? ORDER BY number", (LEAST_CONTRAST,)
    ):
        numbers.append(number)
        hashes.append(bits)
        marks += mark
    numbers = np.frombuffer(numbers, np.int64)
    marks = np.frombuffer(marks, np.uint8).reshape(len(numbers), MARK * MARK * 3)
    pairs = near_pairs(np.frombuffer(hashes, np.uint64), marks)
    pairs[:, :2] = numbers[pairs[:, :2]]
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0], pairs[:, 2]))]


def _differences(
    store: Store, pool: Pool, pairs: list[tuple[int, int]], progress: Callable[[list, str], Iterable]
) -> list[float]:
    """Lays the pairs over each other; what was found out once is remembered by the bytes of both files."""
    lookup = """SELECT a.digest, b.digest, a.path, b.path, difference FROM content a, content b
        LEFT JOIN compared ON first = a.digest AND second = b.digest WHERE a.number = ? AND b.number = ?"""
    rows = [store.sql(lookup, pair).fetchone() for pair in pairs]
    unknown = {row[2:4]: row[:2] for row in rows if row[4] is None}
    known = {row[2:4]: row[4] for row in rows if row[4] is not None}
    for batch, results in pool.run("differences", progress(list(_cut(list(unknown))), "pairs"), lambda how: UNLIKE):
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
    # The first image of a content is the copy of another content's first; its twins are copies of it.
    store.sql(
        """UPDATE image SET copies = link.root,
        copy_of = CASE WHEN id <> mine.image THEN mine.image WHEN link.kind <> '' THEN theirs.image END,
        kind = CASE WHEN id <> mine.image THEN 'same_bytes' WHEN link.kind <> '' THEN link.kind END,
        difference = CASE WHEN id <> mine.image THEN 0 WHEN link.kind <> '' THEN link.difference END
        FROM content AS mine JOIN link ON link.number = mine.number
        JOIN content AS theirs ON theirs.number = link.origin
        WHERE image.outcome = '' AND image.digest = mine.digest"""
    )
