"""Networks by name, their pretrained weights, and the wrapper that lets them take raw pixels."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import paddle
from paddle import nn
from paddle.vision.models import resnet

from system.errors import UserError, problems
from system.settings import Settings

# Sides tried when a network refuses a size, to tell the user the smallest that works.
MAX_SIDE = 512


class SmallCNN(nn.Sequential):
    """Three 3x3 convolutions (32, 64, 64), two max-pools, dense 64: 122,570 weights for 32x32 images, 10 classes.

    Takes float32 [N, 3, H, W], returns logits [N, num_classes].

    Source: the CIFAR-10 network of the TensorFlow tutorial "Convolutional Neural Network (CNN)", which CNN courses use.
    """

    def __init__(self, num_classes: int, height: int, width: int):
        def after(side: int) -> int:
            return ((side - 2) // 2 - 2) // 2 - 2

        rows, columns = after(height), after(width)
        if min(rows, columns) < 1:
            raise ValueError("the last convolution has no pixel left")
        positions = rows * columns
        super().__init__(
            nn.Conv2D(3, 32, 3, **_narrow(27)), nn.ReLU(), nn.MaxPool2D(2),
            nn.Conv2D(32, 64, 3, **_narrow(288)), nn.ReLU(), nn.MaxPool2D(2),
            nn.Conv2D(64, 64, 3, **_narrow(576)), nn.ReLU(),
            nn.Flatten(), nn.Linear(64 * positions, 64, **_narrow(64 * positions)), nn.ReLU(),
            nn.Linear(64, num_classes, **_narrow(64)),
        )  # fmt: skip


def _narrow(inputs: int) -> dict[str, nn.initializer.Initializer]:
    """Lets a layer start with weights and biases within 1 / sqrt(inputs).

    Paddle's own start, wider in the convolutions, overfits sooner: with it recipes/cifar10-cnn.yaml reached 0.688
    instead of 0.701 on 5,000 images held back (seed 1).

    Source: LeCun et al. 1998, "Efficient BackProp", section 4.6, for weights that shrink with the root of the inputs.
    """
    limit = inputs**-0.5
    start = nn.initializer.Uniform(-limit, limit)
    return {"weight_attr": start, "bias_attr": start}


class AlexNet(nn.Sequential):
    """Five convolutions (96-256-384-384-256, the first 11x11 stride 4), pooled to 6x6, then 9216-4096-4096-C.

    Takes float32 [N, 3, H, W], returns logits [N, num_classes].

    Source: Krizhevsky et al. 2012, on one device; dropout 0.5 before each hidden dense layer.
    """

    def __init__(self, num_classes: int):
        super().__init__(
            nn.Conv2D(3, 96, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2D(3, 2),
            nn.Conv2D(96, 256, 5, padding=2), nn.ReLU(), nn.MaxPool2D(3, 2),
            nn.Conv2D(256, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2D(384, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2D(384, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2D(3, 2),
            nn.AdaptiveAvgPool2D(6), nn.Flatten(),
            nn.Dropout(0.5), nn.Linear(256 * 6 * 6, 4096), nn.ReLU(),
            nn.Dropout(0.5), nn.Linear(4096, 4096), nn.ReLU(),
            nn.Linear(4096, num_classes),
        )  # fmt: skip


def _zoo() -> dict[str, Callable[..., nn.Layer]]:
    """Constructors of paddle.vision.models by name; LeNet is left out: it takes one grey channel only."""
    models = paddle.vision.models
    return {
        name: getattr(models, name) for name in models.__all__ if name.islower() and callable(getattr(models, name))
    }


def names() -> list[str]:
    """Lists the networks that `build` knows."""
    return sorted({"cnn", "alexnet", *_zoo()})


def construct(name: str, num_classes: int, image_shape: Sequence[int]) -> nn.Layer:
    """Makes a network with random weights: float32 [N, 3, H, W], normalised, to logits [N, num_classes].

    Raises:
        UserError: There is no network of that name.
        ValueError: The images are too small (some networks notice only when they run).
    """
    if name == "cnn":
        return SmallCNN(num_classes, *image_shape[1:])
    if name == "alexnet":
        return AlexNet(num_classes)
    if name not in names():
        raise UserError(f"network={name}: there is no such network; take one of {', '.join(names())}")
    return _zoo()[name](num_classes=num_classes)


class Classifier(nn.Layer):
    """A network that takes raw pixels: uint8 or float32 [N, 3, H, W] in 0..255.

    Scaling, mean and std are part of it, so that batches travel as bytes and no caller can forget them. In training
    mode it returns what the network returns (GoogLeNet: three outputs); in eval mode the logits [N, num_classes].

    Attributes:
        network: The network itself; its `state_dict` is what checkpoints hold.
    """

    def __init__(self, network: nn.Layer, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.network = network
        scale = 1 / (255 * np.asarray(std, np.float64))
        shift = -np.asarray(mean, np.float64) / np.asarray(std, np.float64)
        self.register_buffer("scale", paddle.to_tensor(scale.reshape(1, 3, 1, 1).astype("float32")), persistable=False)
        self.register_buffer("shift", paddle.to_tensor(shift.reshape(1, 3, 1, 1).astype("float32")), persistable=False)

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        """Raw pixels to logits."""
        outputs = self.network(images.astype("float32") * self.scale + self.shift)
        return outputs if self.training else first(outputs)

    def train(self) -> None:
        """Training mode, but for frozen batch norm: its statistics belong to the weights that stay."""
        super().train()
        for layer in self.network.sublayers(include_self=True):
            own = layer.parameters(include_sublayers=False)
            if isinstance(layer, nn.layer.norm._BatchNormBase) and own and all(p.stop_gradient for p in own):
                layer.eval()


def first(outputs: paddle.Tensor | Sequence[paddle.Tensor]) -> paddle.Tensor:
    """Picks the main output of networks that return auxiliary ones too."""
    return outputs[0] if isinstance(outputs, (list, tuple)) else outputs


def runs(network: nn.Layer, image_shape: Sequence[int]) -> bool:
    """Tells whether a network can work on images of this size, by letting it try on one; leaves it in eval mode."""

    def refuse_nothing(layer: nn.Layer, inputs: object, outputs: object) -> None:
        # A convolution over a map without pixels never returns in paddle 3.3.1, so stop before it.
        if isinstance(outputs, paddle.Tensor) and 0 in outputs.shape:
            raise ValueError("no pixel is left")

    hooks = [layer.register_forward_post_hook(refuse_nothing) for layer in network.sublayers()]
    network.eval()
    try:
        with paddle.no_grad():
            logits = first(network(paddle.zeros([1, *image_shape])))
    # What a network raises on a size it cannot take differs from layer to layer.
    except (ValueError, RuntimeError, OSError, SystemError, AssertionError):
        return False
    finally:
        for hook in hooks:
            hook.remove()
    return bool(paddle.isfinite(logits).all())


def takes(name: str, image_shape: Sequence[int]) -> bool:
    """Tells whether a network of this name can be built for and run on images of this size."""
    try:
        with paddle.utils.unique_name.guard():
            return runs(construct(name, 2, image_shape), image_shape)
    except ValueError:
        return False


def smallest_side(name: str) -> int | None:
    """Finds the smallest square image that a network takes, in pixels; None if nothing up to MAX_SIDE works.

    Usual sides are tried first, for some networks (GoogLeNet) take a few sizes only.
    """
    coarse = range(32, MAX_SIDE + 1, 32)
    high = next((side for side in coarse if takes(name, [3, side, side])), None)
    if high is None:
        return None
    low = high - 32
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if takes(name, [3, middle, middle]) else (middle, high)
    return high


def start_as_identity(network: nn.Layer) -> None:
    """Lets each residual block of a new ResNet begin as its shortcut: the scale of its last batch norm is zero.

    Source: Goyal et al. 2017 (arXiv:1706.02677), section 5.1.
    """
    for layer in network.sublayers():
        if isinstance(layer, (resnet.BottleneckBlock, resnet.BasicBlock)):
            last = layer.bn3 if isinstance(layer, resnet.BottleneckBlock) else layer.bn2
            last.weight.set_value(paddle.zeros_like(last.weight))


def head_names(network: nn.Layer, name: str, num_classes: int, image_shape: Sequence[int]) -> set[str]:
    """Names the weights whose shape depends on the number of classes.

    Asked of a second network with one class more, built without memory: no rule about layer names could be right for
    every architecture.
    """
    with paddle.utils.unique_name.guard(), paddle.LazyGuard():
        other = construct(name, num_classes + 1, image_shape).state_dict()
    return {key for key, weight in network.state_dict().items() if list(weight.shape) != list(other[key].shape)}


def load_strictly(network: nn.Layer, weights: Mapping[str, paddle.Tensor], where: str, head: set[str]) -> list[str]:
    """Loads weights by name; every one must fit, except those of the head, which may differ in shape or be absent.

    Args:
        where: What errors call the weights.
        head: Names that may stay as they are; empty: none may.

    Returns:
        Names that were not loaded, all of them in head.

    Raises:
        UserError: A weight is missing, unknown or of another shape.
    """
    own = network.state_dict()
    weights = {key: value for key, value in weights.items() if hasattr(value, "shape")}
    fits = {key for key in own if key in weights and list(weights[key].shape) == list(own[key].shape)}
    new = [key for key in own if key not in fits]
    wrong = [f"{key} is missing" for key in new if key not in weights and key not in head]
    wrong += [
        f"{key} is {list(weights[key].shape)}, not {list(own[key].shape)}"
        for key in new
        if key in weights and key not in head
    ]
    wrong += [f"{key} is unknown" for key in weights if key not in own]
    if wrong:
        raise problems(where, wrong, "these are weights of another network; name the network they were trained with")
    # Paddle warns of each name that is absent, so names that stay are handed their own weights.
    network.set_state_dict({key: weights[key] if key in fits else own[key] for key in own})
    return new


def read_weights(path: str | os.PathLike) -> dict[str, paddle.Tensor]:
    """Reads a .pdparams file. It is unpickled: read only files whose maker you trust.

    Raises:
        UserError: The file is missing, torn, or no weights file.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; check the path")
    try:
        weights = paddle.load(str(path))
    except Exception as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise UserError(f"{path}: cannot be read as weights ({reason}); copy or train them anew") from None
    if not isinstance(weights, dict) or not weights:
        raise UserError(f"{path}: this holds no weights; name a .pdparams file")
    return weights


