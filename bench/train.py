"""Training speed: plain Paddle, this project, PyTorch and Keras, in float32 and bfloat16.

Each way runs in its own processes with the library's defaults, but for what its name says: `ours-bf16` has amp=bf16,
`ours-2` two processes with half the batch each, `torch-bf16` channels_last too. Rounds alternate, so that changes in
the machine's load meet every way. Run: `python bench/train.py [--rounds 3] [--case cnn-32 ...] [--way ours torch ...]`.
"""

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import train_peers

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from system import machine, processor

# Network, side of the images, batch.
CASES = {
    "resnet50-224": ("resnet50", 224, 8),
    "mobilenet_v2-224": ("mobilenet_v2", 224, 16),
    "shufflenet-224": ("shufflenet_v2_x1_0", 224, 16),
    "vgg16-64": ("vgg16", 64, 16),
    "cnn-32": ("cnn", 32, 32),
    "cnn-128": ("cnn", 32, 128),
}
# The library that each way needs.
WAYS = {
    "plain": "paddle", "ours": "paddle", "ours-bf16": "paddle", "ours-2": "paddle",
    "torch": "torch", "torch-channels-last": "torch", "torch-bf16": "torch", "keras": "keras",
}  # fmt: skip
# Keras has no such network.
WITHOUT = {("shufflenet-224", "keras")}
# The best of the first ways to the best of the second.
OURS, PEERS = ("ours", "ours-2"), ("torch", "torch-channels-last", "keras")
RATIOS = {
    "ours / torch": (("ours",), ("torch",)),
    "ours / keras": (("ours",), ("keras",)),
    "best float32 of ours / of peers": (OURS, PEERS),
    "ours-bf16 / ours": (("ours-bf16",), ("ours",)),
    "ours-bf16 / best float32 of peers": (("ours-bf16",), PEERS),
    "torch-bf16 / ours-bf16": (("torch-bf16",), ("ours-bf16",)),
}
# Instruction sets that training speed depends on, by Linux's names.
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")
RELEASES = ("paddlepaddle", "torch", "keras", "tensorflow", "tensorflow_cpu")
CLASSES = 10


def measure(step: Callable[[], object], seconds: float, agree: Callable[[float], int] = int) -> float:
    """Repeats a step for about `seconds` after two warm-up steps; returns the median seconds per step.

    `agree` makes all processes of a distributed run repeat it equally often; otherwise one would wait forever.
    """
    step(), step()
    times = [timed(step) for _ in range(3)]
    count = agree(seconds / statistics.median(times))
    return statistics.median(times + [timed(step) for _ in range(count)])


def timed(step: Callable[[], object]) -> float:
    """Returns the seconds that a step takes."""
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def agree_with_first(count: float) -> int:
    """Returns the first process's count."""
    import paddle

    shared = paddle.to_tensor([int(count)])
    paddle.distributed.broadcast(shared, src=0)
    return int(shared)


