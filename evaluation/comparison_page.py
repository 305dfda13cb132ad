"""Makes comparison.html: several runs on the same images, in one file that opens without a network."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from evaluation import metrics
from evaluation.comparison import MEASURES, disagreements
from evaluation.predictions import Answers
from evaluation.report_page import environment
from evaluation.thumbnails import Thumbnails
from imaging.transforms import EvalTransform

# Images shown that one run gets right and the other wrong, of each kind.
SHOWN = 18


def render(
    told: Mapping[str, Any], answers: Sequence[Answers], transform: EvalTransform, max_pixels: int, command: str
) -> str:
    """Draws the page.

    Args:
        told: Content of comparison.json.
        answers: Of each run, in the same order.
        transform: How images are cut for the page.
        command: The command line that made it.

    Returns:
        HTML with every image, style and script inside.
    """
    thumbnails = Thumbnails(transform, max_pixels)
    pair = told["pair"]
    return (
        environment()
        .get_template("comparison.html")
        .render(
            told=told,
            made=datetime.now().strftime("%Y-%m-%d %H:%M"),
            measures=MEASURES,
            said=_verdict(pair) if pair else "",
            sides=_sides(told, answers, thumbnails) if pair else [],
            resamples=metrics.RESAMPLES,
            command=command,
        )
    )


def _verdict(pair: Mapping[str, Any]) -> str:
    gap, p = pair["difference"]["accuracy"], pair["mcnemar_p"]
    if p >= 0.05:
        return "These images do not tell the two runs apart: a difference like this one comes about by chance."
    better = "second" if gap["value"] > 0 else "first"
    return f"The {better} run is right more often than chance explains."


def _sides(told: Mapping[str, Any], answers: Sequence[Answers], thumbnails: Thumbnails) -> list[dict[str, Any]]:
    """The images that only one run gets right, those first that the other one was surest of."""
    places = disagreements(*answers)
    sides = []
    for right, wrong in ((0, 1), (1, 0)):
        own = [place for place in places if answers[right].correct[place]]
        tiles = [_tile(place, answers[wrong], thumbnails) for place in own[:SHOWN]]
        sides.append({"run": told["runs"][right]["run"], "other": told["runs"][wrong]["run"],
                      "count": len(own), "tiles": tiles})  # fmt: skip
    return sides


def _tile(place: int, wrong: Answers, thumbnails: Thumbnails) -> dict[str, Any]:
    sample, names = wrong.samples[place], wrong.class_names
    return {
        "path": sample.path,
        "image": thumbnails.plain(sample),
        "label": names[sample.label],
        "prediction": names[wrong.predictions[place]],
        "confidence": wrong.confidences[place],
    }
