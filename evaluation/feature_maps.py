"""Feature maps and filters: what convolutions look for, and what they make of one image."""

from collections.abc import Iterator

import numpy as np
import paddle
from paddle import nn
from PIL import Image

from evaluation import gradcam, plots
from models.classifier import Classifier
from system.errors import UserError

# Layers shown, spread over the depth; filters and maps of each; side of a tile in pixels.
LAYERS, TILES, SIDE = 4, 8, 96


def compute(classifier: Classifier, pixels: np.ndarray, layer: str = gradcam.AUTO) -> dict[str, np.ndarray]:
    """Computes the feature maps of one image.

    Args:
        classifier: In eval mode.
        pixels: Raw pixels uint8 [3, H, W].
        layer: Name of the layer whose maps are wanted; "auto": every convolution.

    Returns:
        float32 [C, h, w] by name of the layer, in the order of computation.

    Raises:
        UserError: There is no layer of that name, or there are no feature maps.
    """
    found: dict[str, np.ndarray] = {}
    layers = gradcam.find_layers(classifier.network, layer)
    chosen = {name: one for name, one in layers.items() if layer != gradcam.AUTO or isinstance(one, nn.Conv2D)}
    names = {id(one): name for name, one in chosen.items()}

    def keep(one: nn.Layer, inputs: object, output: object) -> None:
        if isinstance(output, paddle.Tensor) and output.ndim == 4:
            found.setdefault(names[id(one)], output[0].numpy())

    hooks = [one.register_forward_post_hook(keep) for one in chosen.values()]
    try:
        with paddle.no_grad():
            classifier(paddle.to_tensor(pixels[None]))
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise UserError(f"explain_layer={layer}: the network has no feature maps there; name another layer")
    return found


def draw(classifier: Classifier, pixels: np.ndarray, layer: str, path: str, title: str) -> None:
    """Draws an image as the network sees it, the filters of the first convolution and feature maps.

    The maps are those with the highest mean of some layers, each scaled to its own maximum; below zero is black.

    Args:
        pixels: Raw pixels uint8 [3, H, W].
        layer: See `compute`; "auto": LAYERS convolutions from the first to the last.
        path: PNG to write.
        title: Of the figure.
    """
    maps = compute(classifier, pixels, layer)
    chosen = np.unique(np.linspace(0, len(maps) - 1, LAYERS).round().astype(int)) if layer == gradcam.AUTO else [0]
    tiles = [(Image.fromarray(pixels.transpose(1, 2, 0)), "input"), *_filters(classifier.network)]
    for name in (list(maps)[index] for index in chosen):
        order = np.argsort(-maps[name].mean(axis=(1, 2)), kind="stable")[:TILES]
        tiles += [(_tile(np.maximum(maps[name][index], 0)), f"{name}\nmap {index}") for index in order]
    images, captions = zip(*tiles, strict=True)
    plots.grid(images, captions, path, columns=TILES, title=title)


def _filters(network: nn.Layer) -> Iterator[tuple[Image.Image, str]]:
    """Yields the filters of the first convolution with the largest norms, where they are of colours."""
    name, first = next(
        ((name, one) for name, one in network.named_sublayers() if isinstance(one, nn.Conv2D)), ("", None)
    )
    weights = first.weight.numpy() if first is not None else np.zeros((0, 0, 0, 0))
    if weights.shape[1] == 3:
        order = np.argsort(-np.square(weights).sum(axis=(1, 2, 3)), kind="stable")
        # With the image they fill the first row.
        for index in order[: TILES - 1]:
            one = weights[index] / np.abs(weights[index]).max() if weights[index].any() else weights[index]
            yield _tile((one.transpose(1, 2, 0) + 1) / 2, 1.0), f"{name}\nfilter {index}"


def _tile(values: np.ndarray, highest: float | None = None) -> Image.Image:
    """Makes an image of values from 0 to `highest` (None: the largest of them), float [h, w] or [h, w, 3]."""
    largest = values.max() if highest is None else highest
    levels = np.uint8(np.rint(255 * values / largest if largest > 0 else values))
    size = (SIDE, round(SIDE * levels.shape[0] / levels.shape[1]))
    return Image.fromarray(levels).convert("RGB").resize(size, Image.Resampling.NEAREST)
