"""Networks by name: our own, those of paddle.vision.models, and those of PaddleClas.

To add a network of your own, write one function or class in this file and register it under its name:

    @network("mine")
    def mine(num_classes: int, image_shape: Sequence[int]) -> nn.Layer:
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(image_shape), num_classes))

Then `python train.py network=mine` trains it, and every other command knows it too.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from paddle import nn, vision

from models import paddleclas
from system.errors import UserError

Constructor = TypeVar("Constructor", bound=Callable[..., nn.Layer])
NETWORKS: dict[str, Callable[..., nn.Layer]] = {}
# Networks of paddle.vision.models whose weights a registered one takes, by the name of the latter.
BASES: dict[str, str] = {}


def network(name: str, base: str | None = None) -> Callable[[Constructor], Constructor]:
    """Registers a constructor under the name that the setting `network` takes; it wins over Paddle's of that name.

    The constructor is called with num_classes and image_shape (channels, height, width). Its network takes normalised
    images, float32 [N, 3, H, W], and returns logits [N, num_classes], or a list that begins with them. It raises
    ValueError for images that are too small.

    Args:
        base: A network of paddle.vision.models whose pretrained weights fit it, as far as they have the same names and
            shapes: `pretrained` loads these, and `freeze` freezes them.
    """

    def register(constructor: Constructor) -> Constructor:
        if name in NETWORKS:
            raise ValueError(f"a network named {name} is registered already")
        NETWORKS[name] = constructor
        if base:
            BASES[name] = base
        return constructor

    return register


@network("cnn")
class SmallCNN(nn.Sequential):
    """Three 3x3 convolutions (32, 64, 64), two max pools, dense 64: 122,570 weights for 32x32 images, 10 classes.

    Source: the CIFAR-10 network of the TensorFlow tutorial "Convolutional Neural Network (CNN)", which CNN courses use.
    """

    def __init__(self, num_classes: int, image_shape: Sequence[int]):
        height, width = (((side - 2) // 2 - 2) // 2 - 2 for side in image_shape[1:])
        if min(height, width) < 1:
            raise ValueError("the last convolution has no pixel left")
        positions = height * width
        super().__init__(
            nn.Conv2D(3, 32, 3, **_uniform(27)), nn.ReLU(), nn.MaxPool2D(2),
            nn.Conv2D(32, 64, 3, **_uniform(288)), nn.ReLU(), nn.MaxPool2D(2),
            nn.Conv2D(64, 64, 3, **_uniform(576)), nn.ReLU(),
            nn.Flatten(), nn.Linear(64 * positions, 64, **_uniform(64 * positions)), nn.ReLU(),
            nn.Linear(64, num_classes, **_uniform(64)),
        )  # fmt: skip


def _uniform(fan_in: int) -> dict[str, nn.initializer.Initializer]:
    """Initialises the weights and biases of a layer uniformly within 1 / sqrt(fan_in).

    Paddle's default, wider in the convolutions, overfits sooner: with it recipes/cifar10-cnn.yaml reached 0.688
    instead of 0.701 on 5,000 images held back (seed 1).

    Source: LeCun et al. 1998, "Efficient BackProp", section 4.6, for weights that shrink with the root of the inputs.
    """
    limit = fan_in**-0.5
    initializer = nn.initializer.Uniform(-limit, limit)
    return {"weight_attr": initializer, "bias_attr": initializer}


@network("alexnet")
class AlexNet(nn.Sequential):
    """Five convolutions (96-256-384-384-256, the first 11x11 stride 4), pooled to 6x6, then 9216-4096-4096-C.

    Source: Krizhevsky et al. 2012, on one device; dropout 0.5 before each hidden dense layer.
    """

    def __init__(self, num_classes: int, image_shape: Sequence[int]):
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


@network("vgg19_bottleneck", base="vgg19")
class VGG19Bottleneck(nn.Sequential):
    """The convolutions of VGG19, then dense 30 with ReLU, and dense C, on all their 512 x H/32 x W/32 features.

    Source: the head that courses put on Keras's VGG19 without its top: Flatten, Dense(30), Dense(C).
    """

    def __init__(self, num_classes: int, image_shape: Sequence[int]):
        height, width = (side // 32 for side in image_shape[1:])
        if min(height, width) < 1:
            raise ValueError("the last pooling has no pixel left")
        base = vision.models.vgg19(num_classes=0, with_pool=False)
        dense = nn.Sequential(
            nn.Flatten(), nn.Linear(512 * height * width, 30), nn.ReLU(), nn.Linear(30, num_classes)
        )  # fmt: skip
        super().__init__(("features", base.features), ("dense", dense))


def paddle_networks() -> dict[str, Callable[..., nn.Layer]]:
    """Returns the constructors of paddle.vision.models by name, without LeNet, which takes one grey channel only."""
    models = vision.models
    return {
        name: getattr(models, name) for name in models.__all__ if name.islower() and callable(getattr(models, name))
    }


def names() -> list[str]:
    """Lists the names that the setting `network` takes, without those of PaddleClas."""
    return sorted({*NETWORKS, *paddle_networks()})


def construct(name: str, num_classes: int, image_shape: Sequence[int]) -> nn.Layer:
    """Builds a network with random weights: normalised float32 [N, 3, H, W] to logits [N, num_classes].

    Raises:
        UserError: There is no network of that name.
        ValueError: The images are too small (some networks notice only when they run).
    """
    if name in NETWORKS:
        return NETWORKS[name](num_classes, image_shape)
    if name.startswith(paddleclas.PREFIX):
        return paddleclas.construct(name, num_classes)
    if name not in names():
        raise UserError(f"network={name}: there is no such network; take one of {', '.join(names())}, or ppcls.NAME")
    return paddle_networks()[name](num_classes=num_classes)
