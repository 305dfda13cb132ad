"""The text that evaluate.py prints, character by character."""

import copy

import pytest

from evaluation import terminal
from system.text import columns

REPORT = {
    "split": "test",
    "num_pictures": 7,
    "num_classes": 7,
    "accuracy": 0.71428,
    "top_k": 5,
    "top_k_accuracy": 1.0,
    "balanced_accuracy": 0.625,
    "macro_f1": 0.6,
    "loss": 0.51234,
    "intervals": {"accuracy": [0.42857, 1.0]},
    "classes": [
        {"name": "ox", "precision": 0.75, "recall": 0.5, "f1": 0.6, "support": 4},
        {"name": "dragon", "precision": 1.0, "recall": 0.25, "f1": 0.4, "support": 3},
        {"name": "dog", "precision": None, "recall": None, "f1": None, "support": 0},
    ],
    "confidence": {
        "temperature": 1.25,
        "threshold": 0.4,
        "before": {"expected_calibration_error": 0.21},
        "after": {"expected_calibration_error": 0.0625},
        "coverage": 0.857,
        "accuracy_of_answered": 0.8333,
    },
    "foreign": {"turned_away": 0.9, "num_pictures": 20, "known_turned_away": 0.143},
}

REPORT_TEXT = """\
class   precision  recall      f1  images
ox         0.7500  0.5000  0.6000       4
dragon     1.0000  0.2500  0.4000       3
dog             -       -       -       0
test accuracy 0.7143 (95 % interval 0.4286 to 1.0000), top-5 accuracy 1.0000, balanced accuracy 0.6250, \
macro F1 0.6000, loss 0.5123 on 7 images
confidence: temperature 1.250, calibration error 0.2100 before, 0.0625 after
threshold 0.400: 85.7% of test accepted, accuracy of the accepted 83.3%
out-of-distribution images: 90.0% of 20 rejected (14.3% of test)"""


def test_report():
    """Guards against precision and recall swapped, a column out of line, and a number with another one's label."""
    assert terminal.report_text(REPORT) == REPORT_TEXT


@pytest.mark.parametrize(
    ("threshold", "accuracy", "line"),
    [(None, 0.8, None), (0.4, None, "threshold 0.400: 85.7% of test accepted")],
)
def test_report_without_threshold_or_accepted_image(threshold, accuracy, line):
    """Guards against a threshold or an accuracy of nothing that is printed as a number."""
    report = copy.deepcopy(REPORT) | {"foreign": None}
    report["confidence"] |= {"threshold": threshold, "accuracy_of_answered": accuracy}
    lines = REPORT_TEXT.splitlines()[:-2] + ([line] if line else [])
    assert terminal.report_text(report).splitlines() == lines


def row(accuracy, loss):
    return {
        "accuracy": accuracy,
        "top_k_accuracy": 1.0,
        "balanced_accuracy": 0.5,
        "macro_f1": 0.25,
        "loss": loss,
    }


GAP = {"value": 0.125, "low": -0.0625, "high": 0.25}
COMPARISON = {
    "split": "test",
    "top_k": 5,
    "num_classes": 6,
    "runs": [{"run": "output/a"} | row(0.75, 0.5), {"run": "output/b", "minus_first": GAP} | row(0.875, 0.25)],
    "summary": {name: {"mean": mean, "standard_deviation": 0.0625} for name, mean in row(0.8125, 0.375).items()},
    "pair": {
        "both_right": 6,
        "only_first_right": 1,
        "only_second_right": 2,
        "both_wrong": 3,
        "mcnemar_p": 0.12345,
        "difference": {"accuracy": GAP},
    },
}

COMPARISON_TEXT = """\
run                 accuracy  top-5 accuracy  balanced accuracy  macro F1      loss  accuracy minus first
output/a              0.7500          1.0000             0.5000    0.2500    0.5000
output/b              0.8750          1.0000             0.5000    0.2500    0.2500  +0.1250 (-0.0625 to +0.2500)
mean                  0.8125          1.0000             0.5000    0.2500    0.3750
standard deviation    0.0625          0.0625             0.0625    0.0625    0.0625
second - first: accuracy +0.1250 (95 % interval -0.0625 to +0.2500), only the first correct 1, only the second 2, \
McNemar p = 0.123"""


def test_comparison():
    """Guards against the runs' roles swapped, and a column under another metric's title."""
    assert terminal.comparison_text(COMPARISON) == COMPARISON_TEXT
    several = terminal.comparison_text(COMPARISON | {"pair": None})
    assert several.splitlines() == COMPARISON_TEXT.splitlines()[:-1]


@pytest.mark.parametrize("count", [2, 5])
def test_no_top_k_where_k_is_every_class(count):
    """Guards against "top-5 accuracy 1.0000" of five classes, which says nothing and looks like a success."""
    few = {"num_classes": count, "top_k": min(5, count)}
    assert "top-" not in terminal.report_text(REPORT | few) + terminal.comparison_text(COMPARISON | few)


def test_columns_of_wide_names_are_in_line():
    """Guards against tables that Chinese names, which take two columns a character, push out of line."""
    rows = [one | {"name": name} for one, name in zip(REPORT["classes"], ("老虎", "dragon", "é́"), strict=True)]
    lines = terminal.report_text(REPORT | {"classes": rows}).splitlines()[:4]
    assert {columns(line) for line in lines} == {columns(lines[0])}
    runs = [
        COMPARISON["runs"][0] | {"run": "output/生肖识别第一次的训练"},
        COMPARISON["runs"][1] | {"minus_first": None},
    ]
    lines = terminal.comparison_text(COMPARISON | {"runs": runs}).splitlines()[1:5]
    assert {columns(line) for line in lines} == {columns(lines[0])}
