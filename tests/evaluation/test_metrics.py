"""Metrics, curves and the numbers of a report, against values computed by hand and against scikit-learn."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from annotation.lists import Sample
from evaluation import curves, metrics
from evaluation.predictions import Predictions
from evaluation.report import build_report, confidence_report
from system.errors import UserError


@st.composite
def outputs(draw):
    """Random logits and labels of a few images, ties and absent classes included."""
    count, classes = draw(st.integers(2, 30)), draw(st.integers(2, 6))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = generator.normal(size=(count, classes)).round(draw(st.integers(0, 3))) * 3
    return logits, generator.integers(0, draw(st.integers(1, classes)), count)


def predictions(logits, labels, **calibration):
    samples = [Sample(f"{i}.png", Path(f"{i}.png"), int(label)) for i, label in enumerate(labels)]
    names = [f"class {index}" for index in range(logits.shape[1])]
    return Predictions("test", samples, logits, labels, names, **calibration)


def report(logits, labels):
    return build_report(predictions(logits, labels))


# Three classes, four images, predicted as 0, 1, 0 and 2 with probabilities 0.7, 0.6, 0.5 and 0.8.
BY_HAND = np.log([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.5, 0.4, 0.1], [0.1, 0.1, 0.8]])
LABELS = np.array([0, 1, 1, 2])


def test_values_computed_by_hand():
    """Guards against a wrong axis, precision and recall swapped, and a mean over the wrong set."""
    result = report(BY_HAND, LABELS)
    assert result["accuracy"] == 0.75
    assert result["balanced_accuracy"] == pytest.approx((1 + 0.5 + 1) / 3)
    assert result["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert result["loss"] == pytest.approx(-np.log([0.7, 0.6, 0.4, 0.8]).mean())
    assert result["confusion_matrix"] == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert [row["precision"] for row in result["classes"]] == [0.5, 1.0, 1.0]
    assert [row["recall"] for row in result["classes"]] == [1.0, 0.5, 1.0]
    assert result["top_k"] == 3 and result["top_k_accuracy"] == 1.0
    # Bins of a fifteenth: each image is alone in its own, gaps 0.3, 0.4, 0.5 (wrong) and 0.2.
    assert result["confidence"]["before"]["expected_calibration_error"] == pytest.approx((0.3 + 0.4 + 0.5 + 0.2) / 4)
    assert result["confidence"]["coverage"] == 1.0


def test_temperature_and_threshold_by_hand():
    """Guards against a temperature that multiplies, and a threshold that rejects a confidence equal to it."""
    result = confidence_report(predictions(BY_HAND, LABELS, temperature=0.5, threshold=0.49 / 0.54))
    squared = np.array([0.49 / 0.54, 0.36 / 0.46, 0.25 / 0.42, 0.64 / 0.66])
    assert result["after"]["mean_confidence"] == pytest.approx(squared.mean())
    result = confidence_report(predictions(BY_HAND, LABELS, threshold=0.6))
    assert result["coverage"] == 0.75
    assert result["accuracy_of_answered"] == 1.0


@settings(max_examples=60, deadline=None)
@given(outputs())
def test_agrees_with_scikit_learn(case):
    """Guards against our own balanced accuracy, F1 and log loss drifting from the library's."""
    logits, labels = case
    result = report(logits, labels)
    predictions, held = logits.argmax(axis=1), np.unique(labels)
    probabilities = metrics.probabilities(logits)
    every = np.arange(logits.shape[1])
    assert result["accuracy"] == pytest.approx(sklearn.accuracy_score(labels, predictions))
    recall = sklearn.recall_score(labels, predictions, labels=held, average="macro", zero_division=0)
    assert result["balanced_accuracy"] == pytest.approx(recall)
    f1 = sklearn.f1_score(labels, predictions, labels=held, average="macro", zero_division=0)
    assert result["macro_f1"] == pytest.approx(f1) == pytest.approx(result["macro"]["f1"])
    assert result["loss"] == pytest.approx(sklearn.log_loss(labels, probabilities, labels=every))
    assert result["micro"]["f1"] == pytest.approx(result["accuracy"])
    assert np.sum(result["confusion_matrix"]) == result["num_pictures"] == len(labels)


@settings(max_examples=40, deadline=None)
@given(outputs())
def test_ranking_agrees_with_scikit_learn(case):
    """Guards against averages that include classes without a one-vs-rest curve."""
    logits, labels = case
    probabilities = metrics.probabilities(logits)
    scores = curves.ranking_scores(probabilities, labels)["roc_auc"]
    classes = [index for index in scores if not isinstance(index, str)]
    if len(np.unique(labels)) == 1:
        assert not scores and not curves.roc_curves(probabilities, labels)
        return
    assert classes == np.unique(labels).tolist()
    truth = labels[:, None] == np.arange(logits.shape[1])
    for average in ("macro", "micro", "weighted"):
        columns = slice(None) if average == "micro" else classes
        expected = sklearn.roc_auc_score(truth[:, columns], probabilities[:, columns], average=average)
        assert scores[average] == pytest.approx(expected)
    for index, (x, y) in curves.roc_curves(probabilities, labels).items():
        tolerance = 0.01 if index == "macro" else 1e-9
        assert np.trapezoid(y, x) == pytest.approx(scores[index], abs=tolerance)
        assert (x[0], y[0], x[-1], y[-1]) == pytest.approx((0, 0, 1, 1))
    precision, recall, _ = sklearn.precision_recall_curve(truth.ravel(), probabilities.ravel(), drop_intermediate=True)
    x, y = curves.precision_recall_curves(probabilities, labels)["micro"]
    np.testing.assert_allclose((x, y), (recall, precision))


