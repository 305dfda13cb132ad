"""Figures, drawn without pyplot: backend and parameters of matplotlib stay a notebook's own."""

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from evaluation.axis_limits import Limits, precision_recall_limits, roc_limits
from evaluation.cells import COLUMNS, even_columns, smooth
from evaluation.fonts import choose_fonts
from system.text import counted

if TYPE_CHECKING:
    from evaluation.curves import Curves

NAMED_CLASSES = 40  # above it, matrices have no names and numbers
WORST = 4  # classes whose curves are drawn
# Inches of a panel, readable across a phone; dots an inch.
PANEL, DPI = (4.6, 4.3), 130
# Areas of dots, in square points: of the bin with most images, and the least that is seen.
LARGEST_DOT, SMALLEST_DOT = 220, 6
# How much of an overlay is the heat map, where it is hottest.
OPACITY = 0.6

# Names of classes and files are text; by default those between dollars are formulas. A decorator of every figure.
drawn = matplotlib.rc_context({"axes.unicode_minus": False, "text.parse_math": False})


def _subplots(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, Any]:
    """A figure without pyplot, which would show it in a notebook; its axes are an array [rows, columns]."""
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _save(figure: Figure, path: str | os.PathLike | io.BytesIO) -> None:
    # Without the software's version equal figures are equal bytes.
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    _save(figure, file)
    return file.getvalue()


@drawn
def curves(history: dict[str, list[float]], path: str | os.PathLike, best: float) -> None:
    """Draws loss and accuracy of training and validation by epoch, or by the strength of a penalty.

    Args:
        history: Columns of history.csv: epoch or strength, train_loss, valid_loss, train_accuracy, valid_accuracy.
        path: PNG to write.
        best: Epoch or strength to mark.
    """
    column = "epoch" if "epoch" in history else "strength"
    figure, (axes,) = _subplots(1, 2, (10, 4))
    for axis, metric in zip(axes, ("loss", "accuracy"), strict=True):
        for split, style in (("train", "C0-"), ("valid", "C1-o")):
            axis.plot(history[column], history[f"{split}_{metric}"], style, markersize=3, label=split)
        axis.axvline(best, color="0.4", linewidth=1, linestyle="--", label=f"best {column}: {best:g}")
        axis.set(xlabel=column, ylabel=metric)
        if column == "strength":
            axis.set_xscale("log")
            # Those that matplotlib makes are formulas, which are not parsed.
            axis.set_xticks(history[column], [f"{value:g}" for value in history[column]])
            axis.minorticks_off()
        else:
            axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    _save(figure, path)


@drawn
def learning_curve(curve: Sequence[Mapping[str, float]], path: str | os.PathLike) -> None:
    """Draws accuracy by number of training images a class, with the standard deviation over folds and draws.

    Args:
        curve: By growing number: images_per_class, accuracy, deviation.
        path: PNG to write.
    """
    sizes, accuracy, deviation = (
        np.array([point[key] for point in curve]) for key in ("images_per_class", "accuracy", "deviation")
    )
    figure, ((axis,),) = _subplots(1, 1, (PANEL[0], 3.2))
    axis.fill_between(sizes, accuracy - deviation, np.minimum(accuracy + deviation, 1), alpha=0.15, color="C0")
    axis.plot(sizes, accuracy, "C0-o", markersize=4)
    axis.set(xlabel="training images a class", ylabel="accuracy")
    if len(sizes) > 1:
        axis.set_xscale("log")
    axis.set_xticks(sizes, [f"{size:,.0f}" for size in sizes], fontsize=9)
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    _save(figure, path)


