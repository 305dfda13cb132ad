"""Scoring from end to end beside the sum of its parts: decode alone, inference alone, both at once; and the memory.

    python bench/predict.py infer/NAME FOLDER [--count 10000] [--batch 16] [--threads 2]

The pictures of FOLDER are taken again and again until there are enough. The three ways take turns, chunk by chunk.
"""

import argparse
import itertools
import resource
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

CHUNKS = 5


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a folder that export.py made")
    parser.add_argument("pictures", help="a folder of pictures")
    parser.add_argument("--count", type=int, default=10_000, help="pictures each way scores in all (10000)")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--engine", default="auto")
    arguments = parser.parse_args()
    import config
    import runtime

    runtime.prepare(config.load(overrides=[f"threads={arguments.threads}"]))
    from deployment.engines import processor
    from inference import ExportedModel
    from scoring.sources import find_pictures

    model = ExportedModel(arguments.model, threads=arguments.threads, engine=arguments.engine)
    endless = itertools.cycle(list(find_pictures([arguments.pictures])))
    size = arguments.count // CHUNKS
    ways = {"decode alone": _decode, "inference alone": _infer, "end to end": _both}
    times: dict[str, list[float]] = {way: [] for way in ways}
    memory = []
    for _ in range(CHUNKS):
        paths = list(itertools.islice(endless, size))
        for way, run in ways.items():
            start = time.perf_counter()
            run(model, paths, arguments.batch, arguments.threads)
            times[way].append(time.perf_counter() - start)
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    medians = {way: statistics.median(taken) for way, taken in times.items()}
    slower = max(medians["decode alone"], medians["inference alone"])
    both = medians["decode alone"] + medians["inference alone"]
    print(f"{processor()}, {config.cores()} cores, {arguments.threads} threads, engine {model.engine}")
    print("| way | pictures/s | rate, of the slower part's |\n| --- | --- | --- |")
    for way, seconds in medians.items():
        print(f"| {way} | {size / seconds:.1f} | {slower / seconds:.2f} |")
    print(f"| one after the other | {size / both:.1f} | {slower / both:.2f} |")
    print(f"peak memory after {size} pictures {memory[0]} MiB, after {size * CHUNKS} {memory[-1]} MiB")


def _decode(model, paths: list[str], batch: int, threads: int) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from pictures import read_image

    with ThreadPoolExecutor(max(2, threads)) as pool:
        for _ in pool.map(lambda path: model.transform(read_image(path, 10**8)), paths):
            pass


def _infer(model, paths: list[str], batch: int, threads: int) -> None:
    images = np.zeros((batch, *model.image_shape), np.uint8)
    for at in range(0, len(paths), batch):
        model.predict(images[: len(paths) - at])


def _both(model, paths: list[str], batch: int, threads: int) -> None:
    from scoring.pipeline import answers

    for _ in answers(enumerate(paths), model, batch, 10**8, max(2, threads)):
        pass


if __name__ == "__main__":
    main()
