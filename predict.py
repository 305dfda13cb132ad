"""Names what pictures show: with a trained run, or with an exported model through Paddle Inference."""

import argparse
import csv
import glob
import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import config
import runtime
from config import UserError
from pictures import SUFFIXES, PictureError, read_image

# Pictures that --show draws at most, and the side of each, in pixels.
SHOWN, SHOWN_SIDE = 60, 256


class RunModel:
    """A trained run behind the interface of inference.ExportedModel."""

    def __init__(self, run, settings):
        from transforms import EvalTransform

        self.class_names = run.class_names
        self.transform = EvalTransform.from_settings(settings)
        self.network = run.load_network()

    def predict(self, images):
        """Computes probabilities float32 [N, C] of raw pixels uint8 [N, 3, H, W]."""
        import paddle

        with paddle.no_grad():
            return paddle.nn.functional.softmax(self.network(paddle.to_tensor(images)), axis=-1).numpy()


def find_pictures(arguments: Iterable[str]) -> Iterator[str]:
    """Lists picture files: files as named, folders searched through, patterns expanded; sorted within each.

    Raises:
        UserError: An argument names nothing.
    """
    for argument in arguments:
        if os.path.isdir(argument):
            yield from _in_folder(argument)
        elif os.path.lexists(argument) or not glob.has_magic(argument):
            # A missing file is reported like an unreadable one, when its turn comes.
            yield argument
        else:
            found = sorted(glob.glob(argument, recursive=True))
            if not found:
                raise UserError(f"{argument}: no file matches; check the pattern")
            yield from (path for path in found if os.path.isfile(path))


def _in_folder(folder: str) -> Iterator[str]:
    found = False
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES):
                found = True
                yield os.path.join(parent, name)
    if not found:
        raise UserError(f"{folder}: no picture in this folder; name another")


def answers(paths: Iterable[str], model, batch_size: int, max_pixels: int) -> Iterator[tuple[str, object]]:
    """Predicts batch by batch, so that memory does not grow with the number of pictures.

    Yields:
        Each path in order, with its probabilities float32 [C] or the PictureError that kept it from being read.
    """
    import numpy as np

    iterator = iter(paths)
    while batch := list(itertools.islice(iterator, batch_size)):
        read: list[tuple[str, object]] = []
        for path in batch:
            try:
                read.append((path, model.transform(read_image(path, max_pixels))))
            except PictureError as error:
                read.append((path, error))
        images = [pixels for _, pixels in read if not isinstance(pixels, PictureError)]
        rows = iter(model.predict(np.stack(images)) if images else ())
        for path, pixels in read:
            yield path, pixels if isinstance(pixels, PictureError) else next(rows)


def ranking(probabilities, class_names: list[str], top_k: int) -> list[tuple[str, float]]:
    """Sorts classes by probability, the likeliest first, at most top_k."""
    order = (-probabilities).argsort(kind="stable")[:top_k]
    return [(class_names[i], float(probabilities[i])) for i in order]


class Writer:
    """Writes predictions as they come to a .csv or .json file, under a temporary name until it is closed."""

    def __init__(self, path: str, class_names: list[str]):
        self.path, self.class_names = Path(path), class_names
        self.as_json = self.path.suffix.lower() == ".json"
        self.temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        self.count = 0
        try:
            self.file = open(self.temporary, "w", encoding="utf-8", newline="", errors="surrogateescape")
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror}); choose another file") from None
        self.csv = csv.writer(self.file)
        if self.as_json:
            self.file.write("[")
        else:
            self.csv.writerow(["path", "prediction", "probability", *class_names])

    def add(self, path: str, probabilities) -> None:
        """Writes one picture's answer."""
        best = int(probabilities.argmax())
        values = [float(p) for p in probabilities]
        if self.as_json:
            row = {"path": path, "prediction": self.class_names[best], "probability": values[best]}
            row["probabilities"] = dict(zip(self.class_names, values, strict=True))
            self.file.write((",\n" if self.count else "\n") + json.dumps(row, ensure_ascii=False))
        else:
            self.csv.writerow([path, self.class_names[best], *(f"{v:.8f}" for v in (values[best], *values))])
        self.count += 1

    def close(self, keep: bool) -> None:
        """Puts the file in place, or drops it."""
        if self.as_json:
            self.file.write("\n]\n")
        self.file.close()
        if keep:
            os.replace(self.temporary, self.path)
        else:
            self.temporary.unlink()


