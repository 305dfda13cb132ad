"""The accuracy to expect: over all images but those of test, by heads that have not seen them."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from annotation.lists import Sample
from exploration import estimate, page
from exploration.images import Images
from system.errors import UserError


def draw(counts, spread=1.0, seed=0, width=8, test=0, groups=None) -> Images:
    """Images whose features lie about a corner of their class; the last `test` of them are in test."""
    labels = np.repeat(np.arange(len(counts)), counts)
    generator = np.random.default_rng(seed)
    labels = generator.permutation(labels)
    features = (generator.normal(size=(len(labels), width)) * spread + 3 * np.eye(width)[labels]).astype(np.float32)
    count = len(labels)
    return Images(
        [Sample(f"{row}.png", Path(f"{row}.png"), int(label)) for row, label in enumerate(labels)],
        ["train"] * (count - test) + ["test"] * test,
        labels,
        np.arange(count) if groups is None else np.asarray(groups),
        features,
        [f"class {index}" for index in range(len(counts))],
    )


def test_the_estimate_is_near_the_truth_and_its_interval_holds_it():
    """Guards against heads that have seen the images they are asked about."""
    images = draw([60, 60, 60], spread=1.6)
    folds = estimate.divide(images, 1)
    found = estimate.scores(images, estimate.cross_validate(images, folds), 1)
    truth = draw([2000] * 3, spread=1.6, seed=9)
    logits = estimate.fit_medium(images, np.arange(180)).logits(truth.features)
    expected = (logits.argmax(axis=1) == truth.labels).mean()
    assert found["accuracy"]["low"] < expected < found["accuracy"]["high"] < 1
    assert found["accuracy"]["value"] == pytest.approx(expected, abs=0.06)
    assert [row["images"] for row in found["classes"]] == [60, 60, 60]
    assert np.mean([row["recall"] for row in found["classes"]]) == pytest.approx(found["balanced_accuracy"]["value"])


def test_labels_of_test_take_no_part():
    """Guards against an expectation, or a choice, that has seen the test's labels."""
    images = draw([40, 40], test=20)
    labels = images.labels.copy()
    labels[-20:] = 1 - labels[-20:]
    found = []
    for one in (images, replace(images, labels=labels)):
        folds = estimate.divide(one, 1)
        assert (folds[-20:] == -1).all() and (folds[:-20] >= 0).all()
        logits = estimate.cross_validate(one, folds)
        found.append((logits, estimate.scores(one, logits, 1), estimate.learning_curve(one, folds, 1)))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][1:] == found[1][1:]
    # They are predicted all the same, for their labels may be wrong too.
    assert (found[0][0][-20:].argmax(axis=1) == images.labels[-20:]).mean() > 0.9


def test_images_of_one_group_are_one_piece_of_evidence():
    """Guards against an interval that shrinks where every image is there five times."""
    single = draw([30, 30], spread=2.5)
    five = np.repeat(np.arange(60), 5)
    copies = Images(
        [single.samples[row] for row in five], ["train"] * 300, single.labels[five], five, single.features[five],
        single.class_names,
    )  # fmt: skip
    widths = []
    for images in (single, copies):
        folds = estimate.divide(images, 1)
        for group in np.unique(images.groups):
            assert len(set(folds[images.groups == group])) == 1
        found = estimate.scores(images, estimate.cross_validate(images, folds), 1)["accuracy"]
        widths.append(found["high"] - found["low"])
    assert widths[1] == pytest.approx(widths[0], rel=0.35)


def test_the_curve_grows_with_the_images_and_ends_with_all():
    """Guards against a curve of the training images, or of numbers that there are not."""
    images = draw([120, 120, 40], spread=2.5, width=30)
    curve = estimate.learning_curve(images, estimate.divide(images, 1), 1)
    assert [point["images_per_class"] for point in curve] == [5, 10, 20, 50, 96]
    accuracy = [point["accuracy"] for point in curve]
    assert accuracy[-1] > accuracy[0] + 0.05 and all(0 < value < 1 for value in accuracy)
    assert curve == estimate.learning_curve(images, estimate.divide(images, 1), 1)


@pytest.mark.parametrize(
    ("curve", "words"),
    [
        ([(5, 0.5)], "too few images"),
        ([(5, 0.7), (10, 0.8), (12, 0.8)], "From 5 to 12 images a class it changed by +10.0 points: more labelled"),
        ([(10, 0.9), (50, 0.91), (100, 0.915)], "From 50 to 100 .* by +0.5 points: more images of the same kind"),
    ],
)
def test_the_advice_follows_from_the_last_doubling(curve, words):
    """Guards against advice from a step that is too small to see anything."""
    points = [{"images_per_class": size, "accuracy": accuracy, "deviation": 0.0} for size, accuracy in curve]
    assert re.search(words.replace("+", r"\+"), page.advice(points))


@pytest.mark.parametrize(("counts", "words"), [([9], "one class"), ([9, 1], "class 1.* fewer than two images")])
def test_too_few_images_are_one_line(counts, words):
    """Guards against a traceback of a library, and a class that is left out in silence."""
    with pytest.raises(UserError, match=words):
        estimate.divide(draw(counts), 1)