def _imagenet_weights(name: str) -> Mapping[str, paddle.Tensor]:
    """Downloads the ImageNet weights that paddle.vision offers for a network."""
    if name not in _zoo() or name in ("alexnet", "cnn"):
        raise UserError(
            f"pretrained=true: there are no ImageNet weights for {name}; use pretrained=false or FILE.pdparams"
        )
    try:
        with paddle.utils.unique_name.guard():
            return _zoo()[name](pretrained=True).state_dict()
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"pretrained=true: the weights of {name} could not be downloaded ({reason}); "
            "download the .pdparams file elsewhere and give pretrained=FILE"
        ) from None


def build(settings: Settings, num_classes: int) -> tuple[Classifier, str]:
    """Makes the network that the settings describe, pretrained and frozen as they say.

    Returns:
        The network, and one line that says what was loaded, what is new and what is trained.

    Raises:
        UserError: Unknown network, images too small for it, or weights that do not fit.
    """
    name, shape = settings.network, settings.image_shape
    try:
        network = construct(name, num_classes, shape)
        fits = runs(network, shape)
    except ValueError:
        fits = False
    if not fits:
        side = smallest_side(name)
        remedy = f"the smallest square that works is {side}" if side else f"no square up to {MAX_SIDE} works"
        raise UserError(f"image_shape={list(shape)}: {name} cannot take images of this size; {remedy}")
    head = head_names(network, name, num_classes, shape) if settings.pretrained or settings.freeze else set()
    said = [f"{name}: {sum(int(np.prod(p.shape)) for p in network.parameters()):,} weights"]
    if settings.pretrained:
        file = isinstance(settings.pretrained, str)
        weights = read_weights(settings.pretrained) if file else _imagenet_weights(name)
        where = settings.pretrained if file else f"ImageNet weights of {name}"
        new = load_strictly(network, weights, str(where), head)
        said.append(f"loaded from {where}; new: {', '.join(new) or 'nothing'}")
    else:
        start_as_identity(network)
        said.append("all new")
    if settings.freeze:
        for key, weight in network.named_parameters():
            weight.stop_gradient = key not in head
        said.append(f"trained: {', '.join(sorted(head))}")
    return Classifier(network, settings.mean, settings.std), "; ".join(said)