def predict(paths: Iterable[str], model, settings, out: str | None, show: str | None) -> tuple[int, int]:
    """Answers for every picture on the terminal, in a file, and as a figure.

    Returns:
        Number of pictures answered for and number that could not be read.
    """
    writer = Writer(out, model.class_names) if out else None
    shown: list[tuple[str, str]] = []
    done = failed = 0
    finished = False
    try:
        for path, answer in answers(paths, model, settings.batch_size, settings.max_pixels):
            if isinstance(answer, PictureError):
                failed += 1
                print(answer, file=sys.stderr)
                continue
            done += 1
            best = ranking(answer, model.class_names, settings.top_k)
            print(f"{path}: " + ", ".join(f"{name} {p:.4f}" for name, p in best))
            if writer:
                writer.add(path, answer)
            if len(shown) < SHOWN:
                shown.append((path, "{} {:.2f}".format(*best[0])))
        finished = True
    finally:
        if writer:
            writer.close(keep=finished)
    if show and shown:
        draw(shown, show, settings.max_pixels)
    return done, failed


def draw(shown: list[tuple[str, str]], path: str, max_pixels: int) -> None:
    """Draws pictures with their answers into a PNG."""
    import plots

    images = [read_image(file, max_pixels) for file, _ in shown]
    for image in images:
        image.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    plots.grid(images, [caption for _, caption in shown], path)


def open_model(parser: argparse.ArgumentParser, arguments: argparse.Namespace, overrides: list[str]):
    """Loads the model a command line names: --model FOLDER, --run FOLDER, or the run trained last.

    Returns:
        The model (predict, class_names, transform) and the Settings.
    """
    settings = config.load(arguments.config, overrides)
    runtime.prepare(settings)
    if arguments.model:
        from inference import ExportedModel

        device = runtime.select_device(settings)
        return ExportedModel(arguments.model, device, runtime.threads(settings)), settings
    from checkpoint import find
    from evaluate import run_settings

    run = find(arguments.run, settings.output_dir)
    if not arguments.run:
        print(f"run: {run.path} (the one trained last)", file=sys.stderr)
    settings = run_settings(run, overrides)
    runtime.select_device(settings)
    return RunModel(run, settings), settings


def main() -> int:
    """Command line of predict.py."""
    parser = config.parser(__doc__)
    parser.add_argument("arguments", nargs="+", metavar="PICTURE|FOLDER|PATTERN|KEY=VALUE", help="what to look at, and settings")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--run", metavar="FOLDER", help="a run that train.py made (the one trained last)")
    source.add_argument("--model", metavar="FOLDER", help="a model that export.py made")
    parser.add_argument("--out", metavar="FILE", help="write all probabilities to FILE.csv or FILE.json")
    parser.add_argument("--show", metavar="FILE", help=f"draw the pictures (the first {SHOWN}) with their answers into FILE.png")
    arguments = parser.parse_args()
    overrides, named = config.split_overrides(arguments.arguments)
    if not named:
        parser.error("name at least one picture or folder")
    if arguments.out and not arguments.out.lower().endswith((".csv", ".json")):
        parser.error("--out takes a file ending in .csv or .json")
    model, settings = open_model(parser, arguments, overrides)
    done, failed = predict(find_pictures(named), model, settings, arguments.out, arguments.show)
    if failed:
        print(f"{done} pictures answered for, {failed} could not be read", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    config.command(main)