@drawn
def confusion(matrix: Sequence[Sequence[int]], class_names: Sequence[str], path: str | os.PathLike) -> None:
    """Draws a confusion matrix [C, C], coloured by the share of each row; names and numbers up to 40 classes."""
    choose_fonts(class_names)
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    named = len(class_names) <= NAMED_CLASSES
    side = max(4.5, 0.42 * len(class_names) + 2) if named else 10
    figure, ((axis,),) = _subplots(1, 1, (side, side * 0.9))
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    if named:
        for row, column in np.argwhere(counts):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, counts[row, column], ha="center", va="center", color=colour, fontsize=9)
        ticks = range(len(class_names))
        axis.set_xticks(ticks, class_names, rotation=60, ha="right", rotation_mode="anchor")
        axis.set_yticks(ticks, class_names)
    axis.set(xlabel="prediction" if named else "prediction (index)", ylabel="label" if named else "label (index)")
    axis.set_title(f"accuracy {np.trace(counts) / max(counts.sum(), 1):.1%}", fontsize=11)
    figure.colorbar(image, ax=axis, label="share of the label's images", shrink=0.7)
    _save(figure, path)


@drawn
def ranking(score: str, found: "Curves", scores: Mapping[int | str, float], class_names: Sequence[str]) -> bytes:
    """Draws the averages and the worst classes, on the part of the plane where their curves differ.

    Args:
        score: "roc_auc" for ROC curves, "average_precision" for precision-recall curves.
        found: From curves.roc_curves or curves.precision_recall_curves.
        scores: Of classes and averages, from curves.ranking_scores.
        class_names: Of the classes that the legend names.

    Returns:
        PNG.
    """
    choose_fonts(class_names)
    is_roc = score == "roc_auc"
    # Precision-recall points must not be joined by lines (Davis & Goadrich 2006): average precision sums steps.
    style, short = ("default", "AUC") if is_roc else ("steps-post", "AP")
    figure, ((axis,),) = _subplots(1, 1, PANEL)
    classes = sorted((key for key in found if not isinstance(key, str)), key=scores.__getitem__)
    averages: list[int | str] = [key for key in ("macro", "micro") if key in found]
    for place, index in enumerate(classes[:WORST]):
        name = f"{class_names[index]}: {scores[index]:.3f}"
        axis.plot(*found[index], f"C{place}", linewidth=1.3, label=name, drawstyle=style)
    for key in averages:
        line = "k--" if key == "macro" else "k-"
        axis.plot(*found[key], line, linewidth=2, label=f"{key} average: {scores[key]:.3f}", drawstyle=style)
    shown = [found[key] for key in [*classes[:WORST], *averages]]
    if is_roc:
        axis.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=":")
        _limit(axis, roc_limits(shown), ("false positive rate", "true positive rate"))
    else:
        _limit(axis, precision_recall_limits(shown), ("recall", "precision"))
    title = short if len(classes) <= WORST else f"{short}, the lowest {WORST} of {len(classes)} classes"
    axis.legend(title=title, fontsize=8, title_fontsize=8, loc="lower right" if is_roc else "lower left")
    return _png(figure)


def _limit(axis: Axes, limits: Limits, names: tuple[str, str]) -> None:
    """Sets limits with a margin, and says so where they are not 0 to 1."""
    (left, right), (low, high) = ((a - 0.02 * (b - a), b + 0.02 * (b - a)) for a, b in limits)
    x_name, y_name = (name if span == (0, 1) else f"{name} (zoomed)" for name, span in zip(names, limits, strict=True))
    axis.set(xlabel=x_name, ylabel=y_name, xlim=(left, right), ylim=(low, high))
    axis.grid(alpha=0.3)


