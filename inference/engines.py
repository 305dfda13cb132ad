"""Engines: the ways to run an exported graph, what each needs, and which is the fastest on this machine."""

import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import paddle.inference

from inference import description
from inference.example import pattern
from inference.extras import EXTRAS, is_exact
from inference.interfaces import Engine
from inference.names import GRAPH, OLD_GRAPH, WEIGHTS
from inference.native_output import suppressed
from system import machine, processor
from system.errors import UserError
from system.windows import native_folder

CPU_ENGINES = ("onednn", "openvino", "plain")
GPU_ENGINES = ("gpu", "tensorrt")
# Device memory that Paddle takes at the start, in MiB.
GPU_MEMORY = 256
TENSORRT_MAX_BATCH = 64
# A quick measurement: passes that are timed, after one that is not, and images in each.
MEASURED_PASSES, MEASURED_BATCH = 5, 4


class PaddleEngine:
    """A graph loaded by Paddle Inference; threads may share it and take turns."""

    def __init__(self, options: paddle.inference.Config):
        self.predictor = paddle.inference.create_predictor(options)
        # Input, run and output are three calls on one predictor: threads in between would take each other's results.
        self.lock = threading.Lock()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Turns raw pixels float32 [N, 3, H, W], 0..255, into probabilities float32 [N, C]."""
        predictor = self.predictor
        with self.lock:
            predictor.get_input_handle(predictor.get_input_names()[0]).copy_from_cpu(images)
            predictor.run()
            return predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu()


def graph_files(folder: Path, engine: str) -> tuple[str, str]:
    """Returns the names of the graph and weights files that an engine runs; one name twice if one file holds both."""
    if engine in EXTRAS:
        return EXTRAS[engine].graph, EXTRAS[engine].weights
    has_only_old = (folder / OLD_GRAPH).is_file() and not (folder / GRAPH).is_file()
    if has_only_old or engine in ("openvino", "tensorrt"):
        return OLD_GRAPH, WEIGHTS
    return GRAPH, WEIGHTS


def problem(folder: Path, engine: str, device: str) -> str:
    """Returns why an engine cannot run a folder on this machine, and the remedy; "" if it can."""
    if engine not in (*CPU_ENGINES, *GPU_ENGINES, *EXTRAS):
        return "it is not part of this installation; use engine=onednn"
    if engine == "openvino" and not machine.has_openvino():
        return "this paddle was built without OpenVINO; use engine=onednn"
    if engine in GPU_ENGINES and not device.startswith("gpu"):
        return "it needs a GPU and device=gpu; use engine=onednn"
    if engine == "tensorrt" and paddle.inference.get_trt_compile_version() == (0, 0, 0):
        return "this paddle was built without TensorRT; use engine=gpu"
    if engine in EXTRAS and (missing_library := EXTRAS[engine].problem()):
        return missing_library
    option = f" --{EXTRAS[engine].option}" if engine in EXTRAS else ""
    missing = next((name for name in graph_files(folder, engine) if not (folder / name).is_file()), None)
    if missing:
        return f"{missing} is missing; export the run again with `python export.py RUN{option}`"
    if engine in EXTRAS and engine not in description.optional_engines(folder):
        return f"it was not verified when this was exported; export the run again with `python export.py RUN{option}`"
    return ""


def available(folder: Path, device: str, only_exact: bool = False) -> list[str]:
    """Lists the engines that can run a folder on this machine, optional ones included."""
    every = (*(GPU_ENGINES if device.startswith("gpu") else ()), *CPU_ENGINES, *EXTRAS)
    wanted = [engine for engine in every if is_exact(engine) or not only_exact]
    return [engine for engine in wanted if not problem(folder, engine, device)]


def load(folder: Path, engine: str, device: str, threads: int, image_shape: tuple[int, ...]) -> Engine:
    """Loads a folder's graph into an engine.

    Args:
        image_shape: (3, H, W).

    Raises:
        UserError: The engine is not available, or refuses the files.
    """
    if reason := problem(folder, engine, device):
        raise UserError(f"{folder}: engine={engine}: {reason}")
    try:
        loaded = EXTRAS[engine].load(folder, threads) if engine in EXTRAS else None
        graph, weights = (folder / name for name in graph_files(folder, engine))
        return loaded or load_graph(graph, weights, engine, device, threads, image_shape)
    # The libraries raise types of their own, all of them below Exception.
    except Exception as error:
        raise UserError(
            f"{folder}: engine={engine}: cannot load the graph ({last_line(error)}); export the run again"
        ) from None


def last_line(error: Exception) -> str:
    """Returns the message of a library's error without its stack of C++ calls."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__


