"""Predicts the classes of images, with a trained run or with an exported model on the fastest engine."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import config
from inference.batch import options  # optional: batch
from system import cli, machine
from system.settings import Settings

if TYPE_CHECKING:
    from inference.interfaces import Model
    from inference.pipeline import ImagePrediction
    from models.checkpoint import Run


def predict(
    images: str | os.PathLike | Sequence[str | os.PathLike],
    model: "Run | str | os.PathLike",
    settings: Settings | None = None,
) -> "list[ImagePrediction]":
    """Predicts images as the command does, and returns what it would print.

    Args:
        images: One or more images, folders, patterns or lists.
        model: A run, its folder, a folder that export.py made, or the prefix of a static model.
        settings: By default those of the run, or else those of config.yaml.

    Raises:
        UserError: There is no such model, or a list cannot be read.
    """
    machine.prepare(settings or config.load())
    from inference.pipeline import predict_inputs
    from models.checkpoint import Run

    inputs = [images] if isinstance(images, (str, os.PathLike)) else images
    if not isinstance(model, Run) and os.path.isfile(os.path.join(model, "config.yaml")):
        model = Run(model)
    loaded: Model
    if isinstance(model, Run):
        from evaluation.predictors import RunModel

        settings = settings or model.settings
        machine.select_device(settings)
        loaded = RunModel(model, settings)
    else:
        settings = settings or config.load()
        loaded = load_exported(os.fspath(model), settings)
    return predict_inputs([os.fspath(one) for one in inputs], loaded, settings)


def load_exported(path: str, settings: Settings) -> "Model":
    """Loads a folder that export.py made, or another static model; says on stderr what runs it, or what is assumed."""
    from inference.predictor import ExportedModel
    from inference.static_model import StaticModel, find_graph

    device, is_first = machine.select_device(settings), machine.rank()[0] == 0
    if (files := find_graph(path)) is not None:
        static = StaticModel(*files, settings, device, machine.threads(settings))
        if is_first:
            print(static.assumed, file=sys.stderr)
        return static
    exported = ExportedModel(path, device, machine.threads(settings), settings.engine)
    if exported.reason and is_first:
        print(f"{path}: engine {exported.engine} ({exported.reason})", file=sys.stderr)
    return exported


def parse() -> tuple[argparse.Namespace, list[str], list[str]]:
    """Reads the command line.

    Returns:
        Options, settings, and the inputs: images, folders, patterns and lists.
    """
    parser = cli.parser(__doc__)
    parser.add_argument(
        "arguments",
        nargs="+",
        metavar="IMAGE|FOLDER|PATTERN|LIST.txt|KEY=VALUE",
        help="images to predict, and settings",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--run", metavar="FOLDER", help="a run of train.py (by default the one trained last)")
    source.add_argument(
        "--model",
        metavar="FOLDER|PREFIX",
        help="a model that export.py made, or the prefix of a static model of paddle.Model.save",
    )
    # Batch jobs are optional, and so is the option that is asked for below.
    parser.set_defaults(out=None)
    options.add_options(parser)  # optional: batch
    parser.add_argument("--show", metavar="FILE", help="draw the first images with their predictions into FILE.png")
    parser.add_argument(
        "--explain", metavar="FILE", help="likewise under a heat map of what supports the prediction; needs a run"
    )
    parser.add_argument(
        "--explain-kind", choices=("heat", "maps"), default="heat",
        help="with --explain: heat maps, or filters and the feature maps of the first image (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--sort", metavar="FOLDER", help="copy images into FOLDER/labelled/CLASS, FOLDER/left/unsure and none-of-these"
    )
    parser.add_argument("--link", action="store_true", help="with --sort: symbolic links instead of copies")
    parser.add_argument(
        "--margin", type=float, default=0.2, metavar="N",
        help="with --sort: unsure where two classes differ by less in probability (%(default)s)",
    )  # fmt: skip
    arguments = parser.parse_intermixed_args()
    overrides, inputs = cli.split_overrides(arguments.arguments)
    check(parser, arguments, inputs)
    return arguments, overrides, inputs


def check(parser: argparse.ArgumentParser, arguments: argparse.Namespace, inputs: list[str]) -> None:
    """Refuses options that contradict each other, and figures that could not be written in the end."""
    if not inputs:
        parser.error("name at least one image, folder or list")
    if machine.rank()[1] > 1 and not arguments.out:
        parser.error("several processes need --out FILE, where their predictions come together")
    if arguments.explain and arguments.model:
        parser.error("--explain needs a run (--run FOLDER): an exported graph has no gradients")
    if arguments.explain_kind != "heat" and not arguments.explain:
        parser.error("--explain-kind goes with --explain FILE.png")
    if arguments.link and not arguments.sort:
        parser.error("--link goes with --sort FOLDER")
    if not 0 <= arguments.margin <= 1:
        parser.error(f"--margin {arguments.margin:g}: write a number from 0 to 1")
    if machine.rank()[1] > 1 and arguments.sort:
        parser.error("--sort takes one process")
    for figure in filter(None, (arguments.show, arguments.explain)):
        cli.check_figure(parser, figure)


def main() -> int:
    """Command line of predict.py."""
    arguments, overrides, inputs = parse()
    settings = config.load(arguments.config, overrides)
    machine.share_one_heap()
    machine.prepare(settings)
    from inference import sorting
    from inference.pipeline import PredictAll
    from inference.terminal import print_predictions

    if arguments.sort:
        sorting.check_apart(arguments.sort, inputs)
    model: Model
    if arguments.model:
        model = load_exported(arguments.model, settings)
    else:
        # An export needs nothing of what trained it.
        from evaluation.predictors import RunModel
        from models.runs import open_run

        run, settings = open_run(arguments.run, settings.output_dir, overrides)
        machine.select_device(settings)
        model = RunModel(run, settings)
    gallery = None
    if arguments.show or arguments.explain:
        # matplotlib loads for longer than a prediction takes.
        from evaluation.gallery import Gallery

        gallery = Gallery(arguments.show, arguments.explain, arguments.explain_kind)
    predict_all: PredictAll = print_predictions
    predict_all = options.predictor(arguments) or predict_all  # optional: batch
    sorter = sorting.Sorter(arguments.sort, model, arguments.margin, arguments.link) if arguments.sort else None
    on_prediction = sorting.each(gallery.add if gallery else None, sorter.add if sorter else None)
    failed = predict_all(inputs, model, settings, on_prediction)
    if gallery:
        gallery.draw(model, settings)
    if sorter:
        print(sorter.summary(), file=sys.stderr)
    # Several processes share one exit status: their failures are in the file.
    return 1 if failed and machine.rank()[1] == 1 else 0


if __name__ == "__main__":
    cli.command(main)
