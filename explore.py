"""Explores a data set before any training: the accuracy to expect, label errors, similar images, what to label next."""

import argparse
import sys
from pathlib import Path
from typing import Any

import config
from system import cli, machine
from system.settings import Settings
from system.windows import quoted


def main() -> None:
    """Command line of explore.py."""
    arguments, overrides = parse()
    settings = config.load(arguments.config, overrides)
    if arguments.backbones:
        compare_backbones(settings, arguments.backbones)
        return
    explore(settings, arguments.pool, arguments.out, quoted(["python", "explore.py", *sys.argv[1:]]))


def parse() -> tuple[argparse.Namespace, list[str]]:
    """Reads the command line.

    Returns:
        Options, and settings.
    """
    parser = cli.parser(__doc__)
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings that override config.yaml")
    parser.add_argument("--pool", metavar="FOLDER", help="unlabelled images: rank them by how much they would teach")
    parser.add_argument("--out", metavar="FOLDER", help="where the files go (explore-NAME below output_dir)")
    parser.add_argument(
        "--backbones", metavar="A,B=WEIGHTS", help="compare networks on these images instead, by accuracy and speed"
    )
    arguments = parser.parse_intermixed_args()
    if arguments.backbones and (arguments.pool or arguments.out):
        parser.error("--backbones takes neither --pool nor --out")
    return arguments, arguments.settings


def explore(
    settings: Settings, pool: str | None = None, folder: str | Path | None = None, command: str = "python explore.py"
) -> dict[str, Any]:
    """Explores the images of the lists with a pretrained network, prints what was found and writes it into a folder.

    The folder then holds explore.html, explore.json, suspects.tsv, similar.tsv, unlike.tsv, features.npz and, with a
    pool, pool.tsv.

    Args:
        settings: With a pretrained network.
        pool: Folder of unlabelled images to rank; None: none.
        folder: Where the files go; by default explore-NAME below output_dir.
        command: The command line that the page shows.

    Returns:
        The content of explore.json.

    Raises:
        UserError: The network is not pretrained, a file cannot be read, or there are too few images.
    """
    machine.prepare(settings)
    from exploration import explorer, outputs, terminal

    explorer.require_pretrained(settings)
    device = machine.select_device(settings)
    machine.seed_all(settings.seed)
    found = explorer.explore(settings, pool, device)
    target = Path(folder) if folder is not None else settings.run.with_name(f"explore-{settings.run.name}")
    outputs.write(found, target, command)
    print(terminal.text(found, target))
    return found.content()


def compare_backbones(settings: Settings, text: str) -> list[dict[str, Any]]:
    """Compares networks on the images of the lists, and prints a table.

    Args:
        text: NAME,NAME or NAME=WEIGHTS,NAME=WEIGHTS.

    Returns:
        See exploration.backbones.compare.

    Raises:
        UserError: A network or its weights cannot be had, or there are too few images.
    """
    machine.prepare(settings)
    from exploration import backbones, explorer, images

    chosen = backbones.parse(text, settings)
    for one in chosen:
        explorer.require_pretrained(one)
    device = machine.select_device(settings)
    machine.seed_all(settings.seed)
    lists, class_names = images.read_lists(settings)
    rows = backbones.compare(chosen, lists, class_names, device)
    print(backbones.table(rows))
    best = rows[0]
    weights = "true" if best["pretrained"] is True else best["pretrained"]
    print(f"next: python train.py freeze=true network={best['network']} pretrained={quoted([weights])}")
    return rows


if __name__ == "__main__":
    cli.command(main)
