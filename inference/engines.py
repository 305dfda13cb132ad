"""Ways to run an exported graph: each engine by name, what it needs, and which is the fastest here."""

import contextlib
import importlib.util
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import paddle
import paddle.inference

from inference.description import GRAPH, INT8_GRAPH, INT8_WEIGHTS, OLD_GRAPH, ONNX, WEIGHTS
from system.errors import UserError

CPU_ENGINES = ("onednn", "openvino", "plain")
GPU_ENGINES = ("gpu", "tensorrt")
# They need a file that export.py writes only when asked to.
EXTRA_ENGINES = ("int8", "onnxruntime")
# Device memory that Paddle takes at the start, in MiB.
GPU_MEMORY = 256
TENSORRT_MAX_BATCH = 64
# A quick measurement: passes that are timed, after one that is not, and images in each.
MEASURED_PASSES, MEASURED_BATCH = 5, 4


class Engine(Protocol):
    """A loaded graph."""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Turns raw pixels float32 [N, 3, H, W], 0..255, into probabilities float32 [N, C]."""


class PaddleEngine:
    """Paddle Inference behind a call. Calls from several threads at once need a lock of the caller's."""

    def __init__(self, settings: paddle.inference.Config):
        self.predictor = paddle.inference.create_predictor(settings)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Turns raw pixels float32 [N, 3, H, W], 0..255, into probabilities float32 [N, C]."""
        predictor = self.predictor
        predictor.get_input_handle(predictor.get_input_names()[0]).copy_from_cpu(images)
        predictor.run()
        return predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu()


class OnnxEngine:
    """ONNX Runtime behind a call."""

    def __init__(self, file: Path, threads: int):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # It warns of every initializer that the converter left unused.
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self.name = self.session.get_inputs()[0].name

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Turns raw pixels float32 [N, 3, H, W], 0..255, into probabilities float32 [N, C]."""
        return self.session.run(None, {self.name: images})[0]


def graph_of(folder: Path, engine: str) -> tuple[str, str]:
    """Names the files of a folder that an engine runs: graph and weights."""
    if engine == "int8":
        return INT8_GRAPH, INT8_WEIGHTS
    if engine == "onnxruntime":
        return ONNX, ONNX
    only_old = (folder / OLD_GRAPH).is_file() and not (folder / GRAPH).is_file()
    if only_old or engine in ("openvino", "tensorrt"):
        return OLD_GRAPH, WEIGHTS
    return GRAPH, WEIGHTS


def lacks(folder: Path, engine: str, device: str) -> str:
    """Says what keeps an engine from running a folder on this machine, and the cure; "" where nothing does."""
    if engine == "openvino" and not list((Path(paddle.__file__).parent / "libs").glob("*openvino_intel_cpu_plugin*")):
        return "this paddle was built without OpenVINO; use engine=onednn"
    if engine in GPU_ENGINES and not device.startswith("gpu"):
        return "it needs a GPU and device=gpu; use engine=onednn"
    if engine == "tensorrt" and paddle.inference.get_trt_compile_version() == (0, 0, 0):
        return "this paddle was built without TensorRT; use engine=gpu"
    if engine == "onnxruntime" and importlib.util.find_spec("onnxruntime") is None:
        return "it is not installed; run `pip install onnxruntime` (requirements-bench.txt pins it)"
    missing = next((name for name in graph_of(folder, engine) if not (folder / name).is_file()), None)
    if missing:
        flag = {"int8": " --int8", "onnxruntime": " --onnx"}.get(engine, "")
        return f"{missing} is missing; export the run anew with `python export.py RUN{flag}`"
    return ""


def offered(folder: Path, device: str) -> list[str]:
    """Lists the engines that can run a folder here, extras included."""
    every = (*(GPU_ENGINES if device.startswith("gpu") else ()), *CPU_ENGINES, *EXTRA_ENGINES)
    return [engine for engine in every if not lacks(folder, engine, device)]


def load(folder: Path, engine: str, device: str, threads: int, image_shape: tuple[int, int, int]) -> Engine:
    """Loads a folder's graph into an engine.

    Raises:
        UserError: The engine is not there, or refuses the files.
    """
    problem = lacks(folder, engine, device)
    if problem:
        raise UserError(f"{folder}: engine={engine}: {problem}")
    try:
        if engine == "onnxruntime":
            return OnnxEngine(folder / ONNX, threads)
        # OpenVINO leaves a compiled copy of the graph, by default in the current folder.
        with tempfile.TemporaryDirectory() as cache, _quiet(engine == "int8"):
            settings = _configure(folder, engine, device, threads, image_shape)
            settings.set_optim_cache_dir(cache)
            return PaddleEngine(settings)
    # The libraries raise types of their own, all of them below Exception.
    except Exception as error:
        raise UserError(
            f"{folder}: engine={engine}: cannot load the graph ({last_line(error)}); export the run anew"
        ) from None


