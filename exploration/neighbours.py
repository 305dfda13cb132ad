"""Neighbours among features: pairs of images that look alike although their pixels differ, and images like no other."""

from dataclasses import dataclass

import numpy as np

from exploration.images import Images

# Cosine of centred features from which two images are called similar. Of 398 photos mirrored, cropped to 0.9 of their
# sides or turned by 5 degrees, 76 to 99 in 100 are above it, and no two different ones (MobileNetV2).
SIMILAR = 0.75
# An image is like no other if the mean cosine of its NEAREST is so many standard deviations below the median.
NEAREST, UNLIKE = 5, 3.0
CHUNK = 1 << 26  # cosines that are held at once, in bytes


@dataclass(frozen=True)
class Neighbours:
    """What was found.

    Attributes:
        similar: (row, row, cosine) of pairs, the most similar first; those of one group, which are known, are left out.
        unlike: (row, mean cosine of its nearest) of images like no other, the most unlike first.
    """

    similar: list[tuple[int, int, float]]
    unlike: list[tuple[int, float]]


def find(images: Images) -> Neighbours:
    """Compares every image with every other."""
    rows, count = images.normalised, len(images.normalised)
    nearest = min(NEAREST, count - 1)
    closeness, similar = np.zeros(count), []
    step = max(1, CHUNK // (4 * count))
    for start in range(0, count, step):
        cosines = rows[start : start + step] @ rows.T
        own = np.arange(start, min(start + step, count))
        cosines[own - start, own] = -1
        if nearest:
            closeness[own] = np.partition(cosines, -nearest, axis=1)[:, -nearest:].mean(axis=1)
        for here, other in np.argwhere(cosines >= SIMILAR).tolist():
            first = here + start
            if first < other and images.groups[first] != images.groups[other]:
                similar.append((first, other, float(cosines[here, other])))
    similar.sort(key=lambda pair: (-pair[2], pair[:2]))
    return Neighbours(similar, _unlike(closeness))


def _unlike(closeness: np.ndarray) -> list[tuple[int, float]]:
    # The median absolute deviation times 1.4826 is the standard deviation of a normal distribution.
    middle = np.median(closeness)
    deviation = 1.4826 * np.median(np.abs(closeness - middle))
    found = np.flatnonzero(closeness < middle - UNLIKE * deviation)
    return [(int(row), float(closeness[row])) for row in found[np.argsort(closeness[found], kind="stable")]]
