"""The gate: every image of the valid list through the run and through what was exported, engine by engine."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from annotation.lists import Sample
from imaging.images import read_image
from imaging.transforms import EvalTransform
from system.errors import UserError

# Largest difference of a probability between the run and its export.
TOLERANCE = 1e-4
# Largest loss of accuracy that 8 bits may cost, in points of a hundred.
MAX_POINTS_LOST = 0.5


class Model(Protocol):
    """What the gate looks at: an exported folder as its users see it."""

    class_names: list[str]
    transform: EvalTransform

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Turns uint8 [N, 3, H, W] into probabilities float32 [N, C]."""


@dataclass
class Tally:
    """What the gate saw of one engine.

    Attributes:
        images: Number of images.
        largest_difference: Of a probability, from the run's; NaN when an answer was not a number.
        worst: Path of the image with the largest difference.
        answers: First class of the engine and of the run for that image.
        outside: Images whose difference is above TOLERANCE.
        same_class: Images with the run's first class.
        right: Images whose first class is their label.
    """

    images: int = 0
    largest_difference: float = -1.0
    worst: str = ""
    answers: tuple[str, str] = ("", "")
    outside: int = 0
    same_class: int = 0
    right: int = 0

    def add(self, samples: Sequence[Sample], expected: np.ndarray, got: np.ndarray, class_names: Sequence[str]) -> None:
        """Counts a batch: probabilities float [N, C] of the run and of the engine."""
        if got.shape != expected.shape:
            raise UserError(f"the export answers with shape {got.shape}, the run with {expected.shape}")
        gaps = np.abs(got - expected).max(axis=1)
        ranked = np.where(np.isnan(gaps), np.inf, gaps)
        first, truth = got.argmax(axis=1), expected.argmax(axis=1)
        at = int(ranked.argmax())
        if self.images == 0 or ranked[at] > self.largest_difference:
            self.largest_difference, self.worst = float(ranked[at]), samples[at].path
            self.answers = (class_names[first[at]], class_names[truth[at]])
        self.images += len(samples)
        self.outside += int((ranked > TOLERANCE).sum())
        self.same_class += int((first == truth).sum())
        self.right += int((first == [sample.label for sample in samples]).sum())

    @property
    def accuracy(self) -> float:
        """Share of images whose first class is their label."""
        return self.right / self.images


def compare(
    run: Callable[[np.ndarray], np.ndarray],
    transform: EvalTransform,
    class_names: Sequence[str],
    models: Mapping[str, Model],
    batches: Iterator[Sequence[Sample]],
    max_pixels: int,
) -> tuple[float, dict[str, Tally]]:
    """Lets the run and every exported model answer for each image.

    A model sees what its own folder makes of the file, so a wrong resize shows like a wrong weight. Memory does not
    grow with the number of images.

    Args:
        run: Probabilities float [N, C] of the run, from uint8 [N, 3, H, W].
        transform: The run's pipeline.
        class_names: The run's label map.
        models: Exported models by the name of their engine.
        batches: The images, some at a time.
        max_pixels: As for images.read_image.

    Returns:
        The run's accuracy, and what was seen of each engine.

    Raises:
        UserError: A model's label map is not the run's, or an image cannot be read.
    """
    for engine, model in models.items():
        _check_names(engine, model.class_names, class_names)
    tallies = {engine: Tally() for engine in models}
    own = Tally()
    for samples in batches:
        images = [read_image(sample.file, max_pixels) for sample in samples]
        expected = run(_pixels(images, transform))
        own.add(samples, expected, expected, class_names)
        for engine, model in models.items():
            tallies[engine].add(samples, expected, model.predict(_pixels(images, model.transform)), class_names)
    return own.accuracy, tallies


def _pixels(images: Sequence[Image.Image], transform: EvalTransform) -> np.ndarray:
    return np.stack([transform(image) for image in images])


def _check_names(engine: str, exported: Sequence[str], own: Sequence[str]) -> None:
    if list(exported) == list(own):
        return
    at = next((i for i, (a, b) in enumerate(zip(exported, own, strict=False)) if a != b), min(len(exported), len(own)))
    there, here = (names[at] if at < len(names) else "nothing" for names in (exported, own))
    raise UserError(
        f"engine {engine}: class {at} is {there} in the export and {here} in the run; nothing was exported, "
        f"report this with the network's name"
    )


def judge(run_accuracy: float, tallies: Mapping[str, Tally]) -> None:
    """Lets the export through, or says what it does wrong: 8-bit engines are judged by accuracy, others by answers.

    Raises:
        UserError: An engine's probability differs by more than TOLERANCE, or int8 loses more than MAX_POINTS_LOST.
    """
    for engine, tally in tallies.items():
        if engine == "int8":
            _judge_accuracy(run_accuracy, tally)
        elif tally.outside:
            there, here = tally.answers
            raise UserError(
                f"{tally.worst}: engine {engine} answers {there}, the run {here}, probabilities differ by "
                f"{tally.largest_difference:.2g}, at most {TOLERANCE:g} is allowed ({tally.outside} of "
                f"{tally.images} images are outside); nothing was exported, report this with the network's name"
            )


def _judge_accuracy(run_accuracy: float, tally: Tally) -> None:
    lost = 100 * (run_accuracy - tally.accuracy)
    # Half a point is 0.5 however the shares were rounded.
    if lost > MAX_POINTS_LOST + 1e-9:
        raise UserError(
            f"{tally.worst}: engine int8 is furthest from the run, by {tally.largest_difference:.2g}; on the "
            f"whole list right on {tally.accuracy:.2%}, the run on {run_accuracy:.2%} of {tally.images} images: "
            f"{lost:.2f} points lost, at most {MAX_POINTS_LOST} are allowed; nothing was exported, export without "
            f"--int8"
        )
