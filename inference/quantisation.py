"""8-bit inference on the CPU: paddle's own post-training quantisation of the .pdmodel graph.

It needs paddle's static mode and old graph form, which would change everything else in a process; so it runs in one of
its own: `python -m inference.quantisation FOLDER PIXELS.npy`.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from inference.description import INT8_GRAPH, INT8_WEIGHTS, OLD_GRAPH, WEIGHTS
from system.errors import UserError

# Train images that the ranges of activations are taken from.
CALIBRATION_IMAGES = 128
CALIBRATION_BATCH = 4
# Ways of choosing the range of activations: all of it, or less the rarest values. Which is best differs from network to
# network, so each is tried. A cnn trained on CIFAR-10 (2,000 images, 75.90 % right) loses 1.15, 0.85 and 0.40 points
# with them; paddle's usual "KL" 0.85, "avg" 1.40, "mse" 1.85, "ptf" 8.35. A MobileNetV2 fine-tuned on photos loses none
# with them, and 13.64 with "KL". Bias correction, fusing batch norms first, more calibration images, and
# the first or last layer in 32 bits gain nothing here.
RANGES = {
    "all": {"algo": "abs_max"},
    "less_1e-5": {"algo": "hist", "hist_percent": 0.99999},
    "less_1e-4": {"algo": "hist", "hist_percent": 0.9999},
}
QUANTISED_OPERATORS = ["conv2d", "depthwise_conv2d", "mul", "matmul_v2"]


def quantise(folder: Path, images: np.ndarray) -> None:
    """Writes int8.pdmodel and int8.pdiparams beside inference.pdmodel.

    Args:
        folder: Holds the exported graph.
        images: Raw pixels uint8 [N, 3, H, W] of training images.

    Raises:
        UserError: Paddle cannot quantise this network.
    """
    pixels = folder / "calibration.npy"
    np.save(pixels, images)
    command = [sys.executable, "-m", "inference.quantisation", str(folder.resolve()), str(pixels.resolve())]
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


def _quantise_here(folder: Path, images: np.ndarray) -> None:
    """Tries every range and keeps the graph whose answers to the calibration images are closest to the full one's."""
    from inference import engines

    expected = _answers(engines.load(folder, "plain", "cpu", 2, images.shape[1:]), images)
    gaps = {}
    for name, options in RANGES.items():
        _quantise_by(options, folder, folder / name, images)
        got = _answers(engines.load(folder / name, "int8", "cpu", 2, images.shape[1:]), images)
        gaps[name] = float(np.nan_to_num(np.abs(got - expected).mean(), nan=np.inf))
    best = min(gaps, key=gaps.__getitem__)
    for file in (INT8_GRAPH, INT8_WEIGHTS):
        os.replace(folder / best / file, folder / file)
    for name in RANGES:
        shutil.rmtree(folder / name)


def _answers(engine: Callable[[np.ndarray], np.ndarray], images: np.ndarray) -> np.ndarray:
    batches = np.array_split(images, max(1, len(images) // CALIBRATION_BATCH))
    return np.concatenate([engine(np.ascontiguousarray(batch, np.float32)) for batch in batches])


def _quantise_by(options: dict[str, Any], folder: Path, target: Path, images: np.ndarray) -> None:
    import paddle
    from paddle.static.quantization import PostTrainingQuantization

    paddle.enable_static()
    batches = np.array_split(images, max(1, len(images) // CALIBRATION_BATCH))

    def loader() -> Iterator[dict[str, np.ndarray]]:
        for batch in batches:
            yield {"image": batch.astype(np.float32)}

    with paddle.static.scope_guard(paddle.static.Scope()), paddle.utils.unique_name.guard():
        quantiser = PostTrainingQuantization(
            executor=paddle.static.Executor(paddle.CPUPlace()),
            model_dir=str(folder),
            model_filename=OLD_GRAPH,
            params_filename=WEIGHTS,
            data_loader=loader,
            batch_nums=len(batches),
            **options,
            onnx_format=True,
            weight_quantize_type="channel_wise_abs_max",
            quantizable_op_type=QUANTISED_OPERATORS,
        )
        quantiser.quantize()
        quantiser.save_quantized_model(str(target), model_filename=INT8_GRAPH, params_filename=INT8_WEIGHTS)


if __name__ == "__main__":
    _quantise_here(Path(sys.argv[1]).resolve(), np.load(sys.argv[2]))
