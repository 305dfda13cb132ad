"""Search for near hashes: pairs of images whose perceptual hashes differ in few bits."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np

BANDS = 4  # keys of BAND_BITS that a 64-bit hash is cut into
BAND_BITS = 16
FLIPS = 2  # bits of a key that may differ
# Up to BANDS * (FLIPS + 1) - 1 = 11 differing bits, some band has at most FLIPS of them and every pair is found; of
# pairs a little further apart, most are.
RADIUS = 14
NEIGHBOURS = 16  # pairs kept per image, nearest first: a burst of frames costs linear, not quadratic time
CHUNK_PAIRS = 1 << 19  # compared at once
MAX_PAIRS = 1 << 19  # held before all but the nearest are dropped
MINIATURE_DIFFERENCE = 0.1  # 1 - correlation of the miniatures, up to which a pair is a candidate


def near_pairs(hashes: np.ndarray, miniatures: np.ndarray) -> np.ndarray:
    """Finds pairs of images whose hashes differ in few bits, without comparing all of them.

    Multi-index hashing: hashes that differ in few bits have one of BANDS keys that differs in at most FLIPS bits, so
    that the hashes of a key are compared only with those of the keys that up to FLIPS flipped bits turn it into.

    Args:
        hashes: uint64 [N].
        miniatures: uint8 [N, K]; pairs that differ by more than MINIATURE_DIFFERENCE are dropped.

    Returns:
        int64 [M, 3] (earlier, later, distance): indices with earlier < later and the number of differing bits, at
        most RADIUS; every later index has at most NEIGHBOURS rows, the nearest. Of equal hashes only the first is
        compared with others; each of the rest is paired with the one before it.

    Source: M. Norouzi, A. Punjani, D. Fleet, Fast Search in Hamming Space with Multi-Index Hashing, CVPR 2012.
    """
    order = np.argsort(hashes, kind="stable")
    same = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]]) + 1
    found = _similar(np.stack([order[same - 1], order[same], np.zeros(len(same), np.int64)], axis=1), miniatures)
    firsts = np.sort(np.delete(order, same))
    fresh: list[np.ndarray] = []
    most = MAX_PAIRS
    for band in range(BANDS):
        for pairs in _pairs_of_band(hashes[firsts], band):
            pairs[:, :2] = firsts[pairs[:, :2]]
            fresh.append(_similar(pairs, miniatures))
            if sum(map(len, fresh)) > most:
                found, fresh = _nearest(np.concatenate([found, *fresh])), []
                most = max(MAX_PAIRS, len(found))
    return _nearest(np.concatenate([found, *fresh]))


def _similar(pairs: np.ndarray, miniatures: np.ndarray) -> np.ndarray:
    one, two = (_standardised(miniatures[pairs[:, column]]) for column in (0, 1))
    return pairs[1 - (one * two).sum(axis=1) <= MINIATURE_DIFFERENCE]


def _standardised(miniatures: np.ndarray) -> np.ndarray:
    miniatures = miniatures.astype(np.float32)
    miniatures -= miniatures.mean(axis=1, keepdims=True)
    return miniatures / np.maximum(np.linalg.norm(miniatures, axis=1, keepdims=True), 1e-6)


def _pairs_of_band(hashes: np.ndarray, band: int) -> Iterator[np.ndarray]:
    keys = ((hashes >> np.uint64(BAND_BITS * band)) & np.uint64(2**BAND_BITS - 1)).astype(np.int64)
    order = np.argsort(keys, kind="stable")
    # Sorted by key, the hashes of one key are adjacent in memory, where they are read fastest.
    hashes, keys = hashes[order], keys[order]
    for one, two, distance in _near(hashes, keys):
        pair = np.sort(np.stack([order[one], order[two]], axis=1), axis=1)
        yield np.concatenate([pair, distance[:, None]], axis=1)


def _near(hashes: np.ndarray, keys: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    bounds = np.searchsorted(keys, np.arange(2**BAND_BITS + 1))
    rows, sizes = np.arange(len(keys)), np.diff(bounds)
    # Within a key, each hash with those after it.
    yield from _compare(hashes, rows, rows + 1, bounds[keys + 1] - rows - 1)
    for highest in range(BAND_BITS):
        # Each pair of keys once: from the one without the highest bit in which they differ.
        rows = np.flatnonzero(keys & (1 << highest) == 0)
        for bits in (bits for flips in range(FLIPS) for bits in combinations(range(highest), flips)):
            other = keys[rows] ^ sum(1 << bit for bit in (*bits, highest))
            yield from _compare(hashes, rows, bounds[other], sizes[other])


def _compare(
    hashes: np.ndarray, rows: np.ndarray, begin: np.ndarray, counts: np.ndarray
) -> Iterator[tuple[np.ndarray, ...]]:
    """Compares hash rows[i] with counts[i] hashes from begin[i] on; yields (index, index, distance) of near ones."""
    totals = np.cumsum(counts)
    for limit in range(0, int(totals[-1]) if len(totals) else 0, CHUNK_PAIRS):
        # A chunk may begin and end within the comparisons of one hash, which may be more than a chunk.
        first, last = np.searchsorted(totals, [limit, min(limit + CHUNK_PAIRS, totals[-1]) - 1], side="right")
        here = slice(first, last + 1)
        before = totals[here] - counts[here]
        low = np.maximum(limit - before, 0)
        many = np.minimum(limit + CHUNK_PAIRS - before, counts[here]) - low
        owner = np.repeat(np.arange(len(many)), many)
        one, two = rows[here][owner], (begin[here] + low - (np.cumsum(many) - many))[owner] + np.arange(len(owner))
        distance = np.bitwise_count(hashes[one] ^ hashes[two])
        near = np.flatnonzero(distance <= RADIUS)
        if len(near):
            yield one[near], two[near], distance[near].astype(np.int64)


def _nearest(pairs: np.ndarray) -> np.ndarray:
    pairs = np.unique(pairs, axis=0)
    pairs = pairs[np.lexsort((pairs[:, 0], pairs[:, 2], pairs[:, 1]))]
    first = np.searchsorted(pairs[:, 1], pairs[:, 1])
    return pairs[np.arange(len(pairs)) - first < NEIGHBOURS]
