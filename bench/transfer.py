"""From a folder of photos to a trained head and its report: this project, an earlier commit of it, PyTorch and Keras.

    python bench/transfer.py DATA WEIGHTS.pdparams [--before COMMIT] [--torch PYTHON] [--keras PYTHON] [--rounds 3]

DATA has train/, valid/ and test/; WEIGHTS are those of paddle's mobilenet_v2. Each way runs in processes of its own, in
turns, so that changes in the machine's load meet every way. Ours: annotate.py, train.py and evaluate.py, with nothing
cached, and again. The others: reading, training and the test accuracy, without a report.
"""

import argparse
import contextlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from models.weights_files import read_weights
from system import processor


def run(*command: str, cwd: Path) -> str:
    """Runs a command and returns what it printed.

    Raises:
        SystemExit: It failed; its last lines are printed.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OMP_")}
    ended = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{' '.join(command)}: {ended.stdout[-500:]}{ended.stderr[-1500:]}")
    return ended.stdout


def project(root: Path, folder: Path, weights: Path, data: Path, report: bool = True) -> str:
    """The commands of the project at `root`; returns the test accuracy, "-" without the report."""
    common = ["--config", str(root / "recipes" / "photos-transfer.yaml"), f"data_dir={data}", f"pretrained={weights}"]
    common += ["overwrite=true", f"lists_dir={folder}", f"output_dir={folder}"]
    for command in (["annotate.py", *common], ["train.py", *common]):
        run(sys.executable, str(root / command[0]), *command[1:], cwd=folder)
    if not report:
        return "-"
    out = run(sys.executable, str(root / "evaluate.py"), str(folder / "photos-transfer"), cwd=folder)
    return re.search(r"test accuracy (\S+)", out)[1]


@contextlib.contextmanager
def earlier(commit: str) -> Iterator[Path]:
    """Checks a commit out beside this one."""
    with tempfile.TemporaryDirectory() as folder:
        place = str(Path(folder) / "before")
        subprocess.run(["git", "worktree", "add", "-q", "--detach", place, commit], cwd=ROOT, check=True)
        try:
            yield Path(place)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", place], cwd=ROOT, check=True)


def as_torch(weights: Path, file: Path) -> None:
    """Writes the weights of paddle's mobilenet_v2 with torch's names and layout."""
    arrays = {}
    for key, value in read_weights(weights).items():
        name = key.replace("._mean", ".running_mean").replace("._variance", ".running_var")
        array = np.asarray(value)
        arrays[name] = array.T if array.ndim == 2 else array
    np.savez(file, **arrays)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--before", help="an earlier commit")
    parser.add_argument("--torch", help="a Python with torch, torchvision and scikit-learn")
    parser.add_argument("--keras", help="a Python with tensorflow, keras and scikit-learn")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    data, weights = arguments.data.resolve(), arguments.weights.resolve()
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (place / "ours").mkdir()
        (place / "before").mkdir()

        def fresh(report: bool) -> str:
            shutil.rmtree(place / "ours")
            (place / "ours").mkdir()
            return project(ROOT, place / "ours", weights, data, report)

        ways = {
            "ours": lambda: fresh(True),
            "ours, to the head": lambda: fresh(False),
            "ours, again": lambda: project(ROOT, place / "ours", weights, data),
        }
        if arguments.before:
            root = stack.enter_context(earlier(arguments.before))
            ways[f"commit {arguments.before[:7]}"] = lambda: project(root, place / "before", weights, data)
        if arguments.torch:
            as_torch(weights, place / "weights.npz")
            for way in ("features", "epochs"):
                line = (
                    arguments.torch,
                    str(ROOT / "bench/transfer_torch.py"),
                    str(data),
                    str(place / "weights.npz"),
                    way,
                )
                ways[f"PyTorch, {way}"] = lambda line=line: run(*line, cwd=place).strip()
        if arguments.keras:
            for way in ("features", "epochs"):
                line = (arguments.keras, str(ROOT / "bench/transfer_keras.py"), str(data), way)
                ways[f"Keras, {way}"] = lambda line=line: run(*line, cwd=place) and "-"
        times: dict[str, list[float]] = {name: [] for name in ways}
        accuracy = {}
        for _ in range(arguments.rounds):
            for name, way in ways.items():
                started = time.perf_counter()
                accuracy[name] = way()
                times[name].append(time.perf_counter() - started)
                print(f"{name}: {times[name][-1]:.1f} s", file=sys.stderr, flush=True)
    print(f"{processor.name()}, {len(os.sched_getaffinity(0))} cores; medians of {arguments.rounds}")
    print(f"{'way':24} {'seconds':>8} {'test accuracy':>14} {'to ours':>8}")
    ours = statistics.median(times["ours"])
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        print(f"{name:24} {middle:8.1f} {accuracy[name]:>14} {middle / ours:8.2f}")


if __name__ == "__main__":
    main()
