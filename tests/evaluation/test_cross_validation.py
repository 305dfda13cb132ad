"""Cross-validation: every image is predicted by a head that has seen neither it nor its group."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from evaluation import cross_validation
from evaluation.cross_validation import assign_folds, out_of_fold, possible_folds


def test_noise_cannot_be_predicted():
    """Guards against a head fitted on the labels that it is asked about, and a strength chosen by them."""
    generator = np.random.default_rng(0)
    features, labels = generator.normal(size=(600, 40)).astype("f4"), generator.integers(0, 3, 600)
    folds = assign_folds(labels, range(600), 5, seed=1)
    logits = out_of_fold(features, labels, 4, folds)
    assert logits.shape == (600, 4) and (logits.argmax(axis=1) != 3).all()
    assert (logits.argmax(axis=1) == labels).mean() < 0.4


@pytest.mark.parametrize("many", [10, 5000])
def test_what_can_be_learned_is_learned(monkeypatch, many):
    """Guards against logits in another order than the images, or of another class."""
    monkeypatch.setattr(cross_validation, "MANY", many)
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 200)
    features = (generator.normal(size=(200, 12)) + 4 * np.eye(12)[labels]).astype("f4")
    logits = out_of_fold(features, labels, 4, assign_folds(labels, range(200), 5, seed=1))
    assert (logits.argmax(axis=1) == labels).mean() > 0.95


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 5), st.integers(2, 5), st.integers(10, 60), st.integers(0, 9))
def test_folds_divide_no_group_and_are_as_large_as_they_can_be(classes, folds, count, seed):
    """Guards against an image whose copy is in the fold that it is predicted from, and folds without a class."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    groups = np.where(draw.random(count) < 0.3, draw.integers(0, 5, count), 100 + np.arange(count))
    folds = possible_folds(labels, groups, folds)
    assume(folds)
    found = assign_folds(labels, groups, folds, seed)
    assert set(found) == set(range(folds))
    for group in np.unique(groups):
        assert len(set(found[groups == group])) == 1
    alone = assign_folds(labels, range(count), folds, seed)
    for label in range(classes):
        sizes = np.bincount(alone[labels == label], minlength=folds)
        assert sizes.max() - sizes.min() <= 1
    assert (assign_folds(labels, range(count), folds, seed) == alone).all()


@pytest.mark.parametrize(
    ("labels", "groups", "count"),
    [
        ([0, 0, 0, 1, 1, 1], range(6), 3),
        ([0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 2, 3], 0),
        ([0, 0, 0, 1, 1, 1], [0, 0, 4, 1, 2, 3], 2),
        ([0, 0, 0, 0], range(4), 0),
        ([0] * 9 + [2] * 9, range(18), 5),
    ],
)
def test_there_are_no_more_folds_than_groups_of_a_class(labels, groups, count):
    """Guards against folds in which a class cannot be learned."""
    assert possible_folds(np.array(labels), groups) == count
