"""Measures against values worked by hand and against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from evaluation import metrics


@st.composite
def answers(draw):
    """Random logits and labels of a few images, ties and absent classes included."""
    count, classes = draw(st.integers(2, 30)), draw(st.integers(2, 6))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = generator.normal(size=(count, classes)).round(draw(st.integers(0, 3))) * 3
    return logits, generator.integers(0, draw(st.integers(1, classes)), count)


def names(logits):
    return [f"class {index}" for index in range(logits.shape[1])]


# Three classes, four images: probabilities 0.7, 0.6, 0.5 and 0.8 for the answers 0, 1, 0 and 2.
BY_HAND = np.log([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.5, 0.4, 0.1], [0.1, 0.1, 0.8]])
LABELS = np.array([0, 1, 1, 2])


def test_values_worked_by_hand():
    """A wrong axis, a swapped precision and recall, or a mean over the wrong set would change one of these."""
    told = metrics.report(BY_HAND, LABELS, ["a", "b", "c"])
    assert told["accuracy"] == 0.75
    assert told["balanced_accuracy"] == pytest.approx((1 + 0.5 + 1) / 3)
    assert told["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert told["loss"] == pytest.approx(-np.log([0.7, 0.6, 0.4, 0.8]).mean())
    assert told["confusion_matrix"] == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert [row["precision"] for row in told["classes"]] == [0.5, 1.0, 1.0]
    assert [row["recall"] for row in told["classes"]] == [1.0, 0.5, 1.0]
    assert told["top_k"] == 3 and told["top_k_accuracy"] == 1.0
    # Bins of a fifteenth: each answer is alone in its own, gaps 0.3, 0.4, 0.5 (wrong) and 0.2.
    assert told["confidence"]["before"]["expected_calibration_error"] == pytest.approx((0.3 + 0.4 + 0.5 + 0.2) / 4)
    assert told["confidence"]["coverage"] == 1.0


def test_temperature_and_threshold_by_hand():
    """A temperature that multiplies instead of divides, or a threshold that turns equals away, shows here."""
    told = metrics.confidence(BY_HAND, LABELS, temperature=0.5, threshold=0.49 / 0.54)
    squared = np.array([0.49 / 0.54, 0.36 / 0.46, 0.25 / 0.42, 0.64 / 0.66])
    assert told["after"]["mean_confidence"] == pytest.approx(squared.mean())
    told = metrics.confidence(BY_HAND, LABELS, temperature=1.0, threshold=0.6)
    assert told["coverage"] == 0.75
    assert told["accuracy_of_answered"] == 1.0


@settings(max_examples=60, deadline=None)
@given(answers())
def test_agrees_with_scikit_learn(case):
    """Our own short cuts for balanced accuracy, F1, top-k and log loss must not drift from the library's."""
    logits, labels = case
    told = metrics.report(logits, labels, names(logits))
    predictions, held = logits.argmax(axis=1), np.unique(labels)
    probabilities = metrics.probabilities(logits)
    every = np.arange(logits.shape[1])
    assert told["accuracy"] == pytest.approx(sklearn.accuracy_score(labels, predictions))
    recall = sklearn.recall_score(labels, predictions, labels=held, average="macro", zero_division=0)
    assert told["balanced_accuracy"] == pytest.approx(recall)
    f1 = sklearn.f1_score(labels, predictions, labels=held, average="macro", zero_division=0)
    assert told["macro_f1"] == pytest.approx(f1) == pytest.approx(told["macro"]["f1"])
    assert told["loss"] == pytest.approx(sklearn.log_loss(labels, probabilities, labels=every))
    assert told["micro"]["f1"] == pytest.approx(told["accuracy"])
    assert np.sum(told["confusion_matrix"]) == told["num_pictures"] == len(labels)


