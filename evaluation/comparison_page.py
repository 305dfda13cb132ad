"""comparison.html: several runs on the same images, in one file that opens offline."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from evaluation import metrics
from evaluation.comparison import Comparison, disagreements
from evaluation.metrics import METRICS
from evaluation.predictions import Predictions
from evaluation.thumbnails import Thumbnails
from system.language import translate
from system.pages import templates

# Disagreements shown of each kind: only the first run correct, only the second.
SHOWN = 18
# Two runs are called different below it.
SIGNIFICANCE = 0.05


def render(comparison: Comparison, command: str) -> str:
    """Renders the page.

    Args:
        comparison: What is reported.
        command: The command line to show.

    Returns:
        HTML with every image, style and script inside.
    """
    content, pair = comparison.content, comparison.content["pair"]
    shown = metrics.informative(content["num_classes"])
    return templates.render(
        Path(__file__).parent / "comparison.html",
        content=content,
        created=datetime.now().strftime("%Y-%m-%d %H:%M"),
        metrics={name: one.title(content["top_k"]) for name, one in shown.items()},
        best={name: _best(content, name) for name in shown},
        conclusion=_conclusion(pair) if pair else "",
        sides=_sides(comparison) if pair else [],
        resamples=metrics.RESAMPLES,
        command=command,
    )


def _best(content: Mapping[str, Any], name: str) -> float:
    return content["summary"][name]["highest" if METRICS[name].higher_is_better else "lowest"]


def _conclusion(pair: Mapping[str, Any]) -> str:
    if pair["mcnemar_p"] >= SIGNIFICANCE:
        return translate("The difference in accuracy is not statistically significant on these images.")
    if pair["difference"]["accuracy"]["value"] > 0:
        return translate("The second run is significantly more accurate.")
    return translate("The first run is significantly more accurate.")


def _sides(comparison: Comparison) -> list[dict[str, Any]]:
    """The images that only one run classifies correctly, the most confident mistakes of the other first."""
    thumbnails = Thumbnails(comparison.transform, comparison.max_pixels)
    names = [row["run"] for row in comparison.content["runs"]]
    rows, sides = disagreements(comparison.predictions[0], comparison.predictions[1]), []
    for right, other in ((0, 1), (1, 0)):
        own = [row for row in rows if comparison.predictions[right].correct[row]]
        tiles = [_tile(row, comparison.predictions[other], thumbnails) for row in own[:SHOWN]]
        sides.append({"run": names[right], "other": names[other], "count": len(own), "tiles": tiles})
    return sides


def _tile(row: int, wrong: Predictions, thumbnails: Thumbnails) -> dict[str, Any]:
    sample, names = wrong.samples[row], wrong.class_names
    return {
        "path": sample.path,
        "image": thumbnails.plain(sample),
        "label": names[sample.label],
        "prediction": names[wrong.predicted[row]],
        "confidence": wrong.confidences[row],
    }
