"""What a model answered to the images of a list: the one thing every part of the report is made from."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from annotation.lists import Sample
from evaluation import metrics
from inference.predictor import NONE_OF_THESE


@dataclass(frozen=True)
class Answers:
    """Logits and labels of a list's images, and how they become answers.

    Attributes:
        split: Name of the list.
        samples: Its N rows.
        logits: float [N, C], before the temperature.
        labels: int64 [N].
        class_names: C names.
        temperature: Logits are divided by it before the softmax.
        threshold: Below this highest probability an image is answered "none of these"; None: none is.
    """

    split: str
    samples: list[Sample]
    logits: np.ndarray
    labels: np.ndarray
    class_names: list[str]
    temperature: float = 1.0
    threshold: float | None = None

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Float64 [N, C]."""
        return metrics.probabilities(self.logits, self.temperature)

    @cached_property
    def predictions(self) -> np.ndarray:
        """The likeliest class, int64 [N], whatever its probability."""
        return self.logits.argmax(axis=1)

    @cached_property
    def confidences(self) -> np.ndarray:
        """The highest probabilities, float64 [N]."""
        return self.probabilities.max(axis=1)

    @cached_property
    def correct(self) -> np.ndarray:
        """Whether the likeliest class is the label, bool [N]."""
        return self.predictions == self.labels

    def table(self) -> str:
        """Writes predictions.tsv: path, label, prediction, answer (may be "none of these"), all probabilities."""
        names, low = self.class_names, self.threshold or 0.0
        lines = ["\t".join(("path", "label", "prediction", "answer", *names))]
        rows = zip(self.samples, self.predictions.tolist(), self.confidences.tolist(), self.probabilities, strict=True)
        for sample, prediction, confidence, row in rows:
            answer = names[prediction] if confidence >= low else NONE_OF_THESE
            numbers = (f"{value:.6f}" for value in row.tolist())
            lines.append("\t".join((sample.path, names[sample.label], names[prediction], answer, *numbers)))
        return "\n".join(lines) + "\n"