@settings(max_examples=40, deadline=None)
@given(answers())
def test_ranking_agrees_with_scikit_learn(case):
    """Averages over classes must leave out exactly those that a one-against-rest curve does not exist for."""
    logits, labels = case
    probabilities = metrics.probabilities(logits)
    scores = metrics.ranking_scores(probabilities, labels)["roc_auc"]
    classes = [index for index in scores if not isinstance(index, str)]
    if len(np.unique(labels)) == 1:
        assert not scores and not metrics.roc_points(probabilities, labels)
        return
    assert classes == np.unique(labels).tolist()
    truth = labels[:, None] == np.arange(logits.shape[1])
    for average in ("macro", "micro", "weighted"):
        columns = slice(None) if average == "micro" else classes
        expected = sklearn.roc_auc_score(truth[:, columns], probabilities[:, columns], average=average)
        assert scores[average] == pytest.approx(expected)
    for index, (x, y) in metrics.roc_points(probabilities, labels).items():
        tolerance = 0.01 if index == "macro" else 1e-9
        assert np.trapezoid(y, x) == pytest.approx(scores[index], abs=tolerance)


@settings(max_examples=40, deadline=None)
@given(answers(), st.integers(1, 8))
def test_top_k_is_clamped(case, top):
    """A k above the number of classes must count every image instead of failing, as scikit-learn's does."""
    logits, labels = case
    got = metrics.accuracy(logits, labels, top)
    if top >= logits.shape[1]:
        assert got == 1.0
    better = (logits > logits[np.arange(len(labels)), labels][:, None]).sum(axis=1)
    assert got <= (better < top).mean()
    assert got >= (better + (logits == logits[np.arange(len(labels)), labels][:, None]).sum(axis=1) <= top).mean()


def test_absent_class_is_told_and_not_averaged():
    """A class without images must not become a zero in the means, nor a division by zero."""
    told = metrics.report(BY_HAND[:3], LABELS[:3], ["a", "b", "c"])
    assert told["absent_classes"] == ["c"]
    row = told["classes"][2]
    assert row["support"] == 0
    assert row["precision"] is None and row["recall"] is None and row["f1"] is None and row["roc_auc"] is None
    assert told["balanced_accuracy"] == told["macro"]["recall"] == 0.75


def test_one_class_only():
    """A split of one class, or a network of one, has no ROC curve; everything else must still be computed."""
    told = metrics.report(BY_HAND[1:3], LABELS[1:3], ["a", "b", "c"])
    assert told["macro"]["roc_auc"] is None and told["accuracy"] == 0.5
    alone = metrics.report(np.zeros((4, 1)), np.zeros(4, int), ["a"])
    assert alone["accuracy"] == 1.0 and alone["top_k"] == 1 and alone["loss"] == 0.0


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Percentiles of the wrong tail, or resamples without replacement, would miss the true accuracy too often."""
    generator, hits = np.random.default_rng(0), 0
    for trial in range(100):
        right = generator.random(150) < 0.8
        logits = np.where(right[:, None], [[1.0, 0.0]], [[0.0, 1.0]])
        low, high = metrics.intervals(logits, np.zeros(150, int), seed=trial)["accuracy"]
        hits += low <= 0.8 <= high
    assert 88 <= hits <= 99


def test_intervals_depend_on_the_seed_alone():
    """Two evaluations of one run must print the same interval."""
    generator = np.random.default_rng(1)
    logits, labels = generator.normal(size=(50, 4)), generator.integers(0, 4, 50)
    first = metrics.intervals(logits, labels, seed=3)
    assert first == metrics.intervals(logits, labels, seed=3)
    assert first != metrics.intervals(logits, labels, seed=4)
    for name, value in (("accuracy", metrics.accuracy(logits, labels)), ("loss", metrics.log_loss(logits, labels))):
        assert first[name][0] < value < first[name][1]


def test_reliability_bins_hold_every_answer_once():
    """Confidence 1.0 belongs to the last bin; a half-open last bin would lose the surest answers."""
    confidences = np.array([0.0, 0.5, 1.0, 1.0])
    rows = metrics.reliability(confidences, np.array([False, True, True, False]), bins=10)
    assert [row["count"] for row in rows] == [1, 1, 2]
    assert rows[-1]["high"] == 1.0 and rows[-1]["accuracy"] == 0.5


def test_coverage_curve_turns_the_least_confident_away_first():
    """An order the wrong way round would promise that rejecting the sure answers helps."""
    coverage, accuracy = metrics.coverage_curve(np.array([0.2, 0.9, 0.6]), np.array([False, True, True]))
    assert coverage.tolist() == pytest.approx([1 / 3, 2 / 3, 1])
    assert accuracy.tolist() == pytest.approx([1, 1, 2 / 3])
