"""Speed of the data loader alone, and of training with it. Run: `python bench/feed.py [--rounds 3] [KEY=VALUE ...]`.

Reads whole training epochs of the images in the settings. The speed in training is given as a share of the pure step
speed, which is that of the same steps on one batch in memory.
"""

import argparse
import contextlib
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import config
from system import machine
from system.settings import Settings

WAYS = {
    "files, no worker": ["cache=none", "num_workers=0"],
    "files, 1 worker": ["cache=none", "num_workers=1"],
    "files, 2 workers": ["cache=none", "num_workers=2"],
    "cache=ram": ["cache=ram", "num_workers=0"],
    "cache=disk": ["cache=disk", "num_workers=0"],
}


def loader_of(settings: Settings):
    """Returns the training loader of the settings, its cache filled."""
    from annotation.lists import LABELS, read_labels
    from training.setup import make_loader

    loader = make_loader(settings, "train", read_labels(settings.lists / LABELS), "cpu")
    loader.dataset.use_cache(settings, "train")
    return loader


def epoch_seconds(loader, step=None, most: int | None = None) -> tuple[float, int]:
    """Reads an epoch, or its first `most` steps; returns seconds and the number of images."""
    images, started = 0, time.perf_counter()
    for number, batch in enumerate(loader):
        images += len(batch[0])
        if step:
            step(*batch)
        if most and number + 1 >= most:
            break
    return time.perf_counter() - started, images


@contextlib.contextmanager
def make_step(settings: Settings, num_classes: int):
    """Yields train.py's training step; the CPU speedups are on within the `with` block."""
    import paddle

    from models import acceleration, factory
    from training import losses, optim
    from training.running_metrics import Accuracy, MeanLoss

    network, _ = factory.build(settings, num_classes)
    optimizer = optim.make_optimizer(settings, network, optim.Schedule(settings, 10))
    model = paddle.Model(network)
    model.prepare(optimizer, losses.Loss(), [MeanLoss(), Accuracy()])
    with acceleration.speed_up(network) if settings.cpu_speedups else contextlib.nullcontext():
        yield lambda images, labels: model.train_batch([images], [labels])


def measure(loaders: dict, step, rounds: int, count: int) -> tuple[dict, dict, list[float]]:
    """Measures images/s of each loader, seconds per step with it, and seconds per step on one batch in memory."""
    batch = next(iter(loaders["cache=ram"]))
    step(*batch)
    speeds, epochs, steps = {way: [] for way in loaders}, {way: [] for way in loaders}, []
    for _ in range(rounds):
        for way, loader in loaders.items():
            seconds, images = epoch_seconds(loader)
            speeds[way].append(images / seconds)
        started = time.perf_counter()
        for _ in range(count):
            step(*batch)
        steps.append((time.perf_counter() - started) / count)
        for way, loader in loaders.items():
            seconds, _ = epoch_seconds(loader, step, count)
            epochs[way].append(seconds / min(count, len(loader)))
    return speeds, epochs, steps


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20, help="training steps per round (20)")
    parser.add_argument("--config")
    parser.add_argument("settings", nargs="*")
    arguments = parser.parse_intermixed_args()
    base = config.load(arguments.config, arguments.settings)
    machine.prepare(base)
    loaders = {way: loader_of(config.load(arguments.config, arguments.settings + more)) for way, more in WAYS.items()}
    with make_step(base, int(loaders["cache=ram"].dataset.labels.max()) + 1) as step:
        speeds, epochs, steps = measure(loaders, step, arguments.rounds, arguments.steps)
    pure = statistics.median(steps)
    case = f"{base.network} {list(base.image_shape)}, batch {base.batch_size}"
    print(f"{os.cpu_count()} cores, {case}, {machine.describe(base, 'cpu')}")
    print("| feed | images/s alone | speed in training / pure step speed | against files |")
    print("| --- | --- | --- | --- |")
    first = statistics.median(speeds["files, no worker"])
    for way in WAYS:
        speed, share = statistics.median(speeds[way]), pure / statistics.median(epochs[way])
        print(f"| {way} | {speed:.0f} | {share:.2f} | {speed / first:.2f} |")


if __name__ == "__main__":
    main()