def load_graph(
    graph: Path, weights: Path, engine: str, device: str, threads: int, image_shape: tuple[int, ...]
) -> PaddleEngine:
    """Loads a graph, with its weights beside it, into Paddle Inference.

    Arguments: see `load`. What paddle raises is not translated.
    """
    with native_folder(graph.parent) as place:
        return _create(place / graph.name, place / weights.name, engine, device, threads, image_shape)


def _create(
    graph: Path, weights: Path, engine: str, device: str, threads: int, image_shape: tuple[int, ...]
) -> PaddleEngine:
    options = paddle.inference.Config(str(graph), str(weights))
    options.disable_glog_info()
    if engine in GPU_ENGINES:
        options.enable_use_gpu(GPU_MEMORY, int(device.partition(":")[2] or 0))
        if engine == "tensorrt":
            _enable_tensorrt(options, image_shape)
    else:
        _configure_cpu(options, engine, threads)
    # OpenVINO leaves a compiled copy of the graph, by default in the current folder.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:
        options.set_optim_cache_dir(cache)
        if engine not in EXTRAS:
            return PaddleEngine(options)
        # The 8-bit passes of oneDNN print hundreds of lines that no flag stops.
        with suppressed():
            return PaddleEngine(options)


def _configure_cpu(options: paddle.inference.Config, engine: str, threads: int) -> None:
    options.disable_gpu()
    options.set_cpu_math_library_num_threads(threads)
    if engine == "plain":
        options.disable_mkldnn()
    elif engine == "openvino":
        options.enable_openvino_engine(paddle.inference.PrecisionType.Float32)
    else:
        options.enable_mkldnn()
    if engine in EXTRAS:
        EXTRAS[engine].configure(options)


def _enable_tensorrt(options: paddle.inference.Config, image_shape: tuple[int, ...]) -> None:
    options.enable_tensorrt_engine(
        workspace_size=1 << 30,
        max_batch_size=TENSORRT_MAX_BATCH,
        min_subgraph_size=3,
        precision_mode=paddle.inference.PrecisionType.Float32,
        use_static=False,
        use_calib_mode=False,
    )
    smallest, usual, largest = ([batch, *image_shape] for batch in (1, 8, TENSORRT_MAX_BATCH))
    options.set_trt_dynamic_shape_info({"image": smallest}, {"image": largest}, {"image": usual})


def measure(engines: Mapping[str, Engine], image_shape: tuple[int, ...]) -> dict[str, float]:
    """Times engines in turns, so that other work on the machine slows all alike.

    Returns:
        Milliseconds per image by engine, the best of a few passes over a small batch.
    """
    images = pattern(MEASURED_BATCH, image_shape)
    times: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(MEASURED_PASSES + 1):
        for name, engine in engines.items():
            start = time.perf_counter()
            engine(images)
            times[name].append(time.perf_counter() - start)
    return {name: 1000 * min(seconds[1:]) / MEASURED_BATCH for name, seconds in times.items()}


def as_measured(milliseconds: Mapping[str, float], threads: int) -> dict[str, Any]:
    """Returns the group Engines of inference.yml, which `choose` reads."""
    rounded = {name: round(value, 3) for name, value in milliseconds.items()}
    return {"processor": processor.name(), "threads": threads, "milliseconds": rounded}


def choose(
    folder: Path, device: str, threads: int, image_shape: tuple[int, ...], measured: Mapping[str, Any]
) -> tuple[str, str]:
    """Finds the fastest engine whose probabilities are the run's; others are used by name only.

    Args:
        measured: What the exporter measured; it counts only on the same processor.

    Returns:
        The engine, and the reason for the terminal.
    """
    engines = available(folder, device, only_exact=True)
    if device.startswith("gpu"):
        # TensorRT builds its engine for minutes on the first image, so it has to be asked for.
        return "gpu", "a GPU is used"
    known = {name: ms for name, ms in measured.get("milliseconds", {}).items() if name in engines}
    reason = "measured by export.py on this processor"
    if not known or measured.get("processor") != processor.name():
        known = measure({name: load(folder, name, device, threads, image_shape) for name in engines}, image_shape)
        reason = "measured now"
    best = min(known, key=known.__getitem__)
    times = ", ".join(f"{name} {ms:.1f} ms" for name, ms in sorted(known.items(), key=lambda item: item[1]))
    return best, f"{times} per image, {reason}"
