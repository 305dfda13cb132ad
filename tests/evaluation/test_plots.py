"""What figures show, read from their artists."""

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.container import ErrorbarContainer
from PIL import Image

from evaluation import axis_limits, cells, curves, fonts, plots


@pytest.fixture
def drawn(monkeypatch):
    """Figures in the order in which they were drawn."""
    figures, save = [], plots._save

    def keep(figure, path):
        figures.append(figure)
        save(figure, path)

    monkeypatch.setattr(plots, "_save", keep)
    return figures


@pytest.mark.parametrize("column", ["epoch", "strength"])
def test_the_best_epoch_or_strength_is_marked(drawn, tmp_path, column):
    """Guards against a mark at another epoch, none for strengths, and ticks that are unparsed formulas."""
    history = {column: [1, 2, 3] if column == "epoch" else [10, 0.1, 0.001]}
    history |= {f"{split}_{metric}": [3, 1, 2] for split in ("train", "valid") for metric in ("loss", "accuracy")}
    plots.curves(history, tmp_path / "curves.png", history[column][1])
    for axis in drawn[0].axes:
        named = axis.get_legend_handles_labels()
        mark = dict(zip(*named[::-1], strict=True))[f"best {column}: {history[column][1]}"]
        assert set(mark.get_xdata()) == {history[column][1]}
        drawn[0].canvas.draw()
        assert not [text for text in axis.get_xticklabels() if "$" in text.get_text()]


def test_reliability_has_areas_and_intervals_and_no_line(drawn):
    """Guards against a bin of one image that looks as certain as one of a hundred."""
    confidences, correct = (
        np.array([0.95] * 100 + [0.5] * 25 + [0.3]),
        np.array([1] * 90 + [0] * 10 + [1] * 13 + [0] * 13),
    )
    rows = curves.reliability(confidences, correct.astype(bool))
    plots.reliability("as trained", rows)
    (axis,) = drawn[0].axes
    dots = next(one for one in axis.collections if isinstance(one, PathCollection))
    one, some, many = dots.get_sizes()
    assert many == pytest.approx(4 * some) and 0 < one < some
    assert [
        line.get_label() for line in axis.lines if len(line.get_xdata()) > 1 and line.get_linestyle() != "None"
    ] == ["confidence = accuracy"]
    assert len([one for one in axis.containers if isinstance(one, ErrorbarContainer)]) == 1
    # By hand: 90 of 100 are (0.9 + 1.96²/200 ± 1.96 √(0.09/100 + 1.96²/40000)) / (1 + 1.96²/100).
    assert rows[-1]["interval"] == pytest.approx((0.8256, 0.9448), abs=1e-4)


def ranked(spread, classes=12, seed=0):
    labels = np.repeat(np.arange(classes), 20)
    scores = np.random.default_rng(seed).normal(size=(len(labels), classes))
    scores[np.arange(len(labels)), labels] += np.linspace(spread, spread + 4, classes)[labels]
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return curves.ranking_scores(probabilities, labels), probabilities, labels


@pytest.mark.parametrize("score", ["roc_auc", "average_precision"])
def test_curves_of_averages_and_worst_classes(drawn, score):
    """Guards against a dozen curves over each other, and against the best classes instead of the worst."""
    scores, probabilities, labels = ranked(1)
    find = curves.roc_curves if score == "roc_auc" else curves.precision_recall_curves
    names = [f"class {index}" for index in range(12)]
    plots.ranking(score, find(probabilities, labels), scores[score], names)
    legend = drawn[0].axes[0].get_legend()
    by_score = sorted(range(12), key=scores[score].__getitem__)[:4]
    averages = 2 if score == "roc_auc" else 1
    assert [text.get_text() for text in legend.get_texts()][:-averages] == [
        f"{names[index]}: {scores[score][index]:.3f}" for index in by_score
    ]
    assert legend.get_title().get_text().endswith("the lowest 4 of 12 classes")


def test_limits_show_where_curves_differ():
    """Guards against curves that hug a corner of an empty plane, and against limits that cut off what differs."""
    _, probabilities, labels = ranked(9)
    (left, right), (low, high) = axis_limits.roc_limits(list(curves.roc_curves(probabilities, labels).values()))
    assert (left, high) == (0, 1) and right <= 0.1 and low >= 0.5
    (left, right), (low, high) = axis_limits.precision_recall_limits(
        list(curves.precision_recall_curves(probabilities, labels).values())
    )
    assert (right, high) == (1, 1) and left >= 0.5 and low >= 0.5
    _, probabilities, labels = ranked(-2)
    assert axis_limits.roc_limits(list(curves.roc_curves(probabilities, labels).values())) == ((0, 1), (0, 1))


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (6, 6), (8, 4), (10, 5), (16, 4), (24, 6), (60, 6)])
def test_grids_have_full_rows(count, columns):
    """Guards against a last row that is half empty where another number of columns fills it."""
    assert cells.even_columns(count) == columns


def test_small_images_are_enlarged_without_steps():
    """Guards against the stair steps of nearest-neighbour enlargement, and against images made larger than needed."""
    image = Image.fromarray(np.array([[[0] * 3, [255] * 3]] * 2, np.uint8))
    assert len(np.unique(np.asarray(cells.smooth(image)))) > 50
    large = Image.new("RGB", (400, 300))
    assert cells.smooth(large) is large


def test_missing_glyphs_are_reported_once(monkeypatch, capsys):
    """Guards against the same hint from every figure of a command, and against none."""
    monkeypatch.setattr(fonts, "_system_fonts", list)
    monkeypatch.setattr(fonts, "_REPORTED", set())
    for _ in range(3):
        plots.confusion([[1, 0], [0, 1]], ["老虎", "ox"], "/dev/null")
    assert capsys.readouterr().err.count("no installed font shows") == 1
