"""Building the classifier that the settings describe: pretrained, frozen, and checked against the image size."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import paddle
from paddle import nn
from paddle.vision.models import resnet

from models.checkpoint import Run
from models.classifier import Classifier, main_output
from models.networks import construct
from models.pretrained import base_weights, find_weights, head_axes, load_strictly
from models.weights_files import read_weights
from system.errors import UserError
from system.settings import Settings

# Largest side tried when a network fails on the requested size, to suggest the smallest that works; in pixels.
MAX_SIDE = 512
# What networks raise on images they cannot take differs from layer to layer.
SIZE_ERRORS = (ValueError, RuntimeError, OSError, SystemError, AssertionError)


def build(settings: Settings, num_classes: int, class_names: Sequence[str] = ()) -> tuple[Classifier, str]:
    """Builds the network that the settings describe, pretrained and frozen as they ask for.

    Args:
        class_names: Those of the data; of a run that it starts from, the head's rows of these classes are kept.

    Returns:
        The classifier, and a one-line summary: what was loaded, what is new and what is trained.

    Raises:
        UserError: Unknown network, images too small for it, or weights that do not fit.
    """
    name, image_shape = settings.network, settings.image_shape
    network = _construct_checked(name, num_classes, image_shape)
    head = head_axes(network, name, num_classes, image_shape) if settings.pretrained or settings.freeze else {}
    summary = [f"{name}: {sum(int(np.prod(p.shape)) for p in network.parameters()):,} weights"]
    summary.append(_initialise(network, settings, head, class_names))
    if settings.freeze:
        frozen = base_weights(name, network) or network.state_dict().keys() - head.keys()
        trained = {key for key, _ in network.named_parameters()} - frozen
        for key, weight in network.named_parameters():
            weight.stop_gradient = key in frozen
        summary.append(f"trained: {', '.join(sorted(trained))}")
    return Classifier(network, settings.mean, settings.std), "; ".join(summary)


def _construct_checked(name: str, num_classes: int, image_shape: Sequence[int]) -> nn.Layer:
    """Builds a network with random weights and runs it once on images of the requested size."""
    try:
        network = construct(name, num_classes, image_shape)
        logits = _trial(network, image_shape)
    except SIZE_ERRORS:
        side = smallest_side(name)
        if side is None:
            # Not a matter of size: the traceback shows where the network is wrong.
            raise
        raise UserError(
            f"image_shape={list(image_shape)}: {name} cannot take images of this size; "
            f"the smallest square that works is {side}"
        ) from None
    if logits.shape != [1, num_classes]:
        raise UserError(
            f"network={name}: its output is {logits.shape} for one image and {num_classes} classes; "
            "return logits [N, num_classes]"
        )
    return network


def _initialise(network: nn.Layer, settings: Settings, head: Mapping[str, int], class_names: Sequence[str]) -> str:
    """Loads the pretrained weights, or prepares the random ones for training; returns which."""
    if not settings.pretrained:
        zero_init_residual(network)
        return "randomly initialised"
    if isinstance(settings.pretrained, str) and Path(settings.pretrained).is_dir():
        return _start_from_run(network, Run(settings.pretrained), settings, head, class_names)
    file = settings.pretrained if isinstance(settings.pretrained, str) else None
    weights, where = find_weights(network, settings.network, file)
    shared = base_weights(settings.network, network)
    top = network.state_dict().keys() - shared if shared else set()
    new = load_strictly(network, weights, where, head.keys() | top)
    return f"loaded from {where}; new: {', '.join(new) or 'nothing'}"


def _start_from_run(
    network: nn.Layer, run: Run, settings: Settings, head: Mapping[str, int], class_names: Sequence[str]
) -> str:
    """Loads a run's weights; the head keeps its rows of classes that are still there, the others are new."""
    old, names = run.settings, run.class_names
    for key in ("network", "mean", "std"):
        if getattr(old, key) != getattr(settings, key):
            value = getattr(old, key)
            raise UserError(
                f"pretrained={run.path}: the run has {key}={list(value) if isinstance(value, tuple) else value}; set "
                "the same, for its weights know no other"
            )
    file = run.file(f"{run.weights_kind()}.pdparams")
    weights, own = read_weights(file), network.state_dict()
    kept = [name for name in class_names if name in names]
    before, now = [names.index(name) for name in kept], [class_names.index(name) for name in kept]
    for key, axis in head.items():
        rows = np.moveaxis(own[key].numpy().copy(), axis, 0)
        rows[now] = np.moveaxis(weights[key].numpy(), axis, 0)[before]
        weights[key] = paddle.to_tensor(np.ascontiguousarray(np.moveaxis(rows, 0, axis)))
    load_strictly(network, weights, str(file), set())
    new = [name for name in class_names if name not in names]
    return f"loaded from {file}; its head knows {len(kept)} of {len(class_names)} classes" + (
        f", new: {', '.join(new[:10])}{' ...' if len(new) > 10 else ''}" if new else ""
    )


def zero_init_residual(network: nn.Layer) -> None:
    """Sets the scale of the last batch norm of each ResNet block to zero, so that the block starts as the identity.

    Source: Goyal et al. 2017 (arXiv:1706.02677), section 5.1.
    """
    for layer in network.sublayers():
        if isinstance(layer, (resnet.BottleneckBlock, resnet.BasicBlock)):
            last = layer.bn3 if isinstance(layer, resnet.BottleneckBlock) else layer.bn2
            last.weight.set_value(paddle.zeros_like(last.weight))


def smallest_side(name: str) -> int | None:
    """Finds the smallest square image that a network takes, in pixels; None if nothing up to MAX_SIDE works.

    Multiples of 32 are tried first, for some networks (GoogLeNet) take a few sizes only.
    """
    coarse = range(32, MAX_SIDE + 1, 32)
    high = next((side for side in coarse if _takes(name, side)), None)
    if high is None:
        return None
    low = high - 32
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _takes(name, middle) else (middle, high)
    return high


def _takes(name: str, side: int) -> bool:
    """Returns True if a network of this name can be built for and run on square images of this size."""
    image_shape = [3, side, side]
    try:
        with paddle.utils.unique_name.guard():
            _trial(construct(name, 2, image_shape), image_shape)
    except SIZE_ERRORS:
        return False
    return True


def _trial(network: nn.Layer, image_shape: Sequence[int]) -> paddle.Tensor:
    """Runs a network on one image of zeros; leaves it in eval mode.

    Returns:
        Its logits [1, num_classes].

    Raises:
        ValueError: A map without pixels, or logits that are not finite. Layers raise the other SIZE_ERRORS.
    """
    hooks = [layer.register_forward_post_hook(_refuse_empty_map) for layer in network.sublayers()]
    network.eval()
    try:
        with paddle.no_grad():
            logits = main_output(network(paddle.zeros([1, *image_shape])))
    finally:
        for hook in hooks:
            hook.remove()
    if not bool(paddle.isfinite(logits).all()):
        raise ValueError("the logits are not finite")
    return logits


def _refuse_empty_map(layer: nn.Layer, inputs: object, outputs: object) -> None:
    # A convolution over a map without pixels never returns in paddle 3.3.1, so stop before it.
    if isinstance(outputs, paddle.Tensor) and 0 in outputs.shape:
        raise ValueError("no pixel is left")