def noise(side: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns a random batch: images uint8 [batch, 3, side, side] and labels int64 [batch]."""
    generator = np.random.default_rng(1)
    return generator.integers(0, 256, (batch, 3, side, side), dtype="uint8"), generator.integers(0, CLASSES, batch)


def paddle_way(name: str, side: int, batch: int, seconds: float, ours: bool, amp: str) -> tuple[float, int]:
    """Measures paddle.Model.train_batch: plain, as in a first script, or with everything that train.py adds.

    Returns:
        Seconds per step, and the number of trained weights.
    """
    import config

    changes = [f"network={name}", f"image_shape=[3,{side},{side}]", "optimizer=adam", "weight_decay=0", f"amp={amp}"]
    settings = config.load(None, [*changes, "schedule=constant", "warmup_epochs=0", "learning_rate=1e-3"])
    if ours:
        machine.prepare(settings)
    import paddle

    images, labels = noise(side, batch)
    if ours:
        from training import setup, step_speed

        device = setup.select_device(settings)
        network, model = step_speed.new_model(settings)
        fast = setup.accelerated(network, settings, device)
    else:
        from models import networks

        network, fast = networks.construct(name, CLASSES, settings.image_shape), contextlib.nullcontext()
        optimizer = paddle.optimizer.Adam(1e-3, parameters=network.parameters())
        model = paddle.Model(network)
        model.prepare(optimizer, paddle.nn.CrossEntropyLoss(), [paddle.metric.Accuracy()])
        images, labels = images.astype("float32") / 255, labels[:, None]
    weights = sum(int(weight.size) for weight in network.parameters() if not weight.stop_gradient)
    agree = agree_with_first if paddle.distributed.get_world_size() > 1 else int
    with fast:
        return measure(lambda: model.train_batch([images], [labels]), seconds, agree), weights


def work(way: str, case: str, seconds: float) -> dict[str, float]:
    """Measures one way in this process: its images per second, and its number of trained weights."""
    name, side, batch = CASES[case]
    if WAYS[way] == "paddle":
        # Two processes share the batch, so that they make the same updates as one.
        share = batch // 2 if way == "ours-2" else batch
        amp = "bf16" if way == "ours-bf16" else "none"
        spent, weights = paddle_way(name, side, share, seconds, ours=way != "plain", amp=amp)
    else:
        data = (name, *noise(side, batch), CLASSES)
        if way == "keras":
            step, weights = train_peers.keras_step(*data)
        else:
            step, weights = train_peers.torch_step(*data, channels_last=way != "torch", bfloat16=way == "torch-bf16")
        spent = measure(step, seconds)
    return {"images_per_second": batch / spent, "weights": weights}


def run_once(way: str, case: str, seconds: float) -> dict[str, float] | None:
    """Measures one way in its own process; None, and the last line of the error on stderr, if it fails."""
    line = [__file__, "--worker", way, case, str(seconds)]
    if way == "ours-2":
        logs = Path(tempfile.gettempdir()) / "bench-train-log"
        line = ["-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", str(logs), *line]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "MKL_", "PADDLE_"))}
    ended = subprocess.run([sys.executable, *line], capture_output=True, text=True, env=environment)
    results = [json.loads(row) for row in ended.stdout.splitlines() if row.startswith("{")]
    told = f"{results[-1]['images_per_second']:.4g} images/s" if results else ended.stderr.strip().splitlines()[-1:]
    print(f"{case} {way}: {told}", file=sys.stderr, flush=True)
    return results[-1] if results else None


def obstacle(way: str) -> str:
    """Returns why a way cannot run here; "" if it can, as far as one sees."""
    if way.endswith("bf16") and processor.BFLOAT16 not in processor.instruction_sets():
        return f"unrun: no {processor.BFLOAT16}"
    return "" if importlib.util.find_spec(WAYS[way]) else f"unrun: no {WAYS[way]}"


def head(rounds: int, seconds: float) -> str:
    """Says on what was measured, and how."""
    found = " ".join(name for name in INSTRUCTIONS if name in processor.instruction_sets())
    installed = {row.metadata["Name"].lower().replace("-", "_") for row in importlib.metadata.distributions()}
    releases = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in RELEASES if name in installed)
    medians = f"images/s, medians of {rounds} rounds of {seconds:g} s"
    return f"{processor.name()}, {machine.cores()} cores, {found}; {releases}; {medians}"


def ratio(speeds: Mapping[str, float], above: Iterable[str], below: Iterable[str]) -> str:
    """Divides the best of some ways by the best of others; "" if none of either was measured."""
    best = [max((speeds[way] for way in ways if way in speeds), default=0.0) for ways in (above, below)]
    return f"{best[0] / best[1]:.2f}" if all(best) else ""


def row(case: str, ways: Iterable[str], results: Mapping[str, list[dict[str, float]]]) -> list[str]:
    """The cells of a case: the median speed of each way, or why there is none, then the ratios."""
    speeds = {way: statistics.median(one["images_per_second"] for one in found) for way, found in results.items()}
    cells = [case]
    for way in ways:
        missing = "" if (case, way) in WITHOUT else obstacle(way) or "failed"
        cells.append(f"{speeds[way]:.4g}" if way in speeds else missing)
    return cells + [ratio(speeds, *pair) for pair in RATIOS.values()]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0, help="measured per way, case and round")
    parser.add_argument("--case", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--way", nargs="*", choices=WAYS, default=list(WAYS))
    parser.add_argument("--worker", nargs=3, metavar=("WAY", "CASE", "SECONDS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        way, case, seconds = arguments.worker
        print(json.dumps(work(way, case, float(seconds))), flush=True)
        return
    found: dict[str, dict[str, list[dict[str, float]]]] = {case: {} for case in arguments.case}
    for case, results in found.items():
        ways = [way for way in arguments.way if not obstacle(way) and (case, way) not in WITHOUT]
        for _ in range(arguments.rounds):
            for way in ways:
                if result := run_once(way, case, arguments.seconds):
                    results.setdefault(way, []).append(result)
        weights = {way: results[way][0]["weights"] for way in results}
        if len(set(weights.values())) > 1:
            print(f"{case}: the ways train different numbers of weights: {weights}", file=sys.stderr)
    columns = ["case", *arguments.way, *RATIOS]
    print(head(arguments.rounds, arguments.seconds))
    print(f"| {' | '.join(columns)} |\n{'| --- ' * len(columns)}|")
    for case, results in found.items():
        print(f"| {' | '.join(row(case, arguments.way, results))} |")


if __name__ == "__main__":
    main()
