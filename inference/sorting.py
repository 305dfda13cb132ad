"""Sorting: images copied into folders by their predictions, so that a pool of images becomes training data."""

import filecmp
import os
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from inference.interfaces import Model
from inference.pipeline import OnPrediction
from inference.ranking import is_rejected
from inference.sources import ImageSource
from system import windows
from system.errors import UserError

LABELLED, LEFT = "labelled", "left"
NONE, UNSURE = "none-of-these", "unsure"
# Names that no system takes for a folder, or that lead out of it.
BAD_NAMES = frozenset({"", ".", ".."})


class Sorter:
    """Copies images into FOLDER/labelled/CLASS, FOLDER/left/none-of-these and FOLDER/left/unsure.

    Args:
        folder: Made if missing; no file in it is replaced.
        model: Names the classes, and rejects.
        margin: Images whose two highest probabilities differ by less are unsure.
        link: Makes symbolic links instead of copies.

    Raises:
        UserError: A class has a name that no folder can have, or two would share one on this system.
    """

    def __init__(self, folder: str, model: Model, margin: float, link: bool):
        for name in model.class_names:
            if name in BAD_NAMES or "/" in name or "\\" in name or windows.name_fault(name):
                why = f" ({windows.name_fault(name)})" if windows.name_fault(name) else ""
                raise UserError(
                    f"--sort: class {name!r} cannot be the name of a folder{why}; rename it and train again"
                )
        alike = [name for name, count in Counter(map(str.lower, model.class_names)).items() if count > 1]
        if alike and windows.IGNORES_CASE:
            raise UserError(
                f"--sort: classes that differ in case only ({alike[0]}) share a folder here; rename one of them"
            )
        self.folder, self.model, self.margin, self.link = Path(folder), model, margin, link
        self.counts: Counter[str] = Counter()
        self.already = 0

    def add(self, source: ImageSource, probabilities: np.ndarray) -> None:
        """Sorts one image by its probabilities, float32 [C].

        Raises:
            UserError: It cannot be copied.
        """
        path, place = source.path, self._place(probabilities)
        self.counts[place] += 1
        folder = self.folder / place
        try:
            folder.mkdir(parents=True, exist_ok=True)
            target = self._free_name(folder, Path(path))
            if target is None:
                self.already += 1
            elif self.link:
                target.symlink_to(os.path.realpath(path))
            else:
                _copy(Path(path), target)
        except OSError as error:
            remedy = "leave out --link (links need developer mode on Windows)" if self.link else "free some space"
            raise UserError(f"{folder}: {path} cannot be copied there ({error.strerror}); {remedy}") from None

    def _place(self, probabilities: np.ndarray) -> str:
        order = np.argsort(-probabilities, kind="stable")
        highest = float(probabilities[order[0]])
        if is_rejected(highest, self.model.threshold):
            return f"{LEFT}/{NONE}"
        if len(order) > 1 and highest - float(probabilities[order[1]]) < self.margin:
            return f"{LEFT}/{UNSURE}"
        return f"{LABELLED}/{self.model.class_names[order[0]]}"

    def _free_name(self, folder: Path, source: Path) -> Path | None:
        """A name that is not taken; None if the image lies there already."""
        number, target = 1, folder / source.name
        while os.path.lexists(target):
            if target.is_file() and filecmp.cmp(source, target, shallow=False):
                return None
            number += 1
            target = folder / f"{source.stem}-{number}{source.suffix}"
        return target

    def summary(self) -> str:
        """One line: how many images went where, and what to do with them."""
        labelled = {name.partition("/")[2]: count for name, count in self.counts.items() if name.startswith(LABELLED)}
        by_class = ", ".join(f"{name} {count}" for name, count in sorted(labelled.items()))
        parts = [
            f"{sum(labelled.values())} labelled{f' ({by_class})' if by_class else ''}",
            f"{self.counts[f'{LEFT}/{UNSURE}']} unsure",
            f"{self.counts[f'{LEFT}/{NONE}']} none of these",
        ]
        there = f", {self.already} of them were there already" if self.already else ""
        advice = f"check them, then: python annotate.py data_dir={self.folder / LABELLED}"
        return f"{self.folder}: {', '.join(parts)}{there}; {advice}"


def each(*functions: OnPrediction | None) -> OnPrediction:
    """Returns a function that calls those of these that there are."""

    def call(source: ImageSource, probabilities: np.ndarray) -> None:
        for function in filter(None, functions):
            function(source, probabilities)

    return call


def check_apart(folder: str, inputs: Iterable[str]) -> None:
    """Checks that no input holds the folder that images are sorted into, or lies in it.

    Raises:
        UserError: One does: what was just copied would be sorted again.
    """
    target = os.path.join(os.path.realpath(folder), "")
    for one in inputs:
        source = os.path.join(os.path.realpath(one), "")
        if os.path.isdir(one) and (target.startswith(source) or source.startswith(target)):
            raise UserError(f"--sort {folder}: {one} holds it, or lies in it; name a folder elsewhere")


def _copy(source: Path, target: Path) -> None:
    """Copies a file whole or not at all."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        shutil.copy2(source, temporary)
        os.rename(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
