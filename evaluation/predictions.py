"""Predictions: a model's outputs for the images of a list, from which every part of a report is computed."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from annotation.lists import Sample
from evaluation import metrics
from inference.ranking import NONE_OF_THESE, columns_of_classes


@dataclass(frozen=True)
class Predictions:
    """Logits and labels of the images of a list, with the calibration to apply.

    Attributes:
        split: Name of the list.
        samples: Its N rows.
        logits: float [N, C], without a temperature.
        labels: int64 [N].
        class_names: C names.
        temperature: Logits are divided by it before the softmax.
        threshold: Images whose highest probability is below it are rejected as "none of these"; None: none is.
    """

    split: str
    samples: Sequence[Sample]
    logits: np.ndarray
    labels: np.ndarray
    class_names: Sequence[str]
    temperature: float = 1.0
    threshold: float | None = None

    @cached_property
    def outputs(self) -> metrics.Outputs:
        """What metrics are computed from, without the temperature."""
        return metrics.Outputs(self.logits, self.labels)

    @property
    def predicted(self) -> np.ndarray:
        """Top-1 class indices, int64 [N], whatever their probability."""
        return self.outputs.predicted

    @cached_property
    def correct(self) -> np.ndarray:
        """Whether the top-1 class is the label, bool [N]."""
        return self.predicted == self.labels

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Calibrated probabilities, float64 [N, C]."""
        return metrics.probabilities(self.logits, self.temperature)

    @cached_property
    def confidences(self) -> np.ndarray:
        """Highest calibrated probabilities, float64 [N]."""
        return self.probabilities.max(axis=1)

    @cached_property
    def accepted(self) -> np.ndarray:
        """Whether the confidence reaches the threshold, bool [N]."""
        return self.confidences >= (self.threshold or 0.0)

    def table(self) -> str:
        """Content of predictions.tsv: path, label, prediction, answer (may be "none of these"), all probabilities."""
        names = self.class_names
        columns = ("path", "label", "prediction", "answer")
        lines = ["\t".join((*columns, *columns_of_classes(names, columns)))]
        rows = zip(self.samples, self.predicted.tolist(), self.accepted.tolist(), self.probabilities, strict=True)
        for sample, predicted, accepted, row in rows:
            answer = names[predicted] if accepted else NONE_OF_THESE
            numbers = (f"{value:.6f}" for value in row.tolist())
            lines.append("\t".join((sample.path, names[sample.label], names[predicted], answer, *numbers)))
        return "\n".join(lines) + "\n"
