"""What has to stay the same for a trained network to be used, or trained further: classes and settings."""

import os
from pathlib import Path
from typing import Protocol

from config import known_keys, look_up
from system.errors import UserError, problems
from system.settings import CHANGEABLE, Settings

# Settings that may differ from the interrupted run's when it is resumed: how long it trains, how often it is saved,
# and the machine.
RESUMABLE = (CHANGEABLE - {"data_dir", "lists_dir", "batch_size", "max_pixels"}) | {
    "epochs", "patience", "overwrite", "resume", "save_every_minutes", "run_name",
}  # fmt: skip


class Labelled(Protocol):
    """A model with a label map: a run, or an exported model."""

    @property
    def path(self) -> Path:
        """Its folder."""

    @property
    def class_names(self) -> list[str]:
        """Its classes, in the order of their ids."""


def check_labels(model: Labelled, class_names: list[str], where: str | os.PathLike) -> None:
    """Compares the label map of the data with the model's.

    Raises:
        UserError: They differ; the message names the first difference.
    """
    own = model.class_names
    if own == class_names:
        return
    shorter = min(len(own), len(class_names))
    index = next((i for i in range(shorter) if own[i] != class_names[i]), shorter)
    expected, found = (names[index] if index < len(names) else "nothing" for names in (own, class_names))
    raise UserError(
        f"{where}: class {index} is {found}, but {model.path} was trained with {expected}; "
        "restore the labels.txt of the run or train again"
    )


def check_resumable(old: Settings, new: Settings, where: str | os.PathLike) -> None:
    """Checks that a run can be resumed with these settings.

    Raises:
        UserError: A setting outside RESUMABLE differs.
    """
    before, after = old.model_dump(), new.model_dump()
    changed = [
        f"{key} was {look_up(before, key)}, is {look_up(after, key)}"
        for key in known_keys()
        if key not in RESUMABLE and look_up(before, key) != look_up(after, key)
    ]
    if changed:
        raise problems(str(where), changed, "resume with the run's settings, or train under another run_name")
