"""INT8 on the CPU: an 8-bit graph by post-training quantisation, and its engine (optional)."""

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from annotation.lists import read_split
from inference.interfaces import ExtraEngine
from system.errors import UserError
from system.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    import paddle.inference

    from imaging.transforms import EvalTransform

INT8_GRAPH, INT8_WEIGHTS = "int8.pdmodel", "int8.pdiparams"
# Training images that the ranges of activations are taken from.
CALIBRATION_IMAGES = 128


class Int8(ExtraEngine):
    """The 8-bit graph on oneDNN."""

    name, option = "int8", "int8"
    help = "also write an 8-bit graph for the CPU, if it keeps the accuracy"
    graph, weights = INT8_GRAPH, INT8_WEIGHTS
    is_exact = False

    def write(self, folder: Path, settings: Settings, transform: "EvalTransform") -> None:
        """Quantises inference.pdmodel, calibrated on training images."""
        quantise(folder, calibration_images(settings, transform))

    def configure(self, options: "paddle.inference.Config") -> None:
        """Turns on the 8-bit kernels: without them the 8-bit graph is slower than the plain one."""
        options.enable_mkldnn_int8()


INT8 = Int8()


def calibration_images(settings: Settings, transform: "EvalTransform") -> "np.ndarray":
    """Reads training images for the quantiser, evenly from the whole list: uint8 [N, 3, H, W].

    Raises:
        UserError: There is no train list, or an image cannot be read.
    """
    # Late, here and below: export.py --help reads the option of this module, and loads no numpy.
    import numpy as np

    samples, _ = read_split(settings, "train")
    chosen = np.unique(np.linspace(0, len(samples) - 1, CALIBRATION_IMAGES).round().astype(int))
    return np.stack([transform.read(samples[i].file, settings.max_pixels) for i in chosen.tolist()])


def quantise(folder: Path, images: "np.ndarray") -> None:
    """Writes int8.pdmodel and int8.pdiparams beside inference.pdmodel.

    The quantiser needs paddle's static mode and old graph form, which would change everything else in this process, so
    it runs in one of its own.

    Args:
        folder: Holds the exported graph.
        images: Raw pixels uint8 [N, 3, H, W] of training images.

    Raises:
        UserError: Paddle cannot quantise this network.
    """
    import numpy as np

    pixels = folder / "calibration.npy"
    np.save(pixels, images)
    command = [sys.executable, "-m", "inference.quantisation_process", str(folder.resolve()), str(pixels.resolve())]
    # Static mode under the new graph form has no quantisation yet.
    environment = os.environ | {"FLAGS_enable_pir_api": "0"}
    try:
        done = subprocess.run(
            command, env=environment, cwd=Path(__file__).parents[1], capture_output=True, text=True, errors="replace"
        )
    finally:
        pixels.unlink()
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()] or [f"exit {done.returncode}"]
        raise UserError(f"--int8: paddle cannot quantise this network ({lines[-1]}); export without --int8")
