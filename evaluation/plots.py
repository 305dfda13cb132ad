"""Figures: the only importer of matplotlib."""

import functools
import os
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from PIL import Image

# Beginnings of the file names of common fonts with Chinese, Japanese and Korean glyphs, preferred ones first.
CJK_FILES = ("notosanscjk", "notosanssc", "sourcehansans", "wqy", "pingfang", "hiragino", "msyh", "simhei", "droidsans")
# Above it, matrices have no names and numbers; above NAMED_CURVES, curves of single classes are not named.
NAMED_CLASSES = 40
NAMED_CURVES = 12

plt.rcParams["axes.unicode_minus"] = False
# Names of classes and files are text; without this, those between dollars are formulas.
plt.rcParams["text.parse_math"] = False


def choose_fonts(texts: Iterable[str]) -> None:
    """Sets fonts that show these texts: adds installed fonts until every character has a glyph.

    Characters that no font has are reported in one line on stderr and drawn as boxes.
    """
    missing = {character for text in texts for character in text if character.isprintable()}
    missing -= _glyphs(font_manager.findfont("DejaVu Sans"))
    if not missing:
        return
    families = []
    for path in _system_fonts():
        if covered := missing & _glyphs(path):
            # matplotlib's list of fonts lacks those installed after it was made.
            font_manager.fontManager.addfont(path)
            families.append(FT2Font(path).family_name)
            missing -= covered
        if not missing:
            break
    plt.rcParams["font.family"] = ["DejaVu Sans", *families]
    if missing:
        shown = "".join(sorted(missing)[:10])
        print(f"figures: no installed font shows {shown}; install one, such as fonts-noto-cjk", file=sys.stderr)
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")


def _system_fonts() -> list[str]:
    def rank(path: str) -> tuple[int, str]:
        name = Path(path).name.lower().replace("-", "").replace("_", "")
        # Bold faces of a family look wrong as body text.
        return next((i for i, start in enumerate(CJK_FILES) if name.startswith(start)), 99) + 50 * (
            "bold" in name
        ), path

    return sorted(font_manager.findSystemFonts(), key=rank)


@functools.cache
def _glyphs(path: str) -> frozenset[str]:
    try:
        return frozenset(map(chr, FT2Font(path).get_charmap()))
    # FreeType does not open some bitmap and emoji fonts.
    except (RuntimeError, OSError):
        return frozenset()


def _save(figure: plt.Figure, path: str | os.PathLike) -> None:
    # Without the software's version equal figures are equal bytes.
    figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)


def curves(history: dict[str, list[float]], path: str | os.PathLike) -> None:
    """Draws loss and accuracy of training and validation by epoch, or by the strength of a penalty.

    Args:
        history: Columns of history.csv: epoch or strength, train_loss, valid_loss, train_accuracy, valid_accuracy.
        path: PNG to write.
    """
    column = "epoch" if "epoch" in history else "strength"
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, metric in zip(axes, ("loss", "accuracy"), strict=True):
        for split, style in (("train", "C0-"), ("valid", "C1-o")):
            axis.plot(history[column], history[f"{split}_{metric}"], style, markersize=3, label=split)
        axis.set(xlabel=column, ylabel=metric)
        if column == "strength":
            axis.set_xscale("log")
        else:
            axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    _save(figure, path)


def learning_curve(curve: Sequence[Mapping[str, float]], path: str | os.PathLike) -> None:
    """Draws accuracy by number of training images a class, with the standard deviation over folds and draws.

    Args:
        curve: By growing number: images_per_class, accuracy, deviation.
        path: PNG to write.
    """
    sizes, accuracy, deviation = (
        np.array([point[key] for point in curve]) for key in ("images_per_class", "accuracy", "deviation")
    )
    figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
    axis.fill_between(sizes, accuracy - deviation, np.minimum(accuracy + deviation, 1), alpha=0.15, color="C0")
    axis.plot(sizes, accuracy, "C0-o", markersize=4)
    axis.set(xlabel="training images a class", ylabel="accuracy")
    if len(sizes) > 1:
        axis.set_xscale("log")
    axis.set_xticks(sizes, [f"{size:,.0f}" for size in sizes])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    _save(figure, path)


def confusion(matrix: Sequence[Sequence[int]], class_names: Sequence[str], path: str | os.PathLike) -> None:
    """Draws a confusion matrix [C, C], coloured by the share of each row; names and numbers up to 40 classes."""
    choose_fonts(class_names)
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    named = len(class_names) <= NAMED_CLASSES
    side = max(4.5, 0.42 * len(class_names) + 2) if named else 10
    figure, axis = plt.subplots(figsize=(side, side * 0.9), layout="constrained")
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    if named:
        for row, column in np.argwhere(counts):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, counts[row, column], ha="center", va="center", color=colour, fontsize=9)
        ticks = range(len(class_names))
        axis.set_xticks(ticks, class_names, rotation=60, ha="right", rotation_mode="anchor")
        axis.set_yticks(ticks, class_names)
    axis.set(xlabel="prediction" if named else "prediction (index)", ylabel="label" if named else "label (index)")
    figure.colorbar(image, ax=axis, label="share of the label's images", shrink=0.7)
    _save(figure, path)


