"""8-bit inference on the CPU: paddle's own post-training quantisation of the .pdmodel graph.

It needs paddle's static mode and old graph form, which would change everything else in a process; so it runs in one of
its own: `python -m deployment.quantisation FOLDER PIXELS.npy`.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from config import UserError
from deployment.description import INT8_GRAPH, INT8_WEIGHTS, OLD_GRAPH, WEIGHTS

# Train pictures that the ranges of activations are taken from.
CALIBRATION_PICTURES = 128
CALIBRATION_BATCH = 4
# Two ways of choosing the range of activations: all of it, or less the rarest values. Which is better differs from
# network to network, so both are tried. On a small trained network, 240 pictures, they kept the first class on 98.8 and
# 97.9 %; "KL" on 95.8, paddle's usual "avg" on 95.0, "mse" on 88.8.
ALGORITHMS = ("abs_max", "hist")
QUANTISED_OPERATORS = ["conv2d", "depthwise_conv2d", "mul", "matmul_v2"]


def quantise(folder: Path, images: np.ndarray) -> None:
    """Writes int8.pdmodel and int8.pdiparams beside inference.pdmodel.

    Args:
        folder: Holds the exported graph.
        images: Raw pixels uint8 [N, 3, H, W] of training pictures.

    Raises:
        UserError: Paddle cannot quantise this network.
    """
    pixels = folder / "calibration.npy"
    np.save(pixels, images)
    command = [sys.executable, "-m", "deployment.quantisation", str(folder.resolve()), str(pixels.resolve())]
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
    """Tries every algorithm and keeps the graph that is closest to the full one on the calibration pictures."""
    from deployment import engines

    expected = _answers(engines.load(folder, "plain", "cpu", 2, images.shape[1:]), images)
    scores = {}
    for algorithm in ALGORITHMS:
        draft = folder / algorithm
        _quantise_by(algorithm, folder, draft, images)
        got = _answers(engines.load(draft, "int8", "cpu", 2, images.shape[1:]), images)
        same = int((got.argmax(axis=1) == expected.argmax(axis=1)).sum())
        scores[algorithm] = (same, -float(np.abs(got - expected).mean()))
    best = max(ALGORITHMS, key=lambda algorithm: np.nan_to_num(scores[algorithm], nan=-np.inf).tolist())
    for name in (INT8_GRAPH, INT8_WEIGHTS):
        os.replace(folder / best / name, folder / name)
    for algorithm in ALGORITHMS:
        shutil.rmtree(folder / algorithm)


def _answers(engine: Callable[[np.ndarray], np.ndarray], images: np.ndarray) -> np.ndarray:
    batches = np.array_split(images, max(1, len(images) // CALIBRATION_BATCH))
    return np.concatenate([engine(np.ascontiguousarray(batch, np.float32)) for batch in batches])


def _quantise_by(algorithm: str, folder: Path, target: Path, images: np.ndarray) -> None:
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
            algo=algorithm,
            onnx_format=True,
            weight_quantize_type="channel_wise_abs_max",
            quantizable_op_type=QUANTISED_OPERATORS,
        )
        quantiser.quantize()
        quantiser.save_quantized_model(str(target), model_filename=INT8_GRAPH, params_filename=INT8_WEIGHTS)


if __name__ == "__main__":
    _quantise_here(Path(sys.argv[1]).resolve(), np.load(sys.argv[2]))
