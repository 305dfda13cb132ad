"""Batch jobs: predict.py --out, from the inputs to the file of predictions."""

import sys
from collections.abc import Sequence

import numpy as np

from imaging.images import ImageError
from inference.batch import writers
from inference.batch.parts import Parts, Row
from inference.interfaces import Model
from inference.pipeline import OnPrediction, decoding_threads, predict_images, progress_bar
from inference.sources import ImageSource, SkippedFiles, find_sources, have_labels
from inference.terminal import Matches, print_line
from system import machine
from system.settings import Settings
from system.text import counted, inflect


def write_predictions(
    out: str,
    quiet: bool,
    inputs: Sequence[str],
    model: Model,
    settings: Settings,
    on_prediction: OnPrediction,
) -> int:
    """Predicts this process's share of the images; the process that ends last merges the parts into one file.

    Args:
        out: The file.
        quiet: Print no line per image.

    Returns:
        Number of images that could not be read, in this process's share (in all of them where it merged).

    Raises:
        UserError: A list cannot be read, or its labels are not of the model's classes.
    """
    rank, world = machine.rank()
    job = {"model": model.identity, "pictures": inputs, "max_pixels": settings.max_pixels}
    quiet = quiet or world > 1
    matches = Matches() if have_labels(inputs, model.class_names) else None
    with Parts(out, job, rank, world) as parts:
        failed = 0
        skipped = SkippedFiles()
        items = parts.remaining(find_sources(inputs, skipped, len(model.class_names)))
        with progress_bar(inputs, is_shown=quiet and rank == 0) as bar:
            for batch in predict_images(
                items, model, settings.batch_size, settings.max_pixels, decoding_threads(settings)
            ):
                parts.add([_row(*prediction) for prediction in batch])
                bar.update(len(batch))
                for _, source, result in batch:
                    if not quiet:
                        print_line(source, result, model, settings.top_k)
                    if isinstance(result, ImageError):
                        failed += 1
                    else:
                        on_prediction(source, result)
        if str(skipped) and rank == 0:
            print(skipped, file=sys.stderr)
        if parts.resumed:
            were = inflect(parts.resumed, "was", "were")
            print(
                f"{out}: {counted(parts.resumed, 'image')} had been predicted earlier and {were} not repeated",
                file=sys.stderr,
            )
        return _merge(parts, model, matches) if parts.finish() else failed


def _row(index: int, source: ImageSource, result: np.ndarray | ImageError) -> Row:
    if isinstance(result, ImageError):
        return Row(index, source.path, f"{result.reason}: {result.detail}", (), source.label)
    return Row(index, source.path, "", tuple(result.tolist()), source.label)


def _merge(parts: Parts, model: Model, matches: Matches | None) -> int:
    """Writes the output file and removes the parts; returns the number of images that could not be read."""
    count, failed = writers.write(parts.out, parts.rows(), model.class_names, model.threshold, matches)
    if count != parts.total:
        raise RuntimeError(f"{count} rows were written for {parts.total} images")
    parts.remove()
    print(
        f"{parts.out}: {counted(count, 'row')} for {counted(parts.total, 'image')}, {failed} of them could not be read",
        file=sys.stderr,
    )
    if matches and str(matches):
        print(matches, file=sys.stderr)
    return failed
