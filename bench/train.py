"""Training speed: plain Paddle, this project in one process, in two and with amp=bf16, PyTorch and Keras if installed.

Each way runs in its own processes with the library's defaults. Rounds alternate, so that changes in the machine's load
meet every way. Run: `python bench/train.py [--rounds 3] [--case cnn32 ...]`.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
# Network, side of the images, batch.
CASES = {
    "resnet50-224": ("resnet50", 224, 8),
    "mobilenet_v2-224": ("mobilenet_v2", 224, 16),
    "cnn-32": ("cnn", 32, 32),
    "cnn-128": ("cnn", 32, 128),
}
WAYS = ("plain", "ours", "ours-2", "ours-bf16", "torch", "keras")
CLASSES = 10


def measure(step, seconds: float, agree=int) -> float:
    """Repeats a step for about `seconds` after two warm-up steps; returns the median seconds per step.

    `agree` makes all processes of a distributed run repeat it equally often; otherwise one would wait forever.
    """
    step(), step()
    times = [timed(step) for _ in range(3)]
    count = agree(seconds / statistics.median(times))
    return statistics.median(times + [timed(step) for _ in range(count)])


def timed(step) -> float:
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


def noise(side: int, batch: int):
    """Returns a random batch: images uint8 [batch, 3, side, side] and labels int64 [batch]."""
    import numpy as np

    generator = np.random.default_rng(1)
    return generator.integers(0, 256, (batch, 3, side, side), dtype="uint8"), generator.integers(0, CLASSES, batch)


def paddle_way(name: str, side: int, batch: int, seconds: float, ours: bool, amp: str = "none") -> float:
    """Measures paddle.Model.train_batch: plain, as in a first script, or with everything that train.py adds."""
    import config

    changes = [f"network={name}", f"image_shape=[3,{side},{side}]", "optimizer=adam", "weight_decay=0", f"amp={amp}"]
    settings = config.load(None, [*changes, "schedule=constant", "warmup_epochs=0", "learning_rate=1e-3"])
    if ours:
        from system import machine

        machine.prepare(settings)
    import paddle

    from models import networks

    images, labels = noise(side, batch)
    network, fast = networks.construct(name, CLASSES, settings.image_shape), contextlib.nullcontext()
    if ours:
        from models.classifier import Classifier
        from training import losses, optim, setup
        from training.running_metrics import Accuracy, MeanLoss, Recall

        network = Classifier(network, settings.mean, settings.std)
        fast = setup.accelerated(network, settings, setup.select_device(settings))
        optimizer = optim.make_optimizer(settings, network, optim.Schedule(settings, 1))
        loss, metrics = losses.Loss(), [MeanLoss(), Accuracy(), Recall(CLASSES)]
    else:
        optimizer = paddle.optimizer.Adam(1e-3, parameters=network.parameters())
        loss, metrics = paddle.nn.CrossEntropyLoss(), [paddle.metric.Accuracy()]
        images = images.astype("float32") / 255
    model = paddle.Model(network)
    model.prepare(optimizer, loss, metrics)
    agree = agree_with_first if paddle.distributed.get_world_size() > 1 else int
    with fast:
        return measure(lambda: model.train_batch([images], [labels[:, None] if not ours else labels]), seconds, agree)


def torch_way(name: str, side: int, batch: int, seconds: float) -> float:
    """Measures a usual PyTorch training step."""
    import torch
    from torch import nn

    if name == "cnn":
        network = nn.Sequential(
            nn.Conv2d(3, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 64), nn.ReLU(), nn.Linear(64, CLASSES),
        )  # fmt: skip
    else:
        import torch_networks

        network = torch_networks.construct(name, CLASSES)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    images, labels = noise(side, batch)
    images, labels = torch.from_numpy(images).float() / 255, torch.from_numpy(labels)

    def step() -> None:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        loss.item()

    return measure(step, seconds)


def keras_way(name: str, side: int, batch: int, seconds: float) -> float:
    """Measures Keras on TensorFlow: train_on_batch of a compiled model."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras
    from keras import layers

    shape = (side, side, 3)
    if name == "cnn":
        pools = [
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
        ]
        ends = [layers.MaxPooling2D(), layers.Conv2D(64, 3, activation="relu"), layers.Flatten()]
        dense = [layers.Dense(64, activation="relu"), layers.Dense(CLASSES)]
        network = keras.Sequential([keras.Input(shape), *pools, *ends, *dense])
    else:
        kind = {"resnet50": keras.applications.ResNet50, "mobilenet_v2": keras.applications.MobileNetV2}[name]
        network = kind(weights=None, input_shape=shape, classes=CLASSES, classifier_activation=None)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
    images, labels = noise(side, batch)
    images = images.transpose(0, 2, 3, 1).astype("float32") / 255
    return measure(lambda: network.train_on_batch(images, labels), seconds)


def work(way: str, case: str, seconds: float) -> dict:
    """Measures one way in this process."""
    name, side, batch = CASES[case]
    if way == "plain" or way.startswith("ours"):
        # Two processes share the batch, so that they make the same updates as one.
        share = batch // 2 if way == "ours-2" else batch
        amp = "bf16" if way == "ours-bf16" else "none"
        spent = paddle_way(name, side, share, seconds, ours=way != "plain", amp=amp)
    else:
        spent = {"torch": torch_way, "keras": keras_way}[way](name, side, batch, seconds)
    module = sys.modules[{"torch": "torch", "keras": "keras"}.get(way, "paddle")]
    return {"images_per_second": batch / spent, "version": module.__version__}


def run_once(way: str, case: str, seconds: float) -> dict | None:
    """Measures one way in its own process; None if it is not installed."""
    line = [__file__, "--worker", way, case, str(seconds)]
    if way == "ours-2":
        logs = Path(tempfile.gettempdir()) / "bench-train-log"
        line = ["-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", str(logs), *line]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "MKL_", "PADDLE_"))}
    ended = subprocess.run([sys.executable, *line], capture_output=True, text=True, env=environment)
    results = [json.loads(row) for row in ended.stdout.splitlines() if row.startswith("{")]
    if not results and "ModuleNotFoundError" not in ended.stderr:
        print(f"{way} {case}: {ended.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
    return results[-1] if results else None


def processor() -> str:
    """Returns the CPU model."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((row.partition(": ")[2] for row in lines if row.startswith("model name")), "unknown CPU")


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
    found: dict = {}
    for case in arguments.case:
        for _ in range(arguments.rounds):
            for way in arguments.way:
                if result := run_once(way, case, arguments.seconds):
                    found.setdefault((case, way), []).append(result)
    versions = {way: results[0]["version"] for (_, way), results in found.items()}
    print(f"{processor()}, {os.cpu_count()} cores; medians of {arguments.rounds} rounds; {versions}")
    print("| case | way | images/s | against PyTorch | against plain Paddle |\n| --- | --- | --- | --- | --- |")
    for case in arguments.case:
        speeds = {way: statistics.median(r["images_per_second"] for r in found[case, way])
                  for way in arguments.way if (case, way) in found}  # fmt: skip
        for way, speed in speeds.items():
            ratios = [f"{speed / speeds[other]:.2f}" if other in speeds else "" for other in ("torch", "plain")]
            print(f"| {case} | {way} | {speed:.4g} | {' | '.join(ratios)} |")


if __name__ == "__main__":
    main()
