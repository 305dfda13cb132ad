"""Names what images show: with a trained run, or with an exported model on the fastest engine."""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator

import config
from evaluation.gallery import SHOWN, Gallery
from imaging.images import ImageError
from inference.sources import find_images
from system import cli, machine
from system.errors import UserError


def answer_text(probabilities, model, top_k: int) -> str:
    """Says what an image shows, in one line: the likeliest classes, after "none of these" where none is likely."""
    from inference.predictor import NONE_OF_THESE, rank_classes

    best = rank_classes(probabilities, model.class_names, top_k)
    refused = model.threshold is not None and best[0][1] < model.threshold
    named = ", ".join(f"{name} {p:.4f}" for name, p in best)
    return f"{NONE_OF_THESE} ({named})" if refused else named


def score(items: Iterable[tuple[int, str]], model, settings, bar) -> Iterator[list]:
    """Runs pipeline.answers with the settings, and moves a progress bar."""
    from inference.pipeline import answers

    workers = settings.num_workers if settings.num_workers not in ("auto", 0) else max(2, machine.threads(settings))
    for batch in answers(items, model, settings.batch_size, settings.max_pixels, workers):
        yield batch
        bar.update(len(batch))


def print_answers(named: list[str], model, settings, gallery: Gallery) -> tuple[int, int]:
    """Answers for every image on the terminal.

    Returns:
        Number of images, and of those that could not be read.
    """
    done = failed = 0
    for batch in score(enumerate(find_images(named)), model, settings, progress(named, hidden=True)):
        for _, path, answer in batch:
            done += 1
            failed += _print(path, answer, model, settings.top_k)
            if not isinstance(answer, ImageError):
                gallery.add(path, answer)
    return done, failed


def _print(path: str, answer, model, top_k: int) -> bool:
    if isinstance(answer, ImageError):
        print(answer, file=sys.stderr)
        return True
    print(f"{path}: {answer_text(answer, model, top_k)}")
    return False


def progress(named: list[str], hidden: bool = False):
    """Makes a progress bar on stderr; images are counted only when somebody can see it."""
    from tqdm import tqdm

    hidden = hidden or not sys.stderr.isatty()
    return tqdm(total=None if hidden else sum(1 for _ in find_images(named)), unit=" images", disable=hidden)


def write_answers(named: list[str], model, settings, out: str, gallery: Gallery, quiet: bool) -> int:
    """Scores this process's share into its part; the process that ends last merges the parts into one file.

    Returns:
        Number of images that could not be read, of this process's share (all of them where it merged).
    """
    from inference.batch import writers
    from inference.batch.parts import Parts, Row
    from inference.predictor import NONE_OF_THESE

    rank, world = machine.rank()
    job = {"model": model.identity, "pictures": named, "max_pixels": settings.max_pixels}
    parts = Parts(out, job, rank, world)
    failed = 0
    quiet = quiet or world > 1
    with progress(named, hidden=not quiet or rank > 0) as bar:
        for batch in score(parts.left(find_images(named)), model, settings, bar):
            rows = [_row(Row, *item) for item in batch]
            parts.add(rows)
            failed += sum(bool(row.error) for row in rows)
            for _, path, answer in batch:
                if not quiet:
                    _print(path, answer, model, settings.top_k)
                if not isinstance(answer, ImageError):
                    gallery.add(path, answer)
    if parts.found:
        print(f"{out}: {parts.found} images had been scored earlier, none of them was scored again", file=sys.stderr)
    if parts.finish():
        count, failed = writers.write(parts.out, parts.rows(), model.class_names, model.threshold, NONE_OF_THESE)
        if count != parts.total:
            raise RuntimeError(f"{count} rows were written for {parts.total} images")
        parts.remove()
        print(f"{out}: {count} rows for {parts.total} images, {failed} of them could not be read", file=sys.stderr)
    return failed


def _row(make, index: int, path: str, answer):
    if isinstance(answer, ImageError):
        return make(index, path, f"{answer.reason}: {answer.detail}", ())
    return make(index, path, "", tuple(answer.tolist()))


def open_model(arguments: argparse.Namespace, overrides: list[str]):
    """Loads the model a command line names: --model FOLDER, --run FOLDER, or the run trained last.

    Returns:
        The model (predict, class_names, transform, threshold, identity) and the Settings.
    """
    settings = config.load(arguments.config, overrides)
    machine.share_one_heap()
    machine.prepare(settings)
    if arguments.model:
        from inference.predictor import ExportedModel

        device = machine.select_device(settings)
        model = ExportedModel(arguments.model, device, machine.threads(settings), settings.engine)
        if model.reason and machine.rank()[0] == 0:
            print(f"{arguments.model}: engine {model.engine} ({model.reason})", file=sys.stderr)
        return model, settings
    from evaluation.predictors import RunModel
    from models.checkpoint import open_run

    run, settings = open_run(arguments.run, settings.output_dir, overrides)
    machine.select_device(settings)
    return RunModel(run, settings), settings


def parse() -> tuple[argparse.Namespace, list[str], list[str]]:
    """Reads the command line.

    Returns:
        Options, settings, and what to look at.
    """
    parser = cli.parser(__doc__)
    parser.add_argument(
        "arguments",
        nargs="+",
        metavar="IMAGE|FOLDER|PATTERN|LIST.txt|KEY=VALUE",
        help="what to look at, and settings",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--run", metavar="FOLDER", help="a run that train.py made (the one trained last)")
    source.add_argument("--model", metavar="FOLDER", help="a model that export.py made")
    parser.add_argument("--out", metavar="FILE", help="write all probabilities to FILE.csv, .tsv, .json or .parquet; "
                        "the same command goes on where a killed one stopped")  # fmt: skip
    parser.add_argument(
        "--show", metavar="FILE", help=f"draw the images (the first {SHOWN}) with their answers into FILE.png"
    )
    parser.add_argument(
        "--explain", metavar="FILE", help="likewise under a heat map of what speaks for the answer; needs a run"
    )
    parser.add_argument("--quiet", action="store_true", help="with --out: no line an image, a progress bar instead")
    arguments = parser.parse_intermixed_args()
    overrides, named = cli.split_overrides(arguments.arguments)
    if not named:
        parser.error("name at least one image, folder or list")
    if machine.rank()[1] > 1 and not arguments.out:
        parser.error("several processes need --out FILE, where their answers come together")
    if arguments.explain and arguments.model:
        parser.error("--explain needs a run (--run FOLDER): an exported graph has no gradients")
    for figure in filter(None, (arguments.show, arguments.explain)):
        if not figure.lower().endswith(".png"):
            parser.error(f"{figure}: --show and --explain take a file ending in .png")
        if not os.path.isdir(os.path.dirname(figure) or "."):
            raise UserError(f"{figure}: its folder does not exist; make it or name another")
    return arguments, overrides, named


def main() -> int:
    """Command line of predict.py."""
    arguments, overrides, named = parse()
    if arguments.out:
        from inference.batch.writers import check_suffix

        check_suffix(arguments.out)
    model, settings = open_model(arguments, overrides)
    gallery = Gallery(arguments.show, arguments.explain)
    if arguments.out:
        failed = write_answers(named, model, settings, arguments.out, gallery, arguments.quiet)
        gallery.draw(model, settings)
        # Several processes share one exit status: their failures stand in the file.
        return 1 if failed and machine.rank()[1] == 1 else 0
    done, failed = print_answers(named, model, settings, gallery)
    gallery.draw(model, settings)
    if failed:
        print(f"{done - failed} images answered for, {failed} could not be read", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    cli.command(main)
