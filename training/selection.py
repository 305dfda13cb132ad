"""Selection of the best weights by their scores on valid."""

from collections.abc import Mapping
from typing import Literal


def is_better(row: Mapping[str, float], best: Mapping[str, float], monitor: Literal["accuracy", "loss"]) -> bool:
    """Compares two rows of history.csv; ties of accuracy, frequent on small sets, are broken by the loss."""
    order = ("valid_accuracy", "valid_loss") if monitor == "accuracy" else ("valid_loss",)
    signs = {"valid_accuracy": 1, "valid_loss": -1}
    return [signs[key] * row[key] for key in order] > [signs[key] * best[key] for key in order]
