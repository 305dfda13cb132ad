"""Similar images and images unlike any other, found among features whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest
from test_estimate import draw

from exploration import neighbours
from exploration.projection import project


@pytest.mark.parametrize("chunk", [1 << 26, 1])
def test_planted_pairs_are_found_and_known_ones_are_not(monkeypatch, chunk):
    """Guards against a pair missed at the border of a chunk, found twice, or reported although it is a known copy."""
    monkeypatch.setattr(neighbours, "CHUNK", chunk)
    generator = np.random.default_rng(3)
    images = draw([50, 50], width=64)
    features = generator.normal(size=(100, 64)).astype(np.float32)
    for first, second, noise in ((3, 70, 0.05), (10, 11, 0.2), (20, 80, 0.01)):
        features[second] = features[first] + noise * generator.normal(size=64)
    groups = np.arange(100)
    groups[80] = groups[20]
    found = neighbours.find(replace(images, features=features, groups=groups)).similar
    assert [pair[:2] for pair in found] == [(3, 70), (10, 11)]
    assert found[0][2] > found[1][2] >= neighbours.SIMILAR


def test_an_image_like_no_other_is_found_first():
    """Guards against the images of a small class, or the centre of all, taken for strangers."""
    generator = np.random.default_rng(0)
    images = draw([80, 80, 12], width=40)
    features = np.concatenate([3 * np.eye(40)[images.labels]]).astype(np.float32)
    features += 0.3 * generator.normal(size=features.shape).astype(np.float32)
    features[17] = 5 * generator.normal(size=40)
    (first, closeness), *_ = neighbours.find(replace(images, features=features)).unlike
    assert first == 17 and closeness < 0.5


@pytest.mark.parametrize("count", [1, 2, 7, 8, 60])
def test_the_map_is_the_unit_square_and_the_same_twice(count):
    """Guards against few images that a projection refuses, and a map that differs from run to run."""
    features = np.random.default_rng(0).normal(size=(count, 12)).astype(np.float32)
    places, method = project(features, 1)
    assert places.shape == (count, 2) and places.min() >= 0 and places.max() <= 1
    assert method == ("t-SNE" if count >= 8 else "PCA")
    np.testing.assert_array_equal(places, project(features, 1)[0])


def test_groups_lie_together_on_the_map():
    """Guards against places that have nothing to do with the features."""
    images = draw([30, 30, 30], spread=0.3)
    places, _ = project(images.normalised, 1)
    centres = np.stack([places[images.labels == label].mean(axis=0) for label in range(3)])
    nearest = ((places[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest == images.labels).all()
