"""Calibration, mistakes, suspected label errors and comparison, on predictions whose truth is known."""

from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot
from PIL import Image
from scipy.special import softmax

from annotation.lists import Sample
from evaluation import calibration, comparison, label_errors, metrics, mistakes, plots
from evaluation.predictions import Predictions
from inference.ranking import NONE_OF_THESE


def samples(labels):
    return [Sample(f"{i}.png", Path(f"{i}.png"), int(label)) for i, label in enumerate(labels)]


def predictions(logits, labels, **options):
    labels = np.asarray(labels)
    names = [f"class {i}" for i in range(np.shape(logits)[1])]
    return Predictions("test", samples(labels), np.asarray(logits, float), labels, names, **options)


def honest(count, classes, seed):
    """Logits whose softmax is the true distribution of the labels."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(count, classes)) * 2
    cumulative = softmax(logits, axis=1).cumsum(axis=1)
    return logits, (generator.random((count, 1)) > cumulative).sum(axis=1).clip(max=classes - 1)


@pytest.mark.parametrize("factor", [0.4, 1.0, 3.0])
def test_temperature_undoes_a_factor(factor):
    """Guards against the inverse: logits too large by a factor need that factor as temperature."""
    logits, labels = honest(4000, 5, seed=0)
    assert calibration.fit_temperature(logits * factor, labels) == pytest.approx(factor, rel=0.1)


def test_temperature_never_hurts_where_it_was_fitted():
    """Guards against a search that stops at a bound with a worse loss than without temperature."""
    for seed in range(5):
        logits, labels = honest(30, 3, seed)
        temperature = calibration.fit_temperature(logits, labels)
        assert metrics.log_loss(logits, labels, temperature) <= metrics.log_loss(logits, labels)
    assert calibration.fit_temperature(np.zeros((5, 1)), np.zeros(5, int)) == 1.0


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.floats(0.05, 1), st.integers(0, 1000))
def test_threshold_keeps_its_coverage(count, target, seed):
    """Guards against one image too few accepted, by ties or rounding."""
    confidences = np.random.default_rng(seed).random(count).round(1)
    threshold = calibration.choose_threshold(confidences, np.ones(count, bool), "coverage", target)
    assert (confidences >= threshold).mean() >= target - 1e-9
    higher = np.unique(confidences[confidences >= threshold])[1:]
    if len(higher):
        assert (confidences >= higher[0]).mean() < target


def test_threshold_by_precision():
    """Guards against a search that stops at the first miss and accepts too few images."""
    confidences = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    correct = np.array([True, False, True, True, False])
    assert calibration.choose_threshold(confidences, correct, "precision", 0.75) == pytest.approx(0.55)
    assert calibration.choose_threshold(confidences, correct, "precision", 1.0) == pytest.approx(0.85)
    assert calibration.choose_threshold(confidences, ~correct, "precision", 0.9) is None
    assert calibration.choose_threshold(confidences, correct, "off", 0.9) is None


def test_out_of_distribution_images_are_counted_on_the_right_side():
    """Guards against in- and out-of-distribution images swapped."""
    found = calibration.rejection_report(np.array([0.9, 0.8, 0.3]), np.array([0.2, 0.35, 0.1, 0.6]), 0.4)
    assert found["turned_away"] == 0.75
    assert found["known_turned_away"] == pytest.approx(1 / 3)
    assert found["roc_auc"] == pytest.approx(10 / 12)


def test_mistakes_in_order():
    """Guards against a gallery that does not begin with the most confident mistake, or shows a correct prediction."""
    logits = np.log([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.7, 0.3]])
    found = predictions(logits, [0, 0, 0, 1])
    assert mistakes.most_confident(found, 5) == [1, 3, 2]
    assert mistakes.worst_of_classes(found, 5) == [3, 1]
    # Those that are shown above make room for the next worst of their class.
    assert mistakes.worst_of_classes(found, 5, without=[3, 1]) == [2]
    first, second = mistakes.confused_pairs(found, 5, 1)
    assert (first.label, first.predicted, first.count, first.share, first.examples) == (0, 1, 2, 2 / 3, [1])
    assert (second.label, second.predicted, second.count) == (1, 0, 1)


def test_predictions_table_has_rejections():
    """Guards against a rejection that replaces the top-1 class, or a threshold that is not applied."""
    found = predictions(np.log([[0.9, 0.1], [0.45, 0.55]]), [0, 0], threshold=0.6)
    head, sure, unsure = found.table().splitlines()
    assert head.split("\t") == ["path", "label", "prediction", "answer", "class 0", "class 1"]
    assert sure.split("\t") == ["0.png", "class 0", "class 0", "class 0", "0.900000", "0.100000"]
    assert unsure.split("\t")[2:4] == ["class 1", NONE_OF_THESE]


def test_flipped_labels_are_found_first():
    """Guards against a reversed order, and suggestions other than the true class, on labels flipped on purpose."""
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 4, 400)
    probabilities = softmax(generator.normal(size=(400, 4)) + 4 * np.eye(4)[truth], axis=1)
    labels, flipped = truth.copy(), generator.choice(400, 20, replace=False)
    labels[flipped] = (labels[flipped] + 1) % 4
    found = label_errors.find("test", samples(labels), probabilities)
    first = {int(one.sample.path.removesuffix(".png")) for one in found[:20]}
    assert len(first & set(flipped.tolist())) >= 15
    right = [one for one in found if one.suggested == truth[int(one.sample.path.removesuffix(".png"))]]
    assert len(right) > 0.8 * len(found)
    lines = label_errors.table(found, list("abcd")).splitlines()
    assert len(lines) == len(found) + 1 and len(lines[1].split("\t")) == 6


def test_label_errors_with_absent_and_single_classes():
    """Guards against classes without images, or a single class, that stop an evaluation."""
    probabilities = softmax(np.random.default_rng(0).normal(size=(12, 3)), axis=1)
    label_errors.find("test", samples([0] * 12), probabilities)
    assert label_errors.find("test", samples([0] * 12), np.ones((12, 1))) == []


def test_mcnemar_by_hand():
    """Guards against a one-sided test: the smaller tail of a fair coin is doubled, 1 of 6 is (1 + 6) * 2 / 64."""
    assert comparison.mcnemar(1, 5) == pytest.approx(2 * 7 / 64) == comparison.mcnemar(5, 1)
    assert comparison.mcnemar(0, 0) == 1.0


def test_comparison_counts_and_direction():
    """Guards against first minus second, with which the worse run looks better."""
    good, bad = [[2.0, 0.0], [0.0, 2.0], [2.0, 0.0]], [[2.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    first, second = predictions(bad, [0, 1, 0]), predictions(good, [0, 1, 0])
    found = comparison.compare(first, second, seed=0)
    assert (found["both_right"], found["only_first_right"], found["only_second_right"], found["both_wrong"]) == (
        1,
        0,
        2,
        0,
    )
    gap = found["difference"]["accuracy"]
    assert gap["value"] == pytest.approx(2 / 3) and gap["low"] <= gap["value"] <= gap["high"]
    assert found["difference"]["loss"]["value"] < 0
    assert comparison.disagreements(first, second) == [1, 2]
    assert comparison.table(first, second, ("a", "b")).splitlines()[1].endswith("class 0\tclass 1\tb")
    assert comparison.table(second, first, ("b", "a")).splitlines()[1].endswith("class 1\tclass 0\tb")


def test_identical_runs_do_not_differ():
    """Guards against resampling the two runs independently, which gives equal runs a wide interval."""
    one = predictions(np.random.default_rng(0).normal(size=(60, 3)), [0, 1, 2] * 20)
    found = comparison.compare(one, one, seed=0)
    assert found["difference"]["accuracy"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert found["mcnemar_p"] == 1.0


def test_differences_are_paired_for_every_metric():
    """Guards against differences of some metrics that are of the whole list, or of other images in each run."""
    generator = np.random.default_rng(4)
    labels = generator.integers(0, 3, 25)
    first, second = (predictions(generator.normal(size=(25, 3)), labels) for _ in range(2))
    found = comparison.differences(first, second, seed=6)
    draw, values = np.random.default_rng(6), []
    for _ in range(metrics.RESAMPLES):
        rows = draw.integers(0, 25, 25)
        before, after = (metrics.compute(metrics.Outputs(one.logits[rows], labels[rows])) for one in (first, second))
        values.append({name: after[name] - before[name] for name in before})
    for name in metrics.METRICS:
        expected = np.percentile([row[name] for row in values], [2.5, 97.5])
        assert [found[name]["low"], found[name]["high"]] == pytest.approx(expected), name


def test_spread_over_runs_is_of_a_sample():
    """Guards against the divisor n instead of n - 1, which makes the spread of few seeds look smaller."""
    rows = [dict.fromkeys(metrics.METRICS, value) for value in (0.8, 0.9)]
    found = comparison.summary(rows)["accuracy"]
    assert found["mean"] == pytest.approx(0.85)
    assert found["standard_deviation"] == pytest.approx(0.1 / np.sqrt(2))


def test_dollars_in_class_names_are_text(tmp_path):
    """Guards against class names that matplotlib takes for formulas, which fails for most."""
    plots.confusion([[1, 0], [0, 1]], ["$0_$50", "$50_^$100"], tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").is_file()


@pytest.mark.parametrize("reject", ["off", "coverage", "precision"])
def test_calibration_says_what_it_reached(reject):
    """Guards against a coverage or precision of other images than those that the threshold accepts."""
    logits = np.log([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.45, 0.55]])
    found = calibration.fit(logits, np.array([0, 0, 0, 1]), SimpleNamespace(reject=reject, reject_target=0.5))
    confidences = softmax(logits / found["temperature"], axis=1).max(axis=1)
    if reject == "off":
        assert (found["threshold"], found["coverage"], found["precision"]) == (None, 1.0, 0.75)
    elif reject == "coverage":
        assert confidences[2] < found["threshold"] < confidences[1]
        assert (found["coverage"], found["precision"]) == (0.5, 1.0)
    else:
        assert (found["threshold"], found["coverage"], found["precision"]) == (0.0, 1.0, 0.75)
    assert found["num_pictures"] == 4 and found["reject"] == reject and found["reject_target"] == 0.5


def test_temperature_is_searched_within_its_bounds():
    """Guards against a temperature that makes every probability uniform, or 0 and 1."""
    logits, labels = honest(4000, 5, seed=0)
    assert calibration.fit_temperature(logits * 15, labels) == pytest.approx(15, rel=0.1)
    assert calibration.fit_temperature(logits * 40, labels) == pytest.approx(20, rel=1e-3)


def test_no_threshold_turns_nothing_away():
    """Guards against images rejected where there is no threshold."""
    found = calibration.rejection_report(np.array([0.9, 0.0]), np.array([0.2]), None)
    assert (found["turned_away"], found["known_turned_away"]) == (0.0, 0.0)


def test_disagreements_begin_with_the_most_confident_mistake():
    """Guards against mistakes that are ranked by the confidence of the run that is right."""
    first = predictions(np.log([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]]), [0, 0, 0])
    second = predictions(np.log([[0.3, 0.7], [0.99, 0.01], [0.6, 0.4]]), [0, 0, 0])
    assert comparison.disagreements(first, second) == [2, 0, 1]


def test_figures_leave_matplotlib_as_it_was(tmp_path):
    """Guards against a notebook whose own figures no longer show, or change their fonts and formulas."""
    backend, before = matplotlib.get_backend(), matplotlib.rcParams.copy()
    plots.confusion([[1, 0], [0, 1]], ["狗", "-1"], tmp_path / "confusion.png")
    plots.grid([Image.new("RGB", (8, 8))], ["狗"], tmp_path / "grid.png")
    assert matplotlib.rcParams == before and matplotlib.get_backend() == backend
    assert pyplot.get_fignums() == []