def ranking(
    roc: Mapping[int | str, tuple[np.ndarray, np.ndarray]],
    precision_recall: Mapping[int | str, tuple[np.ndarray, np.ndarray]],
    scores: Mapping[str, Mapping[int | str, float]],
    class_names: Sequence[str],
    path: str | os.PathLike,
) -> None:
    """Draws ROC and precision-recall curves side by side: averages in bold, classes thin.

    Args:
        roc: From curves.roc_curves.
        precision_recall: From curves.precision_recall_curves.
        scores: From curves.ranking_scores.
        class_names: Named in the legend up to NAMED_CURVES.
        path: PNG to write.
    """
    choose_fonts(class_names)
    figure, axes = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
    panels = (
        (axes[0], roc, "roc_auc", "false positive rate", "true positive rate", "AUC"),
        (axes[1], precision_recall, "average_precision", "recall", "precision", "AP"),
    )
    for axis, found, score, x_name, y_name, short in panels:
        classes = [key for key in found if not isinstance(key, str)]
        for index in classes:
            label = f"{class_names[index]}: {scores[score][index]:.3f}" if len(classes) <= NAMED_CURVES else None
            colour = plt.colormaps["tab20"](index % 20) if label else "0.7"
            axis.plot(*found[index], linewidth=1, color=colour, label=label, drawstyle=_style(score))
        for key, line in (("macro", "k--"), ("micro", "k-")):
            if key in found:
                axis.plot(*found[key], line, linewidth=2, label=f"{key} average: {scores[score][key]:.3f}")
        axis.set(xlabel=x_name, ylabel=y_name, xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, title=short, loc="lower right" if score == "roc_auc" else "lower left")
    axes[0].plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=":")
    _save(figure, path)


def _style(score: str) -> str:
    # Precision-recall points must not be joined by lines (Davis & Goadrich 2006): average precision sums steps.
    return "steps-post" if score == "average_precision" else "default"


def reliability(panels: Mapping[str, Sequence[Mapping[str, float]]], path: str | os.PathLike) -> None:
    """Draws accuracy by confidence, one panel for each set of bins (curves.reliability), with the bins' shares."""
    figure, axes = plt.subplots(1, len(panels), figsize=(5.5 * len(panels), 5), layout="constrained", squeeze=False)
    for axis, (title, rows) in zip(axes[0], panels.items(), strict=True):
        left, width = [row["low"] for row in rows], [row["high"] - row["low"] for row in rows]
        total = sum(row["count"] for row in rows)
        shares = [row["count"] / total for row in rows]
        axis.bar(left, shares, width, align="edge", color="0.88", edgecolor="white", label="share of the images")
        axis.plot([0, 1], [0, 1], color="0.5", linewidth=1, linestyle=":", label="confidence = accuracy")
        points = [row["confidence"] for row in rows], [row["accuracy"] for row in rows]
        axis.plot(*points, "C0-o", markersize=5, label="accuracy")
        axis.vlines(
            points[0], *np.sort([points[0], points[1]], axis=0), color="C3", linewidth=2, alpha=0.6, label="gap"
        )
        axis.set(title=title, xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="upper left")
    _save(figure, path)


def coverage(curve: tuple[np.ndarray, np.ndarray], point: tuple[float, float] | None, path: str | os.PathLike) -> None:
    """Draws accuracy of the accepted images by coverage, and the point of the threshold (coverage, accuracy)."""
    figure, axis = plt.subplots(figsize=(5.5, 4.2), layout="constrained")
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


def heat_colours(heat: np.ndarray) -> np.ndarray:
    """Colours float [...] in 0..1, cold blue to hot red, as float [..., 3] in 0..255."""
    # The last tenth of the scale turns dark, which would look like less heat.
    return plt.colormaps["turbo"](0.9 * heat)[..., :3] * 255


def grid(
    images: Sequence[Image.Image],
    captions: Sequence[str],
    path: str | os.PathLike,
    columns: int = 6,
    title: str = "",
    marked: Sequence[bool] = (),
) -> None:
    """Draws images with a caption under each, of one or more lines; those that are marked in a red frame."""
    choose_fonts([*captions, title])
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    # A line of a caption takes 0.15 inches, the title with its margin 0.35.
    height = rows * (2.15 + 0.15 * max(caption.count("\n") + 1 for caption in captions)) + 0.35 * bool(title)
    figure, axes = plt.subplots(rows, columns, figsize=(2 * columns, height), layout="constrained", squeeze=False)
    if title:
        figure.suptitle(title, fontsize=9)
    for axis in axes.flat:
        axis.axis("off")
    for number, (axis, image, caption) in enumerate(zip(axes.flat, images, captions, strict=False)):
        axis.imshow(image)
        # At the top of its cell: what is left is the caption's.
        axis.set_anchor("N")
        axis.set_title(caption, fontsize=9, y=-0.05, va="top")
        if number < len(marked) and marked[number]:
            frame = plt.Rectangle((0, 0), 1, 1, transform=axis.transAxes, fill=False, color="C3", linewidth=4)
            frame.set_clip_on(False)
            axis.add_patch(frame)
    _save(figure, Path(path))
