"""Checks a folder of images and writes the lists that training reads.

Every image is decoded; images that cannot be used are left out, with the reason. Copies are found, within and across
splits; missing splits are made; annotate.html reports everything. The images themselves are never changed.
"""

import argparse
import random
from collections import Counter

import config
from annotation import rerun
from annotation.labels_file import refuse_overwriting
from annotation.layout import Layout, find_layout, refuse_loose_images
from annotation.names import LIST_FORMATS
from annotation.splits import Summary
from annotation.store import DamagedStore, open_store
from annotation.summary import print_summary
from annotation.walk import Walk, walk
from system import cli, language
from system.machine import cores
from system.settings import Settings
from system.windows import quoted

# Images that --show draws, and the longer side of each in pixels.
SHOWN, SHOWN_SIDE = 20, 256


def command_line() -> argparse.ArgumentParser:
    """Creates the argument parser."""
    parser = cli.parser(__doc__)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings, as in config.yaml")
    parser.add_argument("--fresh", action="store_true", help="ignore remembered verdicts and decode every file again")
    parser.add_argument(
        "--format",
        choices=LIST_FORMATS,
        default="tsv",
        help="tsv: lists for train.py; csv: the same, and labels.csv, which labels_file reads; "
        "paddlex: train.txt, val.txt, test.txt and label.txt for PaddleX and PaddleClas",
    )
    parser.add_argument("--show", metavar="FILE", help="draw training images with their classes into FILE.png")
    return parser


def main() -> None:
    """Runs the command."""
    parser = command_line()
    # Settings may come before, between and after the options.
    arguments = parser.parse_intermixed_args()
    overrides, rest = cli.split_overrides(arguments.overrides)
    if rest:
        parser.error(f"{rest[0]}: write settings as KEY=VALUE")
    if arguments.show and arguments.format == "paddlex":
        parser.error("--show reads lists of --format tsv or csv")
    if arguments.show:
        cli.check_figure(parser, arguments.show)
    settings = config.load(arguments.config, overrides)
    summary, layout, decoded = annotate(settings, arguments.fresh, arguments.format)
    print_summary(summary, layout, settings, decoded)
    if arguments.format != "paddlex":
        empty = [split for split in ("train", "valid") if not summary.total(split)]
        if empty:
            remedy = "give images that split" if layout.labelled else "put images into a folder of that name"
            print(f"train.py cannot run yet: no image in {' and '.join(empty)}; {remedy}")
        else:
            print(f"next: {next_command(arguments.config, overrides)}")
    if arguments.show:
        print(f"{arguments.show}: {show(settings, arguments.show)} training images with their classes")


def annotate(settings: Settings, fresh: bool = False, list_format: str = "tsv") -> tuple[Summary, Layout, int]:
    """Checks the data folder and writes the lists.

    Args:
        fresh: Ignores the verdicts of earlier runs.
        list_format: One of LIST_FORMATS.

    Returns:
        The counts, the layout, and the number of files that were decoded.

    Raises:
        UserError: The folders do not fit together, a leak is not allowed, or a file cannot be written.
    """
    language.choose(settings.language)
    layout = find_layout(settings)
    if layout.labelled:
        refuse_overwriting(layout.labelled.files, settings.lists, list_format)
    try:
        return _annotate(settings, layout, fresh, list_format)
    except DamagedStore:
        # It has nothing that cannot be computed again.
        return _annotate(settings, layout, True, list_format)


def _annotate(settings: Settings, layout: Layout, fresh: bool, list_format: str) -> tuple[Summary, Layout, int]:
    with open_store(settings.lists, layout.data_dir, fresh) as store:
        summary = rerun.unchanged(store, layout, settings, list_format)
        if summary:
            return summary, layout, 0

        # Only now: a re-run that finds nothing new takes less time than these imports.
        from annotation.worker_pool import Pool

        workers = cores() if settings.scan_workers == "auto" else settings.scan_workers
        with Pool(workers, layout.data_dir, settings.max_pixels) as pool:
            # Workers start meanwhile.
            from annotation import scan
            from imaging.formats import suffixes

            refuse_loose_images(layout, suffixes())
            seen = Walk()
            store.reset_verdicts(settings.max_pixels)
            store.add_files(walk(layout, seen))
            store.commit()
            decoded = scan.verify_files(store, pool)
            summary = scan.decide(store, pool, layout, settings, seen)
            scan.publish(store, pool, layout, settings, seen, summary, list_format)
        rerun.remember(store, layout, settings, list_format, seen, summary)
        return summary, layout, decoded


def show(settings: Settings, file: str) -> int:
    """Draws training images with their classes, drawn at random by `seed`: one of each class before a second one.

    Args:
        file: PNG to write.

    Returns:
        How many were drawn, at most SHOWN.

    Raises:
        UserError: No training image is listed, or one cannot be read.
    """
    from annotation.lists import read_split
    from evaluation import plots
    from imaging.images import read_image

    samples, class_names = read_split(settings, "train")
    random.Random(settings.seed).shuffle(samples)
    seen: Counter[int] = Counter()
    rounds = []
    for sample in samples:
        rounds.append((seen[sample.label], sample.label))
        seen[sample.label] += 1
    chosen = [samples[index] for index in sorted(range(len(samples)), key=rounds.__getitem__)[:SHOWN]]
    images = [read_image(sample.file, settings.max_pixels) for sample in chosen]
    for image in images:
        image.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    plots.grid(images, [class_names[sample.label] for sample in chosen], file, columns=5)
    return len(chosen)


def next_command(file: str | None, overrides: list[str]) -> str:
    """The command that trains on these lists, with the settings that it needs to find them."""
    needed = ("data_dir=", "lists_dir=", "max_pixels=")
    kept = ["--config", file] if file else []
    kept += [argument for argument in overrides if argument.lower().startswith(needed)]
    return quoted(["python", "train.py", *kept])


if __name__ == "__main__":
    cli.command(main)
