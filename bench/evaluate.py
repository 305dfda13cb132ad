"""Time and memory of evaluate.py, compared with the least code that scores the same list.

    python bench/evaluate.py LISTS [--images 32] [--rounds 3]

LISTS holds labels.txt, test.txt and valid.txt. The network is `cnn` with random weights, on which time and
memory do not depend.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAKE = """
import sys; sys.path.insert(0, {root!r})
import config
from system import machine
settings = config.load(overrides={overrides!r}); machine.prepare(settings)
from models.networks import construct; from models.checkpoint import Run; from annotation.lists import read_labels
names = read_labels(settings.lists / "labels.txt"); run = Run.create(settings, names)
network = construct("cnn", len(names), settings.image_shape)
run.save({{"best": network.state_dict()}}, state={{"epoch": 1, "finished": True}})
"""
LEAST = """
import sys; sys.path.insert(0, {root!r})
import config
from system import machine
settings = config.load(base={run!r} + "/config.yaml"); machine.prepare(settings)
from sklearn.metrics import classification_report
from evaluation.predictors import RunModel
from evaluation.scoring import predict_split
from models.checkpoint import Run
predictions = predict_split(RunModel(Run({run!r}), settings), "test", "cpu")
print(classification_report(predictions.labels, predictions.logits.argmax(axis=1), zero_division=0))
"""


def measure(command: list[str]) -> tuple[float, float, float]:
    """Runs a command; returns wall seconds, CPU seconds and peak memory in MiB."""
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command}: failed")
    return time.monotonic() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lists", type=Path)
    parser.add_argument("--images", type=int, default=32, help="side of the network's input, in pixels (32)")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        side = arguments.images
        overrides = [f"lists_dir={arguments.lists.resolve()}", f"output_dir={folder}", "run_name=bench", "network=cnn"]
        overrides += [f"image_shape=[3,{side},{side}]", "batch_size=64"]
        run = str(Path(folder) / "bench")
        subprocess.run([sys.executable, "-c", MAKE.format(root=str(ROOT), overrides=overrides)], check=True)
        ways = {
            "scores and classification_report": [sys.executable, "-c", LEAST.format(root=str(ROOT), run=run)],
            "evaluate.py, report.html included": [sys.executable, "evaluate.py", run],
        }
        found = {name: [] for name in ways}
        for _ in range(arguments.rounds):
            for name, command in ways.items():
                found[name].append(measure(command))
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in found.items()}
    print(f"{'':<36}  wall s        CPU s  peak MiB")
    for name, (wall, cpu, memory) in medians.items():
        print(f"{name:<36}  {wall:>6.1f}  {cpu:>11.1f}  {memory:>8.0f}")
    least, whole = medians.values()
    print(f"{'ratio':<36}  {whole[0] / least[0]:>6.2f}  {whole[1] / least[1]:>11.2f}  {whole[2] / least[2]:>8.2f}")
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line for line in cpuinfo if line.startswith("model name")), platform.machine())
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scikit-learn", "matplotlib"))
    cores = len(os.sched_getaffinity(0))
    print(f"{model.split(':')[-1].strip()}, {cores} cores, load {os.getloadavg()[0]:.1f}; {packages}")


if __name__ == "__main__":
    main()
