"""Features: the input of the dense layer that computes a network's logits, its head."""

import contextlib
from collections.abc import Iterator, Sequence

import paddle
from paddle import nn

from models.classifier import Classifier


def find_head(classifier: Classifier, image_shape: Sequence[int]) -> nn.Linear | None:
    """Finds the dense layer whose output is the logits.

    Args:
        classifier: In eval mode.
        image_shape: (3, H, W).

    Returns:
        The layer; None where something else computes the logits (SqueezeNet's are a pooled convolution).
    """
    calls: list[tuple[nn.Linear, paddle.Tensor]] = []
    layers = [layer for layer in classifier.network.sublayers(include_self=True) if isinstance(layer, nn.Linear)]
    hooks = [
        layer.register_forward_post_hook(lambda layer, inputs, output: calls.append((layer, output)))
        for layer in layers
    ]
    try:
        with paddle.no_grad():
            logits = classifier(paddle.zeros([1, *image_shape]))
    finally:
        for hook in hooks:
            hook.remove()
    return next((layer for layer, output in calls if output is logits), None)


@contextlib.contextmanager
def without_head(classifier: Classifier, head: nn.Linear | None) -> Iterator[Classifier]:
    """Yields the classifier, whose outputs are features [N, D] instead of logits as long as the block lasts.

    Args:
        head: See find_head; None: the outputs stay the logits.
    """
    places = [
        (layer, name)
        for layer in classifier.sublayers(include_self=True)
        for name, child in layer.named_children()
        if child is head
    ]
    for layer, name in places:
        layer._sub_layers[name] = nn.Identity()
    try:
        yield classifier
    finally:
        for layer, name in places:
            layer._sub_layers[name] = head
