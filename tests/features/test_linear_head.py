"""Linear head: a logistic regression on standardised features, folded into one dense layer."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from features import linear_head


def draw(count=120, width=9, classes=3, seed=0):
    """Features of unequal means and scales, one of them constant, and labels that depend on them."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    features = generator.normal(size=(count, width)) + 0.8 * np.eye(width)[labels]
    features = features * generator.uniform(0.01, 50, width) + generator.normal(size=width) * 100
    features[:, -1] = 3.0
    return features.astype(np.float32), labels


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_head_is_that_of_scikit_learn(classes, balanced):
    """Guards against a standardisation that is folded in the wrong way, and a penalty on another scale."""
    features, labels = draw(classes=classes)
    features, labels = features[: 90 + classes], np.where(np.arange(90 + classes) < 60, 0, labels[: 90 + classes])
    for head in linear_head.fit(features, labels, classes, balanced, [1.0, 0.01]):
        # Of two classes scikit-learn fits one row, whose square counts half as much in two rows.
        penalty = head.strength * len(labels) / (2 if classes == 2 else 1)
        model = LogisticRegression(
            C=1 / penalty, max_iter=2000, tol=1e-8, class_weight="balanced" if balanced else None
        )
        expected = make_pipeline(StandardScaler(), model).fit(features.astype(np.float64), labels)
        found = softmax(head.logits(features).astype(np.float64), axis=1)
        np.testing.assert_allclose(found, expected.predict_proba(features.astype(np.float64)), atol=2e-3)
        assert head.weight.dtype == head.bias.dtype == np.float32


def test_a_class_without_images_is_never_predicted():
    """Guards against a class that wins because nothing was learned about it, and against shifted classes."""
    features, labels = draw(classes=2)
    (head,) = linear_head.fit(features, np.where(labels == 1, 3, 1), 5, strengths=[0.01])
    logits = head.logits(features)
    assert logits.shape == (120, 5) and set(logits.argmax(axis=1)) == {1, 3}
    assert softmax(logits, axis=1)[:, [0, 2, 4]].max() < 1e-9
    assert (logits.argmax(axis=1) == np.where(labels == 1, 3, 1)).mean() > 0.6


def test_weaker_penalties_fit_closer_and_the_same_twice():
    """Guards against strengths in another order, and a result that differs from run to run."""
    features, labels = draw()
    rows = np.arange(len(labels))

    def fits():
        return list(linear_head.fit(features, labels, 3))

    losses = [-np.log(softmax(head.logits(features), axis=1)[rows, labels]).mean() for head in fits()]
    assert losses == sorted(losses, reverse=True)
    assert [head.strength for head in fits()] == list(linear_head.STRENGTHS)
    for one, two in zip(fits(), fits(), strict=True):
        np.testing.assert_array_equal(one.weight, two.weight)


def test_few_images_are_fitted_as_many_are():
    """Guards against a basis that loses a direction, or weights that are not turned back from it."""
    features, labels = draw(count=30, width=60)
    features[10] = features[11]
    for head in linear_head.fit(features, labels, 3, strengths=[1.0, 0.01]):
        model = LogisticRegression(C=1 / (head.strength * 30), max_iter=2000, tol=1e-8)
        expected = make_pipeline(StandardScaler(), model).fit(features.astype(np.float64), labels)
        others = draw(count=50, width=60, seed=1)[0]
        np.testing.assert_allclose(
            softmax(head.logits(others).astype(np.float64), axis=1),
            expected.predict_proba(others.astype(np.float64)),
            atol=5e-3,
        )


def test_chunks_and_mapped_files_change_nothing(monkeypatch, tmp_path):
    """Guards against rows that are not standardised, or not seen, where there are more than a chunk."""
    features, labels = draw()
    (whole,) = linear_head.fit(features, labels, 3, strengths=[0.1])
    np.save(tmp_path / "features.npy", features)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    for chunk in (7, 10**6):
        monkeypatch.setattr(linear_head, "CHUNK", chunk)
        for given in (features, mapped):
            (parts,) = linear_head.fit(given, labels, 3, strengths=[0.1])
            np.testing.assert_allclose(
                parts.weight * features.std(axis=0)[:, None], whole.weight * features.std(axis=0)[:, None], atol=1e-4
            )