def last_line(error: Exception) -> str:
    """What an error of a library says after its stack of C++ calls."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__


@contextlib.contextmanager
def _quiet(silent: bool) -> Iterator[None]:
    """Closes stdout and stderr to C++ code: the 8-bit passes of oneDNN print hundreds of lines that no flag stops."""
    if not silent:
        yield
        return
    sys.stdout.flush()
    sys.stderr.flush()
    saved, nothing = [os.dup(1), os.dup(2)], os.open(os.devnull, os.O_WRONLY)
    try:
        for stream in (1, 2):
            os.dup2(nothing, stream)
        yield
    finally:
        for stream, old in zip((1, 2), saved, strict=True):
            os.dup2(old, stream)
        for descriptor in (*saved, nothing):
            os.close(descriptor)


def _configure(
    folder: Path, engine: str, device: str, threads: int, image_shape: tuple[int, int, int]
) -> paddle.inference.Config:
    settings = paddle.inference.Config(*(str(folder / name) for name in graph_of(folder, engine)))
    settings.disable_glog_info()
    if engine in GPU_ENGINES:
        settings.enable_use_gpu(GPU_MEMORY, int(device.partition(":")[2] or 0))
        if engine == "tensorrt":
            _enable_tensorrt(settings, image_shape)
        return settings
    settings.disable_gpu()
    settings.set_cpu_math_library_num_threads(threads)
    if engine == "plain":
        settings.disable_mkldnn()
    elif engine == "openvino":
        settings.enable_openvino_engine(paddle.inference.PrecisionType.Float32)
    else:
        settings.enable_mkldnn()
    if engine == "int8":
        # Without this switch the 8-bit graph is slower than the plain one.
        settings.enable_mkldnn_int8()
    return settings


def _enable_tensorrt(settings: paddle.inference.Config, image_shape: tuple[int, int, int]) -> None:
    settings.enable_tensorrt_engine(
        workspace_size=1 << 30,
        max_batch_size=TENSORRT_MAX_BATCH,
        min_subgraph_size=3,
        precision_mode=paddle.inference.PrecisionType.Float32,
        use_static=False,
        use_calib_mode=False,
    )
    smallest, usual, largest = ([batch, *image_shape] for batch in (1, 8, TENSORRT_MAX_BATCH))
    settings.set_trt_dynamic_shape_info({"image": smallest}, {"image": largest}, {"image": usual})


def processor() -> str:
    """Names the CPU model."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def measure(engines: Mapping[str, Engine], image_shape: tuple[int, int, int]) -> dict[str, float]:
    """Times engines against each other, taking turns, so that other work on the machine meets all alike.

    Returns:
        Milliseconds an image of each engine, the best of a few passes over a small batch.
    """
    images = pattern(MEASURED_BATCH, image_shape)
    times: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(MEASURED_PASSES + 1):
        for name, engine in engines.items():
            start = time.perf_counter()
            engine(images)
            times[name].append(time.perf_counter() - start)
    return {name: 1000 * min(taken[1:]) / MEASURED_BATCH for name, taken in times.items()}


def pattern(count: int, image_shape: tuple[int, int, int]) -> np.ndarray:
    """Makes images that need no file, float32 [count, 3, H, W]: value i in C order is i * 40503 // 64 modulo 256."""
    values = np.arange(count * int(np.prod(image_shape)), dtype=np.int64) * 40503 // 64 % 256
    return values.reshape(count, *image_shape).astype(np.float32)


def choose(
    folder: Path, device: str, threads: int, image_shape: tuple[int, int, int], measured: Mapping[str, Any]
) -> tuple[str, str]:
    """Finds the fastest engine that answers like the run: `int8` must be asked for by name.

    Args:
        measured: What the exporter measured; it is believed when this is the same processor.

    Returns:
        The engine, and the reason in words.
    """
    engines = [name for name in offered(folder, device) if name != "int8"]
    if device.startswith("gpu"):
        # TensorRT builds its engine for minutes on the first image: only who asks for it shall wait.
        return "gpu", "a GPU is used"
    known = {name: ms for name, ms in measured.get("milliseconds", {}).items() if name in engines}
    reason = "measured by export.py on this processor"
    if not known or measured.get("processor") != processor():
        known = measure({name: load(folder, name, device, threads, image_shape) for name in engines}, image_shape)
        reason = "measured now"
    best = min(known, key=known.__getitem__)
    times = ", ".join(f"{name} {ms:.1f} ms" for name, ms in sorted(known.items(), key=lambda item: item[1]))
    return best, f"{times} an image, {reason}"
