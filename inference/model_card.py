"""MODEL_CARD.md: what a stranger who finds the folder wants to know."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from annotation.lists import SPLITS
from inference.names import CARD, DESCRIPTION
from system.files import read_lines
from system.settings import Settings
from system.text import counted

# Settings that decide what the network is and saw, in the order a reader wants them.
SETTINGS = (
    "network image_shape resize crop_fraction color_profile mean std pretrained freeze epochs batch_size optimizer "
    "learning_rate schedule warmup_epochs weight_decay loss label_smoothing augment seed"
).split()


def write_card(
    folder: Path, name: str, settings: Settings, report: Mapping[str, Any], metrics: Sequence[tuple[str, str]]
) -> None:
    """Writes the card from inference.yml and what is known about the run.

    Args:
        folder: Holds a sealed inference.yml with the group Checks.
        name: Of the run.
        settings: The run's; their lists are counted.
        report: Content of metrics.json; empty if the run was not evaluated.
        metrics: Label and formatted value of each metric of the report.
    """
    content = yaml.safe_load((folder / DESCRIPTION).read_text(encoding="utf-8"))
    names, values = content["PostProcess"]["Topk"]["label_list"], settings.model_dump(mode="json")
    sections = [
        f"# {name}",
        f"Classifies images into {counted(len(names), 'class', 'classes')} with `{settings.network}`, trained with "
        f"PaddlePaddle. Exported {content['Versions']['exported']} by paddle {content['Versions']['paddle']}.",
        "## Classes\n\n" + ", ".join(names),
        "## Data\n\n" + _table(("split", "images"), _counts(settings)),
        "## Scores\n\n" + _scores(report, metrics),
        "## Verified before it was exported\n\n" + _checks(content["Checks"]),
        "## Calibration\n\n" + _calibration(content["Calibration"]),
        "## Settings\n\n" + _table(("setting", "value"), [(key, json.dumps(values[key])) for key in SETTINGS]),
        "## Files (SHA-256)\n\n" + _table(("file", "digest"), list(content["Digests"].items())),
    ]
    (folder / CARD).write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def _counts(settings: Settings) -> list[tuple[str, str]]:
    """Counts the images of each split that has a list."""
    files = {split: settings.lists / f"{split}.txt" for split in SPLITS}
    return [(split, str(len(read_lines(file)))) for split, file in files.items() if file.is_file()]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in cells)


def _scores(report: Mapping[str, Any], metrics: Sequence[tuple[str, str]]) -> str:
    if not report:
        return "Not evaluated; `python evaluate.py` measures it on images it was not trained on."
    images = f"On the {report['split']} list, {counted(report['num_pictures'], 'image')}."
    return f"{images}\n\n{_table(('metric', 'value'), metrics)}"


def _checks(checks: Mapping[str, Any]) -> str:
    rows = [
        (engine, f"{row['largest_difference']:.1e}", f"{row['accuracy']:.4f}", f"{row['milliseconds']:.2f}")
        for engine, row in checks["engines"].items()
    ]
    head = ("engine", "largest difference of a probability", f"{checks['split']} accuracy", "ms per image")
    return (
        f"{counted(checks['pictures'], 'image')}, all of the {checks['split']} list; the run's accuracy there is "
        f"{checks['accuracy']:.4f}.\n\n" + _table(head, rows)
    )


def _calibration(calibration: Mapping[str, Any]) -> str:
    threshold = calibration["threshold"]
    rejection = (
        "every image is given a class"
        if threshold is None
        else f"an image whose highest probability is below {threshold:g} is none of the classes"
    )
    return f"Temperature {calibration['temperature']:g} (inside the graph); {rejection}."