@drawn
def reliability(title: str, rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Draws accuracy by confidence: a dot a bin, of an area by its number of images, with its interval.

    Args:
        title: Over the panel.
        rows: From curves.reliability.

    Returns:
        PNG.
    """
    figure, ((axis,),) = _subplots(1, 1, PANEL)
    counts = np.array([row["count"] for row in rows])
    x, y = (np.array([row[key] for row in rows]) for key in ("confidence", "accuracy"))
    low, high = np.array([row["interval"] for row in rows]).T
    axis.plot([0, 1], [0, 1], color="0.5", linewidth=1, linestyle=":", label="confidence = accuracy")
    bars = np.maximum([y - low, high - y], 0)
    axis.errorbar(x, y, bars, fmt="none", color="C0", linewidth=1.2, capsize=2, label="95 % interval")
    area = LARGEST_DOT / counts.max()
    axis.scatter(x, y, np.maximum(area * counts, SMALLEST_DOT), color="C0", zorder=3, clip_on=False)
    for count in sorted({int(counts.min()), int(counts.max())}):
        size = max(area * count, SMALLEST_DOT)
        axis.scatter([], [], size, color="C0", label=f"accuracy of {counted(count, 'image')}")
    axis.set(title=title, xlabel="confidence", ylabel="accuracy", xlim=(0, 1.02), ylim=(-0.02, 1.02))
    axis.grid(alpha=0.3)
    figure.legend(fontsize=8, loc="outside lower center", ncols=2)
    return _png(figure)


@drawn
def coverage(curve: tuple[np.ndarray, np.ndarray], point: tuple[float, float] | None, path: str | os.PathLike) -> None:
    """Draws accuracy of the accepted images by coverage, and the point of the threshold (coverage, accuracy)."""
    figure, ((axis,),) = _subplots(1, 1, PANEL)
    axis.plot(*curve, "C0-", label="least confident rejected first")
    if point:
        axis.plot(*point, "C3o", markersize=8, label=f"threshold: coverage {point[0]:.1%}, accuracy {point[1]:.1%}")
    low = min(curve[1].min(), curve[1][-1])
    axis.set(
        xlabel="coverage", ylabel="accuracy of the accepted images", xlim=(0, 1.01), ylim=(max(0, low - 0.05), 1.01)
    )
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="lower left")
    _save(figure, path)


def overlay(image: Image.Image, heatmap: np.ndarray) -> Image.Image:
    """Blends a heat map float [h, w], 0..1, over an RGB image of the same crop, of any size."""
    small = Image.fromarray(np.uint8(np.rint(heatmap * 255)))
    heat = np.asarray(small.resize(image.size, Image.Resampling.BICUBIC), np.float64)[..., None] / 255
    mixed = np.asarray(image, np.float64) * (1 - OPACITY * heat) + OPACITY * heat * _heat_colours(heat[..., 0])
    return Image.fromarray(np.uint8(np.rint(mixed)))


def _heat_colours(heat: np.ndarray) -> np.ndarray:
    """Colours float [...] in 0..1, cold blue to hot red, as float [..., 3] in 0..255."""
    # The last tenth of the scale turns dark, which would look like less heat.
    return matplotlib.colormaps["turbo"](0.9 * heat)[..., :3] * 255


@drawn
def grid(
    images: Sequence[Image.Image],
    captions: Sequence[str],
    path: str | os.PathLike,
    columns: int = COLUMNS,
    title: str = "",
    marked: Sequence[bool] = (),
) -> None:
    """Draws images with a caption under each, of one or more lines; those that are marked in a red frame."""
    choose_fonts([*captions, title])
    columns = even_columns(len(images), columns)
    rows = -(-len(images) // columns)
    # A line of a caption takes 0.15 inches, the title with its margin 0.35.
    height = rows * (2.15 + 0.15 * max(caption.count("\n") + 1 for caption in captions)) + 0.35 * bool(title)
    figure, axes = _subplots(rows, columns, (2 * columns, height))
    if title:
        figure.suptitle(title, fontsize=9)
    for axis in axes.flat:
        axis.axis("off")
    for number, (axis, image, caption) in enumerate(zip(axes.flat, images, captions, strict=False)):
        axis.imshow(smooth(image))
        # At the top of its cell: what is left is the caption's.
        axis.set_anchor("N")
        axis.set_title(caption, fontsize=9, y=-0.05, va="top")
        if number < len(marked) and marked[number]:
            frame = Rectangle((0, 0), 1, 1, transform=axis.transAxes, fill=False, color="C3", linewidth=4)
            frame.set_clip_on(False)
            axis.add_patch(frame)
    _save(figure, Path(path))
