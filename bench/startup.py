"""How long the commands take before they are of use, on the 720 small drawings of signs/, beside the least they load.

    python bench/startup.py [--rounds 5] [--only TEXT] [--beside CHECKOUT]

The least is Python itself, or `import paddle` where a command needs Paddle. --beside times another checkout of this
project in the same rounds. Other libraries are imported for comparison where they are installed. CPU time is that of
all processes, from the start to the exit; where a line is waited for, the command is ended once it has come.
"""

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ("annotate", "explore", "review", "train", "evaluate", "predict", "export", "serve")
PYTHON, PADDLE = "python -c pass", "import paddle"
PEERS = ("torch, torchvision", "tensorflow", "keras", "ultralytics")
SMALL = "network=cnn image_shape=[3,32,32] epochs=1 device=cpu overwrite=true".split()


class Row(NamedTuple):
    """What is timed.

    Attributes:
        least: Name of the row that it is compared with.
        line: Pattern of the line that is waited for; "": the command's end.
        status: Exit status of a command whose end is waited for.
    """

    arguments: list[str]
    least: str = PYTHON
    line: str = ""
    status: int = 0


def rows(signs: Path) -> dict[str, Row]:
    """The commands of a checkout by what is waited for; run in a folder that `prepare` has filled."""
    data = [f"data_dir={signs}", "lists_dir=lists"]
    image, run = str(signs / "test" / "dog" / "00000001.jpg"), "output/run"
    helps = {f"{name}.py --help": Row([f"{name}.py", "--help"]) for name in COMMANDS}
    return helps | {
        "train.py epochs=x, the error": Row(["train.py", "epochs=x"], status=1),
        "annotate.py, every file new": Row(["annotate.py", f"data_dir={signs}", "lists_dir=other", "--fresh"]),
        "annotate.py, nothing new": Row(["annotate.py", *data]),
        "review.py, its address": Row(["review.py", *data, "--no-browser", "--port", "0"], line="http://"),
        "train.py, first epoch of cnn": Row(
            ["train.py", *data, *SMALL, "epochs=2", "run_name=timed"], PADDLE, line="epoch 1/2"
        ),
        "train.py, a head on features": Row(
            ["train.py", *data, *SMALL, "run_name=head", f"pretrained={run}", "freeze=true"], PADDLE
        ),
        "evaluate.py": Row(["evaluate.py", run], PADDLE),
        "predict.py, an image by a run": Row(["predict.py", image, "--run", run], PADDLE),
        "predict.py, an image by an export": Row(["predict.py", image, "--model", "infer/run"], PADDLE),
        "export.py": Row(["export.py", run, "export_dir=other"], PADDLE),
        "serve.py, ready with 1 worker": Row(
            ["serve.py", "infer/run", "--port", "0", "--workers", "1"], PADDLE, line="http://"
        ),
    }


def prepare(root: Path, place: Path) -> None:
    """Makes what the rows read: lists, a run of one epoch, its export, and tables for review.py."""
    for name in ("lists", "other"):
        (place / name).mkdir(parents=True)
    data = [f"data_dir={ROOT / 'signs'}", "lists_dir=lists"]
    for line in (
        ["annotate.py", *data],
        ["train.py", *data, *SMALL, "run_name=run"],
        ["export.py", "output/run"],
        ["explore.py", *data, *SMALL, "run_name=run", "pretrained=output/run"],
    ):
        measure([sys.executable, str(root / line[0]), *line[1:]], Row([]), place)


def measure(command: list[str], row: Row, place: Path) -> tuple[float, float]:
    """Runs a command; returns wall and CPU seconds until what is waited for.

    Raises:
        SystemExit: It failed, or the line never came.
    """
    # Compiled modules are kept, as by default: what is timed is not the first start.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    started = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=place, env=kept, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    said, seconds = [], 0.0
    for line in process.stdout:
        said.append(line)
        if row.line and not seconds and re.search(row.line, line):
            seconds = time.perf_counter() - started
            process.terminate()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if (not seconds) if row.line else (process.returncode != row.status):
        raise SystemExit(f"{' '.join(command)}: exit status {process.returncode}\n{''.join(said)[-2000:]}")
    return seconds or time.perf_counter() - started, used.ru_utime + used.ru_stime


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose name holds this")
    parser.add_argument("--beside", type=Path, metavar="CHECKOUT", help="another checkout of this project")
    arguments = parser.parse_args()
    roots = [ROOT, *([arguments.beside.resolve()] if arguments.beside else [])]
    imports = {PYTHON: "pass", PADDLE: "import warnings; warnings.simplefilter('ignore'); import paddle"} | {
        f"import {names}": f"import {names}" for names in PEERS if all(map(find_spec, names.split(", ")))
    }
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder) / str(number) for number in range(len(roots))]
        for root, place in zip(roots, places, strict=True):
            prepare(root, place)
        timed = {name: row for name, row in rows(ROOT / "signs").items() if arguments.only in name}
        for _ in range(arguments.rounds):
            for name, code in imports.items():
                found.setdefault((name, 0), []).append(measure([sys.executable, "-c", code], Row([]), places[0]))
            for name, row in timed.items():
                for number, (root, place) in enumerate(zip(roots, places, strict=True)):
                    command = [sys.executable, str(root / row.arguments[0]), *row.arguments[1:]]
                    found.setdefault((name, number), []).append(measure(command, row, place))
    medians = {key: [statistics.median(column) for column in zip(*all_, strict=True)] for key, all_ in found.items()}
    show(medians, {name: Row([]) for name in imports} | timed, len(roots))


def show(medians: dict[tuple[str, int], list[float]], timed: dict[str, Row], checkouts: int) -> None:
    """Prints the table of medians, by row and number of the checkout, and what they were measured on."""
    beside = ("there s", "there CPU s") if checkouts > 1 else ()
    head = ("waited for", "s", "CPU s", *beside, "least", "s", "CPU s", "ratio", "ratio of CPU")
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    for name, row in timed.items():
        own, least = medians[name, 0], medians[row.least, 0]
        there = medians.get((name, 1), []) if beside else []
        shown = [*(f"{seconds:.2f}" for seconds in [*own, *there]), *[""] * (len(beside) - len(there))]
        ratios = [f"{one / other:.2f}" for one, other in zip(own, least, strict=True)]
        print(f"| {' | '.join([name, *shown, row.least, *(f'{one:.2f}' for one in least), *ratios])} |")
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name")), platform.machine())
    packages = ", ".join(f"{one} {version(one)}" for one in ("paddlepaddle", "numpy", "scikit-learn", "matplotlib"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"{model}, {cores} cores, load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}, {packages}")


if __name__ == "__main__":
    main()
