"""Verification: every image of the valid list through the run and through each engine of its export."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from annotation.lists import Sample, read_split
from imaging.images import read_image
from imaging.transforms import EvalTransform
from inference.engines import as_measured, measure
from inference.extras import EXTRAS, is_exact
from inference.interfaces import Model
from inference.reference import Reference
from system import progress
from system.errors import UserError
from system.settings import Settings
from system.text import counted

# Largest difference of a probability between the run and its export.
TOLERANCE = 1e-4
# Largest loss of accuracy that 8 or 16 bits may cost, in percentage points.
MAX_POINTS_LOST = 0.5


@dataclass
class Tally:
    """Predictions of one engine against those of the run.

    Attributes:
        images: Number of images.
        largest_difference: Of a probability, from the run's; infinite where one is NaN.
        worst_image: Path of the image with the largest difference.
        worst_classes: Top-1 class of the engine and of the run for that image.
        out_of_tolerance: Number of images whose difference is above TOLERANCE.
        top_1_agrees: Number of images whose top-1 class is the run's.
        correct: Number of images whose top-1 class is their label.
    """

    images: int = 0
    largest_difference: float = -1.0
    worst_image: str = ""
    worst_classes: tuple[str, str] = ("", "")
    out_of_tolerance: int = 0
    top_1_agrees: int = 0
    correct: int = 0

    def add(
        self, samples: Sequence[Sample], expected: np.ndarray, found: np.ndarray, class_names: Sequence[str]
    ) -> None:
        """Counts a batch: probabilities float [N, C] of the run and of the engine.

        Raises:
            UserError: They differ in shape.
        """
        if found.shape != expected.shape:
            raise UserError(
                f"the export returns shape {found.shape}, the run {expected.shape}; report this with the network's name"
            )
        differences = np.abs(found - expected).max(axis=1)
        differences = np.where(np.isnan(differences), np.inf, differences)
        top, expected_top = found.argmax(axis=1), expected.argmax(axis=1)
        worst = int(differences.argmax())
        if self.images == 0 or differences[worst] > self.largest_difference:
            self.largest_difference, self.worst_image = float(differences[worst]), samples[worst].path
            self.worst_classes = (class_names[top[worst]], class_names[expected_top[worst]])
        self.images += len(samples)
        self.out_of_tolerance += int((differences > TOLERANCE).sum())
        self.top_1_agrees += int((top == expected_top).sum())
        self.correct += int((top == [sample.label for sample in samples]).sum())

    @property
    def accuracy(self) -> float:
        """Share of images whose top-1 class is their label."""
        return self.correct / self.images


@dataclass
class Verification:
    """Outcome for all engines.

    Attributes:
        split: List that the images are of.
        run: Predictions of the run against themselves.
        engines: Predictions of each engine, by its name.
        milliseconds: Per image, by name of the engine; empty until they are measured.
    """

    split: str
    run: Tally
    engines: dict[str, Tally]
    milliseconds: dict[str, float] = field(default_factory=dict)

    def check(self) -> None:
        """Checks exact engines by their probabilities, and others, such as int8, by their accuracy.

        Raises:
            UserError: A probability differs by more than TOLERANCE, or more than MAX_POINTS_LOST are lost.
        """
        for engine, tally in self.engines.items():
            if not is_exact(engine):
                _check_accuracy(engine, tally, self.run.accuracy)
            elif tally.out_of_tolerance:
                found, expected = tally.worst_classes
                raise UserError(
                    f"{tally.worst_image}: engine {engine} predicts {found}, the run {expected}, probabilities differ "
                    f"by {tally.largest_difference:.2g}, at most {TOLERANCE:g} is allowed ({tally.out_of_tolerance} of "
                    f"{tally.images} images are outside); nothing was exported, report this with the network's name"
                )

    def table(self, without_old_graph: str = "") -> str:
        """Formats one line per engine for the terminal.

        Args:
            without_old_graph: Why there is no graph of the old form; a line says what is missing then.
        """
        width = max(map(len, self.engines))
        lines = [f"{name:<{width}}  {self._row(name, tally)}" for name, tally in self.engines.items()]
        if without_old_graph:
            lines.append(
                "without OpenVINO, TensorRT and INT8: paddle cannot write this network in the form that they read "
                f"({without_old_graph})"
            )
        return "\n".join(lines)

    def _row(self, name: str, tally: Tally) -> str:
        row = (
            f"top-1 agrees on {tally.top_1_agrees} of {counted(tally.images, f'{self.split} image')}, probabilities "
            f"differ by at most {tally.largest_difference:.1e}, {self.milliseconds[name]:.2f} ms per image"
        )
        if is_exact(name):
            return row
        lost = 100 * (self.run.accuracy - tally.accuracy)
        return f"{row}; accuracy {tally.accuracy:.4f}, the run's {self.run.accuracy:.4f} ({lost:+.2f} points lost)"

    def as_description(self, threads: int) -> dict[str, Any]:
        """Returns the groups Checks and Engines of inference.yml.

        Args:
            threads: Number of CPU threads that the engines were measured with.
        """
        engines = {
            name: {
                "largest_difference": float(f"{tally.largest_difference:.3g}"),
                "accuracy": round(tally.accuracy, 6),
                "same_class": tally.top_1_agrees,
                "milliseconds": round(self.milliseconds[name], 3),
            }
            for name, tally in self.engines.items()
        }
        accuracy = round(self.run.accuracy, 6)
        checks = {"split": self.split, "pictures": self.run.images, "accuracy": accuracy, "engines": engines}
        return {"Checks": checks, "Engines": as_measured(self.milliseconds, threads)}


def read_samples(settings: Settings) -> tuple[str, list[Sample], list[str]]:
    """Reads the images to verify with: the valid list, or the test list where there is no other.

    Returns:
        The split, its samples, and the label map of the lists.

    Raises:
        UserError: Neither list is there, or one is malformed.
    """
    for split in ("valid", "test"):
        if (settings.lists / f"{split}.txt").is_file():
            return split, *read_split(settings, split)
    raise UserError(f"{settings.lists}: no valid.txt or test.txt to verify the export with; run `python annotate.py`")


def verify(
    reference: Reference, models: Mapping[str, Model], split: str, samples: Sequence[Sample], settings: Settings
) -> Verification:
    """Compares the run with every engine of its export, image by image, and times the engines.

    Each model reads the files with the preprocessing of its own folder, so a wrong resize shows like a wrong weight.
    Memory does not grow with the number of images.

    Args:
        models: The export by name of the engine.
        samples: At least one.

    Raises:
        UserError: A model's label map is not the run's, an image cannot be read, or `Verification.check` fails.
    """
    for engine, model in models.items():
        _check_names(engine, model.class_names, reference.class_names)
    result = Verification(split, Tally(), {engine: Tally() for engine in models})
    starts = range(0, len(samples), settings.batch_size)
    with progress.bar(len(samples), "images", f"verify on {split}") as bar:
        for start in starts:
            batch = samples[start : start + settings.batch_size]
            images = [read_image(sample.file, settings.max_pixels) for sample in batch]
            expected = reference.predict(_pixels(images, reference.transform, settings))
            result.run.add(batch, expected, expected, reference.class_names)
            for engine, model in models.items():
                found = model.predict(_pixels(images, model.transform, settings))
                result.engines[engine].add(batch, expected, found, reference.class_names)
            bar.update(len(batch))
    result.check()
    predict = {engine: model.predict for engine, model in models.items()}
    result.milliseconds = measure(predict, reference.transform.image_shape)
    return result


def _pixels(images: Sequence[Image.Image], transform: EvalTransform, settings: Settings) -> np.ndarray:
    return np.stack([transform(image, settings.max_pixels) for image in images])


def _check_names(engine: str, exported: Sequence[str], expected: Sequence[str]) -> None:
    if list(exported) == list(expected):
        return
    pairs = enumerate(zip(exported, expected, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), min(len(exported), len(expected)))
    there, here = (names[at] if at < len(names) else "nothing" for names in (exported, expected))
    raise UserError(
        f"engine {engine}: class {at} is {there} in the export and {here} in the run; nothing was exported, "
        f"report this with the network's name"
    )


def _check_accuracy(engine: str, tally: Tally, run_accuracy: float) -> None:
    lost = 100 * (run_accuracy - tally.accuracy)
    # Half a point is 0.5 however the shares were rounded.
    if lost > MAX_POINTS_LOST + 1e-9:
        raise UserError(
            f"{tally.worst_image}: engine {engine} is furthest from the run, by {tally.largest_difference:.2g}; over "
            f"the whole list its accuracy is {tally.accuracy:.2%}, the run's {run_accuracy:.2%} ({tally.images} "
            f"images): {lost:.2f} points lost, at most {MAX_POINTS_LOST} are allowed; nothing was exported, export "
            f"without --{EXTRAS[engine].option}"
        )
