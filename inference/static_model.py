"""Static models without inference.yml, as paddle.Model.save(training=False) and paddle.jit.save write them."""

import os
from pathlib import Path

import numpy as np
import paddle

from annotation.lists import LABELS, read_labels
from imaging.transforms import EvalTransform
from inference import engines
from inference.names import DESCRIPTION, EXAMPLE
from system.errors import UserError
from system.files import file_digest
from system.settings import Settings

GRAPHS, WEIGHTS = (".json", ".pdmodel"), ".pdiparams"
# How far from 1 the sum of a row may be that holds probabilities.
TOLERANCE = 1e-3


def find_graph(path: str | os.PathLike) -> tuple[Path, Path] | None:
    """Finds graph and weights of a static model that no inference.yml describes.

    Args:
        path: A prefix, one of the two files, or a folder that holds one such model.

    Returns:
        The two files; None where there is no such model, or where it is (what is left of) an export of export.py.
    """
    named = Path(path)
    if named.is_dir():
        if (named / DESCRIPTION).exists() or (named / EXAMPLE).exists():
            return None
        weights = sorted(named.glob(f"*{WEIGHTS}"))
    else:
        prefix = named.with_suffix("") if named.suffix in (*GRAPHS, WEIGHTS) else named
        weights = [Path(f"{prefix}{WEIGHTS}")]
        if (named.parent / DESCRIPTION).exists():
            return None
    found = [
        (graph, file)
        for file in weights
        for graph in [Path(f"{os.fspath(file).removesuffix(WEIGHTS)}{suffix}") for suffix in GRAPHS]
        if file.is_file() and graph.is_file()
    ]
    if len({file for _, file in found}) > 1:
        names = ", ".join(str(graph.with_suffix("")) for graph, _ in found)
        raise UserError(f"{path}: holds several models; name one: {names}")
    return found[0] if found else None


class StaticModel:
    """A static model whose preprocessing and classes are assumed to be those of the settings; see Model.

    Attributes:
        assumed: What is assumed, in one line.
    """

    threshold: float | None = None

    def __init__(self, graph: Path, weights: Path, settings: Settings, device: str, threads: int):
        """Loads the files that `find_graph` found.

        Raises:
            UserError: The engine does not run it, it takes images of another size than image_shape, or labels.txt is
                missing or has another number of classes.
        """
        self.path, self.weights = graph.with_suffix(""), weights
        self.class_names = read_labels(settings.lists / LABELS)
        self.transform = EvalTransform.from_settings(settings)
        self.is_raw = _takes_raw_pixels(self.path, settings.image_shape)
        mean, std = (np.reshape(values, (1, 3, 1, 1)) for values in (settings.mean, settings.std))
        self.scale, self.shift = np.float32(1 / (255 * std)), np.float32(-mean / std)
        engine = _choose_engine(graph, settings.engine, device)
        try:
            self._run = engines.load_graph(graph, weights, engine, device, threads, settings.image_shape)
            outputs = self._run(self._input(np.zeros((1, *settings.image_shape), np.uint8)))
        # Paddle raises types of its own, all of them below Exception.
        except Exception as error:
            raise UserError(
                f"{self.path}: engine={engine}: cannot run the graph ({engines.last_line(error)}); save it again"
            ) from None
        if outputs.shape != (1, len(self.class_names)):
            raise UserError(
                f"{self.path}: returns {list(outputs.shape)} for one image, {settings.lists / LABELS} has "
                f"{len(self.class_names)} classes; name the data it was trained on, data_dir=FOLDER"
            )
        self.is_probability = bool(outputs.min() >= 0 and abs(outputs.sum() - 1) < TOLERANCE)
        self.assumed = self._assumed(settings)

    def _assumed(self, settings: Settings) -> str:
        _, height, width = settings.image_shape
        pixels = f"float32, normalised by mean {list(settings.mean)} and std {list(settings.std)}"
        return (
            f"{self.path}: there is no {DESCRIPTION}; assumed from config.yaml: images of {width}x{height} "
            f"(resize={settings.resize}), {'uint8, 0 to 255' if self.is_raw else pixels}, the classes of "
            f"{settings.lists / LABELS}; its outputs are {'probabilities' if self.is_probability else 'logits'}"
        )

    @property
    def identity(self) -> str:
        """Digest of the weights, and what is assumed."""
        return f"{file_digest(self.weights)} {self.assumed}"

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Computes probabilities float32 [N, C] of raw pixels uint8 [N, 3, H, W]."""
        outputs = self._run(self._input(images))
        if self.is_probability:
            return outputs
        powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def _input(self, images: np.ndarray) -> np.ndarray:
        if self.is_raw:
            return np.ascontiguousarray(images)
        return np.ascontiguousarray(images * self.scale + self.shift, dtype=np.float32)


def _takes_raw_pixels(prefix: Path, image_shape: tuple[int, ...]) -> bool:
    """Returns whether the graph's one input is of whole numbers, which cannot be normalised.

    Raises:
        UserError: The graph cannot be read, has several inputs, or takes other images.
    """
    try:
        inputs = paddle.jit.load(str(prefix))._input_spec()
    # Whatever a damaged file makes paddle raise.
    except Exception as error:
        raise UserError(
            f"{prefix}: cannot be read as a static model ({engines.last_line(error)}); save it again"
        ) from None
    shape = list(inputs[0].shape) if len(inputs) == 1 else []
    fits = len(shape) == 4 and all(side in (-1, own) for side, own in zip(shape[1:], image_shape, strict=True))
    if not fits:
        raise UserError(
            f"{prefix}: takes {[list(one.shape) for one in inputs]}, not [N, {', '.join(map(str, image_shape))}]; "
            f"set image_shape={shape[1:] if len(shape) == 4 else '[3,H,W]'}"
        )
    return inputs[0].dtype in (paddle.uint8, paddle.int32, paddle.int64)


def _choose_engine(graph: Path, engine: str, device: str) -> str:
    if device.startswith("gpu") and engine in ("auto", "gpu"):
        return "gpu"
    able = ("onednn", "plain", *(("openvino",) if graph.suffix == ".pdmodel" else ()))
    if engine not in ("auto", *able):
        raise UserError(f"{graph}: engine={engine}: does not run this file; use engine={' or '.join(able)}")
    return "onednn" if engine == "auto" else engine
