"""One exported graph on every installed engine: ResNet50 and MobileNetV2, 224 px, interleaved.

    python bench/infer.py [--networks resnet50,mobilenet_v2] [--batches 1,8] [--rounds 9] [--threads 2] [--int8]

onnxruntime with paddle2onnx, openvino and torch are measured where they are installed (requirements-bench.txt).
Weights are random: times do not depend on them. What INT8 costs in accuracy, export.py measures on a trained run.
"""

import argparse
import importlib.metadata
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

SHAPE = (3, 224, 224)
OURS = ("plain", "onednn", "openvino", "int8")
# Not the network that was trained: no measure for the engines in 32 bits.
ROUNDED = ("int8", "bf16")
PACKAGES = ("paddlepaddle", "onnxruntime", "openvino", "torch", "numpy")
# After a run, an engine's threads spin for 0.2 s, on the cores that the next engine needs.
SETTLE = 0.3
Runner = Callable[[np.ndarray], object]


def export(name: str, folder: Path, int8: bool) -> None:
    """Writes the graph, ONNX if its packages are installed, and the INT8 graph."""
    import paddle

    from inference import graphs, onnx, quantisation
    from models import networks
    from models.classifier import Classifier

    paddle.seed(0)
    classifier = Classifier(networks.construct(name, 10, SHAPE), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    classifier.eval()
    graphs.write_graphs(classifier, SHAPE, 1.0, folder)
    if all(importlib.util.find_spec(package) for package in onnx.PACKAGES):
        onnx.write_onnx(folder)
    if int8:
        quantisation.quantise(folder, np.random.default_rng(0).integers(0, 256, (16, *SHAPE), dtype=np.uint8))


def runners(name: str, folder: Path, threads: int) -> dict[str, Runner]:
    """Loads every engine that is installed."""
    from inference import description, engines
    from inference.openvino_bf16 import OPENVINO_BF16

    made: dict[str, Runner] = {}
    for engine in (*OURS, "onnxruntime"):
        if not engines.problem(folder, engine, "cpu"):
            made[("Paddle Inference " if engine in OURS else "") + engine] = engines.load(
                folder, engine, "cpu", threads, SHAPE
            )
    if not OPENVINO_BF16.problem():
        # Without the check of `load`: an export on random weights is verified by nobody.
        graph, weights = folder / description.OLD_GRAPH, folder / description.WEIGHTS
        made["Paddle Inference openvino-bf16"] = engines.load_graph(
            graph, weights, OPENVINO_BF16.name, "cpu", threads, SHAPE
        )
    if importlib.util.find_spec("openvino") and (folder / "inference.onnx").is_file():
        made["OpenVINO itself, from ONNX"] = _openvino(folder / "inference.onnx", threads, "f32")
        if not OPENVINO_BF16.problem():
            made["OpenVINO itself, bf16"] = _openvino(folder / "inference.onnx", threads, "bf16")
    if importlib.util.find_spec("torch"):
        made["PyTorch"] = _torch(name, threads)
    return made


def _openvino(file: Path, threads: int, precision: str) -> Runner:
    import openvino

    core = openvino.Core()
    # By default it computes in bfloat16 on processors that can: other results, and no fair comparison.
    options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision}
    compiled = core.compile_model(core.read_model(file), "CPU", options)
    return lambda images: compiled([images])[0]


def _torch(name: str, threads: int) -> Runner:
    import torch
    import torch_networks

    torch.set_num_threads(threads)
    network = torch_networks.construct(name, 10).eval()

    def run(images: np.ndarray) -> object:
        with torch.inference_mode():
            return torch.softmax(network(torch.from_numpy(images) * (1 / 255)), dim=1).numpy()

    return run


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default="resnet50,mobilenet_v2")
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--int8", action="store_true")
    arguments = parser.parse_args()
    import config
    from system import machine

    machine.prepare(config.load(overrides=[f"threads={arguments.threads}"]))
    from system import processor

    installed = {distribution.metadata["Name"].lower() for distribution in importlib.metadata.distributions()}
    found = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES if name in installed]
    print(f"{processor.name()}, {machine.cores()} cores, {arguments.threads} threads; {', '.join(found)}")
    print("| network | batch | engine | processor ms | fastest ms | median ms | of the fastest 32-bit engine |")
    print("| --- " * 7 + "|")
    for name in arguments.networks.split(","):
        with tempfile.TemporaryDirectory() as folder:
            export(name, Path(folder), arguments.int8)
            made = runners(name, Path(folder), arguments.threads)
            for batch in map(int, arguments.batches.split(",")):
                _table(name, batch, made, arguments.rounds)


def _table(name: str, batch: int, made: dict[str, Runner], rounds: int) -> None:
    images = np.random.default_rng(1).integers(0, 256, (batch, *SHAPE)).astype(np.float32)
    times: dict[str, list[float]] = {engine: [] for engine in made}
    busy: dict[str, list[float]] = {engine: [] for engine in made}
    for _ in range(rounds):
        for engine, run in made.items():
            time.sleep(SETTLE)
            run(images)
            start, used = time.perf_counter(), time.process_time()
            run(images)
            busy[engine].append(1000 * (time.process_time() - used))
            times[engine].append(1000 * (time.perf_counter() - start))
    medians = {engine: statistics.median(taken) for engine, taken in times.items()}
    best = min(value for engine, value in medians.items() if not engine.endswith(ROUNDED))
    for engine, value in sorted(medians.items(), key=lambda item: item[1]):
        print(
            f"| {name} | {batch} | {engine} | {statistics.median(busy[engine]):.1f} | {min(times[engine]):.1f} "
            f"| {value:.1f} | {value / best:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
