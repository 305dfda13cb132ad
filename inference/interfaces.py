"""Interfaces: a model, a loaded graph, and an optional engine that brings a graph of its own."""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from system.settings import Settings

if TYPE_CHECKING:  # export.py --help loads this, and none of these
    import numpy as np
    import paddle.inference

    from imaging.transforms import EvalTransform


class Model(Protocol):
    """A run or an export that predicts.

    Attributes:
        class_names: Label map.
        transform: Preprocessing of its images.
        threshold: An image whose highest probability is below it is none of the classes; None: every image is one.
    """

    class_names: list[str]
    transform: "EvalTransform"
    threshold: float | None

    @property
    def identity(self) -> str:
        """Text that differs from that of every model with other predictions."""

    def predict(self, images: "np.ndarray") -> "np.ndarray":
        """Turns raw pixels uint8 [N, 3, H, W] into probabilities float32 [N, C]."""


class Engine(Protocol):
    """A loaded graph."""

    def __call__(self, images: "np.ndarray") -> "np.ndarray":
        """Turns raw pixels float32 [N, 3, H, W], 0..255, into probabilities float32 [N, C]."""


class ExtraEngine:
    """An engine whose files export.py writes only on request.

    Modules of such engines do not import paddle, because export.py reads their options before it is loaded.

    Attributes:
        name: Value of the setting `engine`.
        option: Option of export.py that writes the files, without dashes.
        help: What `export.py --help` says about the option.
        graph: File name of the graph.
        weights: File name of the weights; the graph's where one file holds both.
        is_exact: True if its probabilities must be the run's. False: it is verified by its accuracy, and `auto` never
            chooses it.
    """

    name: str
    option: str
    help: str
    graph: str
    weights: str
    is_exact = True

    def check(self) -> None:
        """Checks, before anything is exported, that the files can be written.

        Raises:
            UserError: A library is not installed.
        """

    def write(self, folder: Path, settings: Settings, transform: "EvalTransform") -> None:
        """Writes graph and weights beside the graphs that the folder holds.

        Raises:
            UserError: The network cannot be converted.
        """
        raise NotImplementedError

    def problem(self) -> str:
        """Returns why the engine cannot run on this machine, and the remedy; "" if it can."""
        return ""

    def load(self, folder: Path, threads: int) -> Engine | None:
        """Loads the graph; None: Paddle Inference loads it, with oneDNN and what `configure` adds."""
        return None

    def configure(self, options: "paddle.inference.Config") -> None:
        """Adds options for Paddle Inference; only called where `load` returns None."""
