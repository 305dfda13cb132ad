"""Exports a trained run as a self-contained folder, and verifies that it predicts like the run."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import config
from inference.extras import EXTRAS
from inference.interfaces import ExtraEngine
from system import cli, machine
from system.errors import UserError
from system.settings import Settings
from system.windows import quoted

if TYPE_CHECKING:
    from inference.reference import Reference
    from models.checkpoint import Run

# Weights for other tools.
SHARED = "model.safetensors"


def main() -> None:
    """Command line of export.py."""
    arguments, overrides = parse()
    given = config.load(arguments.config, overrides)
    machine.prepare(given)
    from imaging.transforms import EvalTransform
    from inference.description import is_read_by_paddlex
    from models.runs import open_run

    run, settings = open_run(arguments.run, given.output_dir, overrides)
    extras = [extra for extra in EXTRAS.values() if getattr(arguments, extra.option)]
    folder = export(run, settings, extras, arguments.safetensors)
    if not is_read_by_paddlex(EvalTransform.from_settings(settings)):
        reason = "it has no operator that pads" if settings.resize == "pad" else "its crops are square"
        print(f"PaddleX refuses this export: {reason}; train with resize=stretch for one it reads")
    print(f"{folder}: {', '.join(sorted(file.name for file in folder.iterdir()))}")
    print(f"next: python predict.py IMAGE --model {quoted([str(folder)])}")


def parse() -> tuple[argparse.Namespace, list[str]]:
    """Reads the command line.

    Returns:
        Options, `run` among them, and settings.
    """
    parser = cli.parser(__doc__)
    parser.add_argument(
        "arguments", nargs="*", metavar="RUN|KEY=VALUE", help="run folder (by default the one trained last), settings"
    )
    parser.add_argument("--safetensors", action="store_true", help=f"also write {SHARED}, the weights for other tools")
    for extra in EXTRAS.values():
        parser.add_argument(f"--{extra.option}", action="store_true", help=extra.help)
    arguments = parser.parse_intermixed_args()
    overrides, runs = cli.split_overrides(arguments.arguments)
    if len(runs) > 1:
        parser.error(f"one run at a time: {' '.join(runs)}")
    arguments.run = runs[0] if runs else None
    return arguments, overrides


def export(run: "Run", settings: Settings, extras: Sequence[ExtraEngine] = (), safetensors: bool = False) -> Path:
    """Exports a run into settings.export_dir/NAME and verifies it; nothing is left there when that fails.

    Args:
        settings: The run's.
        extras: Optional engines whose graphs are written too.
        safetensors: Writes the weights as .safetensors too.

    Returns:
        The folder.

    Raises:
        UserError: The exported model predicts differently, or the folder cannot be written.
    """
    import paddle

    from annotation.lists import LABELS
    from imaging.transforms import EvalTransform
    from inference import description
    from inference.example import write_example
    from inference.export_folder import new_export
    from inference.graphs import write_graphs
    from inference.names import EXAMPLE
    from inference.predictor import load_engines
    from inference.reference import Reference
    from inference.verification import read_samples, verify
    from models.compatibility import check_labels

    for extra in extras:
        extra.check()
    device, threads = machine.select_device(settings), machine.threads(settings)
    split, samples, class_names = read_samples(settings)
    check_labels(run, class_names, settings.lists / LABELS)
    transform = EvalTransform.from_settings(settings)
    reference = Reference(run.load_network(), run.temperature, run.threshold, transform, run.class_names)
    target = Path(settings.export_dir) / run.name
    with new_export(target) as folder:
        lacks = write_graphs(reference.network, transform.image_shape, reference.temperature, folder)
        for extra in extras:
            extra.write(folder, settings, transform)
        if safetensors:
            share_weights(folder / SHARED, reference, settings)
        write_example(folder / EXAMPLE, reference, samples, settings.max_pixels)
        content = description.compose(reference, settings.top_k, [extra.name for extra in extras])
        description.seal(folder, content, paddle.__version__)
        verified = verify(reference, load_engines(folder, device, threads), split, samples, settings)
        description.seal(folder, content | verified.as_description(threads), paddle.__version__)
        describe(folder, run, settings)
    print(verified.table(lacks))  # only now: where nobody reads it, the export is in place nevertheless
    return target


def share_weights(file: Path, reference: "Reference", settings: Settings) -> None:
    """Writes the weights of a run for other tools, with its network and classes in the header."""
    from models.weights_files import write_safetensors

    about = {"network": settings.network, "classes": json.dumps(reference.class_names, ensure_ascii=False)}
    write_safetensors(file, reference.network.network.state_dict(), about)


def describe(folder: Path, run: "Run", settings: Settings) -> None:
    """Writes the model card of an export."""
    from evaluation.metrics import headline
    from inference.model_card import write_card

    report = read_report(run.path / "metrics.json")
    write_card(folder, run.name, settings, report, headline(report) if report else [])


def read_report(file: Path) -> dict[str, Any]:
    """Reads what evaluate.py wrote about a run; empty if it did not.

    Raises:
        UserError: The file is torn.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError:
        raise UserError(f"{file}: this is not JSON; run `python evaluate.py` again") from None


if __name__ == "__main__":
    cli.command(main)
