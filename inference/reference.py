"""The run that an export has to reproduce."""

from dataclasses import dataclass

import numpy as np
import paddle
from scipy.special import softmax

from imaging.transforms import EvalTransform


@dataclass(frozen=True)
class Reference:
    """A run as its exporter sees it, computed by paddle's dynamic graph and SciPy's softmax.

    Attributes:
        network: Turns raw pixels [N, 3, H, W], 0..255, into logits [N, C]; in eval mode.
        temperature: Logits are divided by it before the softmax.
        threshold: An image whose highest probability is below it is none of the classes; None: every image is one.
        transform: Preprocessing of the run's images.
        class_names: Label map of the run.
    """

    network: paddle.nn.Layer
    temperature: float
    threshold: float | None
    transform: EvalTransform
    class_names: list[str]

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Turns raw pixels uint8 [N, 3, H, W] into probabilities float32 [N, C]."""
        with paddle.no_grad():
            logits = self.network(paddle.to_tensor(images)).numpy()
        return softmax(logits / np.float32(self.temperature), axis=1)
