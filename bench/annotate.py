"""How fast annotate.py checks a folder, beside the loop that tutorials use, and how much memory it takes.

    python bench/annotate.py signs FOLDER ...          every folder has train/CLASS/ or CLASS/ folders
    python bench/annotate.py signs --million           and a million hard links to the first folder's pictures

The loop opens each picture, decodes it and looks at its mode, in one process; it neither hashes nor writes anything.
Everything runs as a process of its own, turn about; times are whole runs, start of Python included. Memory is the
largest sum of what the process and its children have in memory, shared pages counted once (Linux).
"""

import argparse
import itertools
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import PIL

ROOT = Path(__file__).resolve().parent.parent
MILLION = 1_000_000
LOOP = """
import os, sys
from PIL import Image
kept = 0
for folder, _, names in os.walk(sys.argv[1]):
    for name in names:
        try:
            image = Image.open(os.path.join(folder, name))
            image.load()
            kept += image.mode == "RGB"
        except Exception:
            pass
print(kept)
"""


def children(pid: int) -> list[int]:
    """Lists a process and what it has started."""
    try:
        text = " ".join(p.read_text() for p in Path(f"/proc/{pid}/task").glob("*/children"))
    except OSError:
        text = ""
    return [pid, *(inner for child in text.split() for inner in children(int(child)))]


def memory_mib(pid: int) -> float:
    """Adds up the memory of a process tree, MiB; 0 where the system does not tell."""
    total = 0
    for process in children(pid):
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def timed(command: list[str]) -> tuple[float, float]:
    """Runs a command; returns its seconds and its peak memory in MiB."""
    start, peak = time.perf_counter(), 0.0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT)
    while process.poll() is None:
        peak = max(peak, memory_mib(process.pid))
        time.sleep(0.02 if time.perf_counter() - start < 5 else 0.5)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit status {process.returncode}")
    return time.perf_counter() - start, peak


def commands(folder: Path, lists: Path) -> dict[str, list[str]]:
    """Names the contestants: a re-run comes after the run whose verdicts it remembers."""
    ours = [sys.executable, "annotate.py", f"data_dir={folder}", f"lists_dir={lists}"]
    return {
        "tutorial loop": [sys.executable, "-c", LOOP, str(folder)],
        "annotate, 1 worker": [*ours, "--fresh", "scan_workers=1"],
        "annotate, all cores": [*ours, "--fresh"],
        "  without copies": [*ours, "--fresh", "duplicates=none"],
        "annotate, nothing new": ours,
    }


def compare(folder: Path, rounds: int) -> None:
    """Times all contestants on a folder, turn about, and prints the table."""
    files = sum(len(names) for _, _, names in os.walk(folder))
    with tempfile.TemporaryDirectory() as lists:
        contest = commands(folder, Path(lists))
        times: dict[str, list[float]] = {name: [] for name in contest}
        peaks = dict.fromkeys(contest, 0.0)
        for _ in range(rounds):
            for name, command in contest.items():
                if name == "annotate, nothing new":
                    # The run before asked for other copies: this one decides anew, the timed one has nothing to do.
                    timed(command)
                seconds, peak = timed(command)
                times[name].append(seconds)
                peaks[name] = max(peaks[name], peak)
    print(f"\n{folder}: {files:,} files, median of {rounds}")
    print(f"{'':24}{'seconds':>9}{'files/s':>10}{'MiB':>7}{'speed':>9}")
    loop = statistics.median(times["tutorial loop"])
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        print(f"{name:24}{middle:9.2f}{files / middle:10,.0f}{peaks[name]:7.0f}{loop / middle:8.2f}x")


def million(source: Path) -> None:
    """Checks a million hard links to the pictures of a folder and prints time and memory."""
    pictures = [Path(folder, name) for folder, _, names in os.walk(source) for name in names if name.endswith(".jpg")]
    with tempfile.TemporaryDirectory(dir=source.parent) as data, tempfile.TemporaryDirectory() as lists:
        for number, picture in zip(range(MILLION), itertools.cycle(pictures)):
            folder = Path(data, "train", picture.parent.name)
            folder.mkdir(parents=True, exist_ok=True)
            os.link(picture, folder / f"{number}.jpg")
        print(f"\n{MILLION:,} stand-ins ({len(pictures):,} pictures)")
        command = [sys.executable, "annotate.py", f"data_dir={data}", f"lists_dir={lists}"]
        for name in ("first run", "nothing new"):
            seconds, peak = timed(command)
            print(f"{name:24}{seconds:9.1f} s{MILLION / seconds:10,.0f} files/s{peak:7.0f} MiB")


def main() -> None:
    """Runs the bench."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=lambda text: Path(text).resolve())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--million", action="store_true")
    arguments = parser.parse_args()
    cpu = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = [line.split(":")[1].strip() for line in cpu if line.startswith("model name")]
    print(f"{model[0] if model else platform.processor()}, {os.cpu_count()} cores, {platform.platform()}")
    print(f"Python {platform.python_version()}, Pillow {PIL.__version__}, load before {os.getloadavg()[0]:.1f}")
    for folder in arguments.folders:
        compare(folder, arguments.rounds)
    if arguments.million:
        million(arguments.folders[0])


if __name__ == "__main__":
    main()
