"""Figures: the only importer of matplotlib."""

import os
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import font_manager
from PIL import Image

# Fonts with Chinese, Japanese and Korean glyphs, as Linux, macOS and Windows name them.
CJK_FONTS = ("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei",
             "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", "SimHei", "Droid Sans Fallback")  # fmt: skip
_installed = {font.name for font in font_manager.fontManager.ttflist}
plt.rcParams["font.family"] = [*(name for name in CJK_FONTS if name in _installed), "DejaVu Sans"][::-1]
plt.rcParams["axes.unicode_minus"] = False


def _save(figure: plt.Figure, path: str | os.PathLike) -> None:
    # No software version in the file, so that equal figures are equal bytes.
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)


def curves(history: dict[str, list[float]], path: str | os.PathLike) -> None:
    """Draws loss and accuracy of training and validation by epoch.

    Args:
        history: Columns of history.csv: epoch, train_loss, valid_loss, train_accuracy, valid_accuracy.
        path: PNG to write.
    """
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, measure in zip(axes, ("loss", "accuracy"), strict=True):
        for split, style in (("train", "C0-"), ("valid", "C1-o")):
            axis.plot(history["epoch"], history[f"{split}_{measure}"], style, markersize=3, label=split)
        axis.set(xlabel="epoch", ylabel=measure)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    _save(figure, path)


def confusion(matrix: Sequence[Sequence[int]], class_names: Sequence[str], path: str | os.PathLike) -> None:
    """Draws a confusion matrix [C, C], coloured by the share of each row; numbers up to 40 classes."""
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = max(4, 0.45 * len(class_names) + 2)
    figure, axis = plt.subplots(figsize=(side, side * 0.9), layout="constrained")
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(class_names) <= 40:
        for row, column in np.argwhere(counts):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, counts[row, column], ha="center", va="center", color=colour, fontsize=9)
        ticks = range(len(class_names))
        axis.set_xticks(ticks, class_names, rotation=60, ha="right", rotation_mode="anchor")
        axis.set_yticks(ticks, class_names)
    axis.set(xlabel="prediction", ylabel="label")
    _save(figure, path)


def grid(images: Sequence[Image.Image], captions: Sequence[str], path: str | os.PathLike, columns: int = 6) -> None:
    """Draws pictures with a caption under each."""
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2 * columns, 2.45 * rows), layout="constrained", squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, caption in zip(axes.flat, images, captions, strict=False):
        axis.imshow(image)
        axis.set_title(caption, fontsize=9, y=-0.02, va="top")
    _save(figure, Path(path))
