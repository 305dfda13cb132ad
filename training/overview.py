"""Overview of a new run: the table of its layers, and the first batch as the network receives it."""

import contextlib
import io
import os

import numpy as np
import paddle
from PIL import Image

from evaluation import plots
from evaluation.cells import even_columns
from models.classifier import Classifier
from system.publishing import write_text
from system.settings import Settings
from training.session import Session

# Images of augmented.png, at most; those of full rows are drawn.
SHOWN = 24


def draw_first_batch(session: Session, class_names: list[str]) -> np.ndarray:
    """Draws the first batch of a new run as augmented.png; returns its images, uint8 [N, 3, H, W]."""
    loader, file = session.loader, session.run.path / "augmented.png"
    loader.epoch = loader.dataset.epoch = 1
    images, labels = loader.collate(0, loader.batches()[0][:SHOWN])
    if not file.exists():
        shown = [Image.fromarray(image.transpose(1, 2, 0)) for image in images]
        full = len(shown) - len(shown) % even_columns(len(shown))
        plots.grid(shown[:full], [_caption(label, class_names) for label in labels[:full]], file)
    return images


def _caption(label: np.ndarray, class_names: list[str]) -> str:
    """Returns the class name, or a line for each of the classes that a mixed image is made of."""
    if label.ndim == 0:
        return class_names[int(label)]
    return "\n".join(
        f"{class_names[index]} {label[index]:.0%}" for index in np.argsort(-label)[:2] if label[index] >= 0.005
    )


def write_summary(network: Classifier, settings: Settings, path: str | os.PathLike) -> None:
    """Writes paddle.summary's table of layers, output sizes and weights to a file."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        paddle.summary(network.network, (1, *settings.image_shape))
    write_text(path, text.getvalue())
