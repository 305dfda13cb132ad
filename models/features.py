"""Features: the input of the dense layer that computes a network's logits."""

import numpy as np
import paddle
from paddle import nn

from models.classifier import Classifier


def penultimate(classifier: Classifier, images: np.ndarray) -> np.ndarray:
    """Computes the features of images: the input of the dense layer that computes the logits.

    Args:
        classifier: In eval mode.
        images: Raw pixels, uint8 [N, 3, H, W].

    Returns:
        float32 [N, D]; the logits where no dense layer computes them (SqueezeNet).
    """
    calls: list[tuple[paddle.Tensor, paddle.Tensor]] = []
    hooks = [
        layer.register_forward_post_hook(lambda _, inputs, output: calls.append((inputs[0], output)))
        for layer in classifier.network.sublayers()
        if isinstance(layer, nn.Linear)
    ]
    try:
        with paddle.no_grad():
            logits = classifier(paddle.to_tensor(images))
    finally:
        for hook in hooks:
            hook.remove()
    features = next((inputs for inputs, output in calls if output is logits), logits)
    return features.flatten(1).numpy()
