"""Speed and memory of annotate.py, compared with the plain decoding loop of tutorials.

    python bench/annotate.py signs FOLDER ...          each folder holds train/CLASS/ or CLASS/ folders
    python bench/annotate.py signs --times 10          also each folder with every image ten times (hard links)
    python bench/annotate.py signs --million           also a million hard links to the first folder's images

The loop opens each image, decodes it and checks its mode, in one process; it neither hashes nor writes anything.
Each contestant runs in its own process, in turn. Wall time and CPU time (of all processes) are of whole runs, start of
Python included. Memory is the peak of the process tree's proportional set size, which counts shared pages once (Linux).
"""

import argparse
import itertools
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
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
    """Lists a process and its descendants, by process id."""
    try:
        text = " ".join(p.read_text() for p in Path(f"/proc/{pid}/task").glob("*/children"))
    except OSError:
        text = ""
    return [pid, *(inner for child in text.split() for inner in children(int(child)))]


def memory_mib(pid: int) -> float:
    """Memory of a process tree in MiB; 0 where /proc does not report it."""
    total = 0
    for process in children(pid):
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def timed(command: list[str]) -> tuple[float, float, float]:
    """Runs a command; returns its seconds, its CPU seconds and its peak memory in MiB."""
    before, start, peaks, ended = cpu_seconds(), time.perf_counter(), [0.0], threading.Event()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT)

    def watch() -> None:
        # Not more often: summing the pages of three processes takes CPU time from them.
        while not ended.wait(0.1 if time.perf_counter() - start < 5 else 0.5):
            peaks.append(memory_mib(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    process.wait()
    seconds = time.perf_counter() - start
    ended.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit status {process.returncode}")
    return seconds, cpu_seconds() - before, max(peaks)


def cpu_seconds() -> float:
    """CPU time of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def commands(folder: Path, lists: Path) -> dict[str, list[str]]:
    """Command lines by name; a re-run comes right after the run whose results it reuses."""
    ours = [sys.executable, "annotate.py", f"data_dir={folder}", f"lists_dir={lists}"]
    return {
        "tutorial loop": [sys.executable, "-c", LOOP, str(folder)],
        "annotate, 1 worker": [*ours, "--fresh", "scan_workers=1"],
        "annotate, all cores": [*ours, "--fresh"],
        "annotate, nothing new": ours,
    }


def compare(folder: Path, rounds: int) -> None:
    """Times all contestants on a folder, in turn, and prints the table."""
    files = sum(len(names) for _, _, names in os.walk(folder))
    with tempfile.TemporaryDirectory() as lists:
        contest = commands(folder, Path(lists))
        runs: dict[str, list[tuple[float, float, float]]] = {name: [] for name in contest}
        for _ in range(rounds):
            for name, command in contest.items():
                runs[name].append(timed(command))
    print(f"\n{folder.name}: {files:,} files, median of {rounds}")
    print(f"{'':24}{'seconds':>9}{'files/s':>10}{'CPU ms/file':>13}{'MiB':>7}{'speed':>9}")
    loop = statistics.median(seconds for seconds, _, _ in runs["tutorial loop"])
    for name, results in runs.items():
        seconds, cpu = (statistics.median(result[place] for result in results) for place in (0, 1))
        peak = max(peak for _, _, peak in results)
        line = f"{name:24}{seconds:9.2f}{files / seconds:10,.0f}{1000 * cpu / files:13.3f}{peak:7.0f}"
        print(f"{line}{loop / seconds:8.2f}x", flush=True)


def compare_repeated(folder: Path, times: int, rounds: int) -> None:
    """Compares on a folder that holds every image several times, so that starting Python counts for less."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}-x{times}-") as many:
        for parent, _, names in os.walk(folder):
            place = Path(many, Path(parent).relative_to(folder))
            place.mkdir(parents=True, exist_ok=True)
            for name, number in itertools.product(names, range(times)):
                if name.endswith(".jpg"):
                    os.link(Path(parent, name), place / f"{number}-{name}")
        compare(Path(many), rounds)


def million(source: Path) -> None:
    """Checks a million hard links to the images of a folder; prints time and memory."""
    images = [Path(folder, name) for folder, _, names in os.walk(source) for name in names if name.endswith(".jpg")]
    with tempfile.TemporaryDirectory(dir=source.parent) as data, tempfile.TemporaryDirectory() as lists:
        for number, image in zip(range(MILLION), itertools.cycle(images)):
            folder = Path(data, "train", image.parent.name)
            folder.mkdir(parents=True, exist_ok=True)
            os.link(image, folder / f"{number}.jpg")
        print(f"\n{MILLION:,} hard links to {len(images):,} images")
        command = [sys.executable, "annotate.py", f"data_dir={data}", f"lists_dir={lists}"]
        for name in ("first run", "nothing new"):
            seconds, _, peak = timed(command)
            print(f"{name:24}{seconds:9.1f} s{MILLION / seconds:10,.0f} files/s{peak:7.0f} MiB")


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=lambda text: Path(text).resolve())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--times", type=int, default=1, metavar="N")
    parser.add_argument("--million", action="store_true")
    arguments = parser.parse_args()
    cpu = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = [line.split(":")[1].strip() for line in cpu if line.startswith("model name")]
    print(f"{model[0] if model else platform.processor()}, {os.cpu_count()} cores, {platform.platform()}")
    print(f"Python {platform.python_version()}, Pillow {PIL.__version__}, load before {os.getloadavg()[0]:.1f}")
    for folder in arguments.folders:
        compare(folder, arguments.rounds)
        if arguments.times > 1:
            compare_repeated(folder, arguments.times, arguments.rounds)
    if arguments.million:
        million(arguments.folders[0])


if __name__ == "__main__":
    main()
