"""Static graphs: raw pixels in, probabilities out."""

import os
import shutil
from pathlib import Path

import paddle
from paddle.pir_utils import DygraphOldIrGuard
from paddle.static import InputSpec

from inference.names import GRAPH, OLD_GRAPH, WEIGHTS
from inference.native_output import suppressed
from system.files import file_digest
from system.windows import native_folder

# A line of paddle 3.2.2 for every graph it writes, about an argument that is not used here.
HARMLESS = "not support input out tensor"


class Served(paddle.nn.Layer):
    """A network with temperature and softmax, because PaddleX and other clients only sort what the graph returns."""

    def __init__(self, classifier: paddle.nn.Layer, temperature: float):
        super().__init__()
        self.classifier = classifier
        self.temperature = float(temperature)

    def forward(self, image: paddle.Tensor) -> paddle.Tensor:
        """Raw pixels float32 [N, 3, H, W], 0..255, to probabilities float32 [N, C]."""
        return paddle.nn.functional.softmax(self.classifier(image) / self.temperature, axis=-1)


def write_graphs(classifier: paddle.nn.Layer, image_shape: tuple[int, ...], temperature: float, folder: Path) -> str:
    """Writes the graph twice, as .json and as .pdmodel, over one weights file.

    The OpenVINO and TensorRT engines of Paddle Inference and the quantiser know the old form only: given a .json, the
    former run without themselves and without a warning (3.2.2).

    Returns:
        Why there is no .pdmodel, which some networks outside paddle.vision cannot be written as; "" if there is.

    Raises:
        RuntimeError: The two forms want different weights.
    """
    _save(classifier, image_shape, temperature, folder)
    digest = file_digest(folder / WEIGHTS)
    old = folder / "old"
    reason = ""
    try:
        with DygraphOldIrGuard():
            _save(classifier, image_shape, temperature, old)
    # Paddle's functions raise whatever they make of a kind of graph that they no longer know.
    except (TypeError, ValueError, AttributeError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
    else:
        if file_digest(old / WEIGHTS) != digest:
            raise RuntimeError(f"{GRAPH} and {OLD_GRAPH} do not share their weights")
        os.replace(old / OLD_GRAPH, folder / OLD_GRAPH)
    shutil.rmtree(old, ignore_errors=True)
    return reason


def _save(classifier: paddle.nn.Layer, image_shape: tuple[int, ...], temperature: float, folder: Path) -> None:
    save_graph(Served(classifier, temperature), image_shape, folder)


def save_graph(layer: paddle.nn.Layer, image_shape: tuple[int, ...], folder: Path) -> None:
    """Writes the graph of a layer that takes raw pixels float32 [N, 3, H, W], and its weights."""
    layer.eval()
    spec = InputSpec([None, *image_shape], "float32", "image")
    folder.mkdir(parents=True, exist_ok=True)
    with suppressed(HARMLESS), native_folder(folder) as place:
        paddle.jit.save(layer, str(place / "inference"), input_spec=[spec])