@settings(max_examples=40, deadline=None)
@given(outputs(), st.integers(1, 8))
def test_top_k_is_clamped(case, top):
    """Guards against a failure where k exceeds the number of classes, and against ties that count for every class."""
    logits, labels = case
    got = metrics.in_top_k(logits, labels, top).mean()
    if top >= logits.shape[1]:
        assert got == 1.0
    better = (logits > logits[np.arange(len(labels)), labels][:, None]).sum(axis=1)
    assert got <= (better < top).mean()
    assert got >= (better + (logits == logits[np.arange(len(labels)), labels][:, None]).sum(axis=1) <= top).mean()


def test_absent_class_is_reported_and_not_averaged():
    """Guards against a class without images that becomes a zero in the means, or a division by zero."""
    result = report(BY_HAND[:3], LABELS[:3])
    assert result["absent_classes"] == ["class 2"]
    row = result["classes"][2]
    assert row["support"] == 0
    assert row["precision"] is None and row["recall"] is None and row["f1"] is None and row["roc_auc"] is None
    assert result["balanced_accuracy"] == result["macro"]["recall"] == 0.75


def test_one_class_only():
    """Guards against a failure where there is no ROC curve: a split of one class, or a network of one."""
    result = report(BY_HAND[1:3], LABELS[1:3])
    assert result["macro"]["roc_auc"] is None and result["accuracy"] == 0.5
    alone = report(np.zeros((4, 1)), np.zeros(4, int))
    assert alone["accuracy"] == 1.0 and alone["top_k"] == 1 and alone["loss"] == 0.0


def test_intervals_hold_the_true_value_in_95_percent():
    """Guards against percentiles of the wrong tail, and resampling without replacement."""
    generator, hits = np.random.default_rng(0), 0
    for trial in range(100):
        right = generator.random(150) < 0.8
        logits = np.where(right[:, None], [[1.0, 0.0]], [[0.0, 1.0]])
        low, high = metrics.intervals(metrics.Outputs(logits, np.zeros(150, int)), seed=trial)["accuracy"]
        hits += low <= 0.8 <= high
    assert 88 <= hits <= 99


def test_intervals_depend_on_the_seed_alone():
    """Guards against two evaluations of one run that print different intervals."""
    generator = np.random.default_rng(1)
    logits, labels = generator.normal(size=(50, 4)), generator.integers(0, 4, 50)
    outputs = metrics.Outputs(logits, labels)
    first = metrics.intervals(outputs, seed=3)
    assert first == metrics.intervals(outputs, seed=3)
    assert first != metrics.intervals(outputs, seed=4)
    for name, exact in metrics.compute(outputs).items():
        assert first[name][0] < exact < first[name][1] or name == "top_k_accuracy"


def test_reliability_bins_hold_every_prediction_once():
    """Guards against a half-open last bin, which would lose predictions of confidence 1."""
    confidences = np.array([0.0, 0.5, 1.0, 1.0])
    rows = curves.reliability(confidences, np.array([False, True, True, False]), bins=10)
    assert [row["count"] for row in rows] == [1, 1, 2]
    assert rows[-1]["high"] == 1.0 and rows[-1]["accuracy"] == 0.5


def test_coverage_curve_rejects_the_least_confident_first():
    """Guards against a reversed order, which would show that rejecting confident predictions helps."""
    coverage, accuracy = curves.coverage_curve(np.array([0.2, 0.9, 0.6]), np.array([False, True, True]))
    assert coverage.tolist() == pytest.approx([1 / 3, 2 / 3, 1])
    assert accuracy.tolist() == pytest.approx([1, 1, 2 / 3])


def test_resample_is_the_images_that_were_drawn():
    """Guards against a resample whose predictions, labels and probabilities are of different images."""
    generator = np.random.default_rng(2)
    logits, labels = generator.normal(size=(40, 3)), generator.integers(0, 3, 40)
    rows = generator.integers(0, 40, 40)
    resample, again = metrics.Outputs(logits, labels).resample(rows), metrics.Outputs(logits[rows], labels[rows])
    assert metrics.compute(resample) == metrics.compute(again)
    assert (resample.probabilities == again.probabilities).all() and resample.num_classes == 3


def test_headline_has_every_metric():
    """Guards against a metric that the model card and the terminal silently leave out."""
    result = report(BY_HAND, LABELS)
    assert metrics.headline(result | {"num_classes": 6, "top_k": 5})[1] == ("top-5 accuracy", "1.0000")
    assert metrics.headline(result) == [
        ("accuracy", "0.7500"),
        ("balanced accuracy", "0.8333"),
        ("macro F1", "0.7778"),
        ("loss", "0.5017"),
    ]
    del result["top_k_accuracy"]
    with pytest.raises(UserError, match=r"top_k_accuracy is missing; run `python evaluate.py` again"):
        metrics.headline(result)


def test_every_interval_is_of_the_same_resamples():
    """Guards against intervals of metrics that are not averages over images: of the whole list, or of other images."""
    generator = np.random.default_rng(3)
    logits, labels = generator.normal(size=(30, 3)), generator.integers(0, 3, 30)
    found = metrics.intervals(metrics.Outputs(logits, labels), seed=5)
    draw, values = np.random.default_rng(5), []
    for _ in range(metrics.RESAMPLES):
        rows = draw.integers(0, 30, 30)
        values.append(metrics.compute(metrics.Outputs(logits[rows], labels[rows])))
    for name in metrics.METRICS:
        assert found[name] == pytest.approx(np.percentile([row[name] for row in values], [2.5, 97.5])), name
