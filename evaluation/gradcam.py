"""Grad-CAM: heat maps of the evidence for a class, for any convolutional network."""

from collections.abc import Sequence

import numpy as np
import paddle
from paddle import nn

from models.classifier import Classifier
from system.errors import UserError

# Images per pass: every feature map of the network is held for them.
BATCH = 8
AUTO = "auto"
# Smaller maps, in pixels, locate little: small images end in 2x2, so an earlier map is read.
MIN_SIDE = 5


def explain(
    classifier: Classifier, images: np.ndarray, class_indices: Sequence[int] | np.ndarray, layer: str = AUTO
) -> np.ndarray:
    """Computes how much each place of an image supports a class.

    Args:
        classifier: In eval mode.
        images: Raw pixels uint8 [N, 3, H, W].
        class_indices: One class for each image.
        layer: Name of the layer whose output is read, as `Classifier.network.named_sublayers()` lists it; "auto": the
            last feature map that the logits depend on and that is no pooling's output, of at least MIN_SIDE pixels per
            side if there is one, else of more than one pixel.

    Returns:
        float32 [N, H, W], 0..1, the strongest place of each image 1; all 0 without evidence for the class.

    Raises:
        UserError: There is no layer of that name, its output is no feature map, or the network has no feature map.

    Source: Selvaraju et al. 2017, "Grad-CAM" (arXiv:1610.02391), equations 1 and 2.
    """
    parts = [slice(start, start + BATCH) for start in range(0, len(images), BATCH)]
    indices = np.asarray(class_indices, np.int64)
    return np.concatenate([_explain(classifier, images[part], indices[part], layer) for part in parts])


def _explain(classifier: Classifier, images: np.ndarray, indices: np.ndarray, layer: str) -> np.ndarray:
    pixels = paddle.to_tensor(images).astype("float32")
    # Without it a frozen network would record no gradients.
    pixels.stop_gradient = False
    maps = _Maps(classifier.network, layer)
    with paddle.enable_grad(), maps:
        logits = classifier(pixels)
        score = logits.take_along_axis(paddle.to_tensor(indices).unsqueeze(1), axis=1).sum()
    features, gradients = maps.choose(score)
    weights = gradients.mean(axis=[2, 3], keepdim=True)
    heat = nn.functional.relu((weights * features).sum(axis=1, keepdim=True))
    heat = nn.functional.interpolate(heat, size=images.shape[2:], mode="bilinear").squeeze(1).detach().numpy()
    highest = heat.max(axis=(1, 2), keepdims=True)
    return np.divide(heat, highest, out=np.zeros_like(heat), where=highest > 0)


def find_layers(network: nn.Layer, layer: str) -> dict[str, nn.Layer]:
    """Returns all layers of a network by name, or the one that is named; "auto" names none.

    Raises:
        UserError: There is no layer of that name.
    """
    layers = dict(network.named_sublayers())
    if layer == AUTO:
        return layers
    if layer not in layers:
        close = ", ".join(name for name, one in layers.items() if isinstance(one, nn.Conv2D))
        raise UserError(f"explain_layer={layer}: the network has no such layer; its convolutions are {close}")
    return {layer: layers[layer]}


class _Maps:
    """Collects a network's feature maps, in the order they are computed, while it runs."""

    def __init__(self, network: nn.Layer, layer: str):
        self.layers = find_layers(network, layer)
        self.named = layer
        self.found: list[paddle.Tensor] = []

    def __enter__(self) -> "_Maps":
        self.hooks = [one.register_forward_post_hook(self._keep) for one in self.layers.values()]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def _keep(self, layer: nn.Layer, inputs: object, output: object) -> None:
        # Pooling blurs the location of the evidence.
        pooled = "Pool" in type(layer).__name__ and self.named == AUTO
        if isinstance(output, paddle.Tensor) and output.ndim == 4 and max(output.shape[2:]) > 1 and not pooled:
            self.found.append(output)

    def choose(self, score: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Returns the last feature map that the score depends on (auxiliary branches do not), and its gradient."""
        large = [features for features in self.found if min(features.shape[2:]) >= MIN_SIDE]
        for features in reversed(self.found if self.named != AUTO else [*self.found, *large]):
            (gradients,) = paddle.grad(score, features, retain_graph=True, allow_unused=True)
            if gradients is not None:
                return features, gradients
        what = "the network" if self.named == AUTO else f"explain_layer={self.named}"
        raise UserError(
            f"{what}: no feature map of more than one pixel, so there is nothing to explain; "
            "name another explain_layer or use larger images"
        )
