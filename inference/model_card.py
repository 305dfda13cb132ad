"""MODEL_CARD.md: what a stranger who finds the folder wants to know."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from inference.description import DESCRIPTION
from system.settings import Settings

# Settings that decide what the network is and saw, in the order a reader wants them.
TOLD = (
    "network image_shape resize crop_fraction mean std pretrained freeze epochs batch_size optimizer learning_rate "
    "schedule warmup_epochs weight_decay label_smoothing augment seed"
).split()


def write_card(
    folder: Path, name: str, settings: Settings, counts: Mapping[str, int], scores: Mapping[str, Any]
) -> str:
    """Makes the text of the card out of inference.yml and what is known of the run.

    Args:
        folder: Holds a sealed inference.yml.
        name: Of the run.
        settings: The run's.
        counts: Images of each split that has a list.
        scores: metrics.json of the run; may be empty.
    """
    content = yaml.safe_load((folder / DESCRIPTION).read_text(encoding="utf-8"))
    names, checks = content["PostProcess"]["Topk"]["label_list"], content["Checks"]
    values = settings.model_dump(mode="json")
    sections = [
        f"# {name}",
        f"Classifies images into {len(names)} classes with `{settings.network}`, trained with PaddlePaddle. "
        f"Exported {content['Versions']['exported']} by paddle {content['Versions']['paddle']}.",
        "## Classes\n\n" + ", ".join(names),
        "## Data\n\n" + _table(("split", "images"), [(split, str(count)) for split, count in counts.items()]),
        "## Scores\n\n" + _scores(scores),
        "## Checked before it was exported\n\n" + _checks(checks),
        "## Calibration\n\n" + _calibration(content["Calibration"]),
        "## Settings\n\n"
        + _table(("setting", "value"), [(key, json.dumps(values[key])) for key in TOLD if key in values]),
        "## Files (SHA-256)\n\n" + _table(("file", "digest"), list(content["Digests"].items())),
    ]
    return "\n\n".join(sections) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in cells)


def _scores(scores: Mapping[str, Any]) -> str:
    numbers = [
        (key, f"{scores[key]:.4f}")
        for key in ("accuracy", "top_5_accuracy", "macro_f1", "loss")
        if _number(scores, key)
    ]
    if not numbers:
        return "Not evaluated; `python evaluate.py` would have measured it on images it had not seen."
    split, count = scores.get("split", "?"), scores.get("num_pictures", "?")
    return f"On the {split} list, {count} images.\n\n" + _table(("measure", "value"), numbers)


def _number(scores: Mapping[str, Any], key: str) -> bool:
    return isinstance(scores.get(key), (int, float))


def _checks(checks: Mapping[str, Any]) -> str:
    rows = [
        (engine, f"{seen['largest_difference']:.1e}", f"{seen['accuracy']:.4f}", f"{seen['milliseconds']:.2f}")
        for engine, seen in checks["engines"].items()
    ]
    head = ("engine", "largest difference of a probability", f"{checks['split']} accuracy", "ms an image")
    return (
        f"All {checks['pictures']} images of the {checks['split']} list; the run's accuracy there is "
        f"{checks['accuracy']:.4f}.\n\n" + _table(head, rows)
    )


def _calibration(calibration: Mapping[str, Any]) -> str:
    threshold = calibration["threshold"]
    told = (
        "every image is given a class" if threshold is None else f"below {threshold:g} an image is none of the classes"
    )
    return f"Temperature {calibration['temperature']:g} (inside the graph); {told}."
