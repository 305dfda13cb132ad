"""Comparison of backbones on the user's own images."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from annotation.lists import Sample
from evaluation import metrics
from evaluation.metrics import Outputs
from exploration import estimate, images
from features.extraction import FeatureExtractor
from models import factory
from system.errors import UserError
from system.settings import Settings

# Images that a backbone is timed on, after as many that are not counted.
TIMED = 16


def parse(text: str, settings: Settings) -> list[Settings]:
    """Reads `NAME,NAME=WEIGHTS,...`: networks, with the weights of `pretrained` where none are named.

    Raises:
        UserError: A name is missing or there twice.
    """
    chosen: list[Settings] = []
    for part in text.split(","):
        name, _, weights = part.strip().partition("=")
        if not name or name in [one.network for one in chosen]:
            raise UserError(f"--backbones {text}: {name or 'a name'} is {'there twice' if name else 'missing'}; "
                            "write NAME,NAME or NAME=WEIGHTS,NAME=WEIGHTS")  # fmt: skip
        chosen.append(settings.model_copy(update={"network": name, "pretrained": weights or settings.pretrained}))
    return chosen


def compare(
    chosen: Sequence[Settings], lists: dict[str, list[Sample]], class_names: list[str], device: str
) -> list[dict[str, Any]]:
    """Cross-validates a head on the features of each backbone, over the same folds.

    Returns:
        By backbone, the most accurate first: network, pretrained, accuracy (value, low, high), difference (from the
        first; value, low, high, paired), milliseconds (per image), megabytes (of weights).

    Raises:
        UserError: A network or its weights cannot be had, or an image cannot be read.
    """
    rows, correct = [], []
    for settings in chosen:
        network, _ = factory.build(settings, len(class_names), class_names)
        extractor = FeatureExtractor(network, settings, device)
        print(f"{settings.network}:", flush=True)
        loaded = images.load(extractor, lists, class_names, settings)
        folds = estimate.divide(loaded, settings.seed)
        logits = estimate.cross_validate(loaded, folds)
        outputs = Outputs(logits[loaded.known], loaded.labels[loaded.known])
        correct.append((outputs.predicted == loaded.labels[loaded.known]).astype(float))
        rows.append(
            {
                "network": settings.network,
                "pretrained": settings.pretrained,
                "accuracy": _interval(correct[-1], settings.seed),
                "milliseconds": _milliseconds(extractor),
                "megabytes": sum(weight.size for weight in network.network.parameters()) * 4 / 1e6,
            }
        )
    order = sorted(range(len(rows)), key=lambda index: -correct[index].mean())
    for index in order:
        rows[index]["difference"] = _interval(correct[index] - correct[order[0]], chosen[0].seed)
    return [rows[index] for index in order]


def _interval(values: np.ndarray, seed: int) -> dict[str, float]:
    ((low, high),) = metrics.bootstrap(lambda drawn: [values[drawn].mean()], len(values), seed).tolist()
    return {"value": float(values.mean()), "low": low, "high": high}


def _milliseconds(extractor: FeatureExtractor) -> float:
    pixels = np.zeros((TIMED, *extractor.transform.image_shape), np.uint8)
    extractor(pixels)
    started = time.perf_counter()
    extractor(pixels)
    return 1000 * (time.perf_counter() - started) / TIMED


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Formats the comparison for the terminal."""
    width = max(len(row["network"]) for row in rows)
    lines = [f"{'network':{width}}  accuracy (95 % interval)      from the best              ms/image   MB"]
    for row in rows:
        accuracy, gap = row["accuracy"], row["difference"]
        lines.append(
            f"{row['network']:{width}}  {accuracy['value']:.4f} ({accuracy['low']:.4f} to {accuracy['high']:.4f})  "
            f"{gap['value']:+.4f} ({gap['low']:+.4f} to {gap['high']:+.4f})  {row['milliseconds']:8.1f} "
            f"{row['megabytes']:6.1f}"
        )
    return "\n".join(lines)
