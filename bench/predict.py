"""Throughput of prediction end to end and of its parts, decoding and inference; speed and memory of predict.py.

    python bench/predict.py infer/NAME FOLDER [--sample 2000] [--sizes 1000,10000] [--batch 16] [--threads 2]

The three ways take turns, chunk by chunk, over a sample of FOLDER. Then predict.py runs on as many images as --sizes
names, in one process per size. If FOLDER holds fewer images, they are repeated.
"""

import argparse
import importlib.metadata
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

CHUNKS = 5


def main() -> None:
    """Prints two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a folder that export.py made")
    parser.add_argument("images", help="a folder of images")
    parser.add_argument("--sample", type=int, default=2000, help="images per way, in all (2000)")
    parser.add_argument("--sizes", default="1000,10000", help="numbers of images for predict.py (1000,10000)")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--engine", default="auto")
    arguments = parser.parse_args()
    import config
    from system import machine

    machine.prepare(config.load(overrides=[f"threads={arguments.threads}"]))
    from inference.predictor import ExportedModel
    from inference.sources import find_images
    from system import processor

    model = ExportedModel(arguments.model, threads=arguments.threads, engine=arguments.engine)
    found = list(find_images([arguments.images]))
    print(
        f"{processor.name()}, {machine.cores()} cores, {arguments.threads} threads; "
        f"{model.path}, engine {model.engine}; "
        f"paddlepaddle {importlib.metadata.version('paddlepaddle')}, pillow {importlib.metadata.version('pillow')}"
    )
    _ways(model, found, arguments)
    _command(found, arguments, model.engine)


def _ways(model, found: list[str], arguments: argparse.Namespace) -> None:
    endless, size = itertools.cycle(found), arguments.sample // CHUNKS
    ways = {"decode alone": _decode, "inference alone": _infer, "end to end": _both}
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(CHUNKS):
        paths = list(itertools.islice(endless, size))
        for way, run in ways.items():
            start = time.perf_counter()
            run(model, paths, arguments.batch, arguments.threads)
            times[way].append(time.perf_counter() - start)
    medians = {way: statistics.median(taken) for way, taken in times.items()}
    medians["one part after the other"] = medians["decode alone"] + medians["inference alone"]
    slower = max(medians["decode alone"], medians["inference alone"])
    print("| way | images/s | share of the slower part's |\n| --- | --- | --- |")
    for way, seconds in medians.items():
        print(f"| {way} | {size / seconds:.1f} | {slower / seconds:.2f} |", flush=True)


def _command(found: list[str], arguments: argparse.Namespace, engine: str) -> None:
    print("| images for predict.py | seconds | images/s | peak memory, MiB |\n| --- | --- | --- | --- |")
    for count in map(int, arguments.sizes.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            names = Path(folder) / "images.txt"
            names.write_text("".join(f"{path}\n" for path in itertools.islice(itertools.cycle(found), count)))
            command = [sys.executable, str(ROOT / "predict.py"), str(names), "--model", arguments.model, "--quiet",
                       "--out", f"{folder}/predictions.tsv", f"batch_size={arguments.batch}",
                       f"threads={arguments.threads}", f"engine={engine}"]  # fmt: skip
            start = time.perf_counter()
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            _, status, used = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - start
            rows = sum(1 for _ in open(f"{folder}/predictions.tsv", encoding="utf-8")) - 1  # noqa: SIM115
        if os.waitstatus_to_exitcode(status) or rows != count:
            raise RuntimeError(f"predict.py wrote {rows} rows of {count}")
        print(f"| {count} | {seconds:.1f} | {count / seconds:.1f} | {used.ru_maxrss // 1024} |", flush=True)


def _decode(model, paths: list[str], batch: int, threads: int) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from imaging.images import read_image

    with ThreadPoolExecutor(max(2, threads)) as pool:
        for _ in pool.map(lambda path: model.transform(read_image(path, 10**8)), paths):
            pass


def _infer(model, paths: list[str], batch: int, threads: int) -> None:
    images = np.zeros((batch, *model.image_shape), np.uint8)
    for at in range(0, len(paths), batch):
        model.predict(images[: len(paths) - at])


def _both(model, paths: list[str], batch: int, threads: int) -> None:
    from inference.pipeline import predict_images
    from inference.sources import ImageSource

    for _ in predict_images(enumerate(map(ImageSource, paths)), model, batch, 10**8, max(2, threads)):
        pass


if __name__ == "__main__":
    main()
