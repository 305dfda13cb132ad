"""Networks in plain PyTorch, layer for layer those of paddle.vision.models and torchvision, and this project's cnn.

torchvision's wheels fit one build of torch only, and the CPU build often has no match; the benches need only these few
networks of it.

Source: He et al. 2015, https://arxiv.org/abs/1512.03385 (stride in the 3x3 convolution, as both libraries have it);
Sandler et al. 2018, https://arxiv.org/abs/1801.04381; Simonyan and Zisserman 2014, https://arxiv.org/abs/1409.1556;
Ma et al. 2018, https://arxiv.org/abs/1807.11164
"""

import torch
from torch import nn

# Numbers of weights with ImageNet's 1,000 classes.
WEIGHTS = {
    "resnet50": 25_557_032, "mobilenet_v2": 3_504_872, "vgg16": 138_357_544, "shufflenet_v2_x1_0": 2_278_604,
}  # fmt: skip
# Width, blocks and stride of each stage.
RESNET_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
# Expansion, channels, blocks and stride of each stage.
MOBILENET_STAGES = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip
# Channels and convolutions of each stage.
VGG_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
# Channels and blocks of each stage.
SHUFFLENET_STAGES = ((116, 4), (232, 8), (464, 4))


def _unit(entering: int, leaving: int, kernel: int, stride: int = 1, groups: int = 1, last: list | None = None) -> list:
    """Convolution, batch norm, and the layers in `last`."""
    convolution = nn.Conv2d(entering, leaving, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(leaving), *(last or [])]


class _Residual(nn.Module):
    """A residual block: the output of a chain of layers plus the input, or its projection."""

    def __init__(self, chain: list, projection: list | None = None, after: nn.Module | None = None):
        super().__init__()
        self.chain = nn.Sequential(*chain)
        self.projection = nn.Sequential(*(projection or []))
        self.after = after or nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.after(self.chain(images) + self.projection(images))


def _resnet50(num_classes: int) -> nn.Module:
    def relu() -> list:
        return [nn.ReLU(inplace=True)]

    layers, entering = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), *relu(), nn.MaxPool2d(3, 2, 1)], 64
    for width, blocks, first in RESNET_STAGES:
        for stride in (first, *[1] * (blocks - 1)):
            chain = [
                *_unit(entering, width, 1, last=relu()),
                *_unit(width, width, 3, stride, last=relu()),
                *_unit(width, 4 * width, 1),
            ]
            projection = _unit(entering, 4 * width, 1, stride) if entering != 4 * width else None
            layers.append(_Residual(chain, projection, *relu()))
            entering = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(entering, num_classes))


def _mobilenet_v2(num_classes: int) -> nn.Module:
    def relu() -> list:
        return [nn.ReLU6(inplace=True)]

    layers, entering = _unit(3, 32, 3, 2, last=relu()), 32
    for expansion, channels, blocks, first in MOBILENET_STAGES:
        for stride in (first, *[1] * (blocks - 1)):
            inner = entering * expansion
            chain = _unit(entering, inner, 1, last=relu()) if expansion > 1 else []
            chain += [*_unit(inner, inner, 3, stride, inner, last=relu()), *_unit(inner, channels, 1)]
            layers += [_Residual(chain)] if stride == 1 and entering == channels else chain
            entering = channels
    layers += _unit(entering, 1280, 1, last=relu())
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(1280, num_classes)]
    return nn.Sequential(*layers, *head)


def _vgg16(num_classes: int) -> nn.Module:
    layers, entering = [], 3
    for channels, convolutions in VGG_STAGES:
        for _ in range(convolutions):
            layers += [nn.Conv2d(entering, channels, 3, padding=1), nn.ReLU(inplace=True)]
            entering = channels
        layers.append(nn.MaxPool2d(2))
    layers += [nn.AdaptiveAvgPool2d(7), nn.Flatten()]
    for features in (512 * 7 * 7, 4096):
        layers += [nn.Linear(features, 4096), nn.ReLU(inplace=True), nn.Dropout(0.5)]
    return nn.Sequential(*layers, nn.Linear(4096, num_classes))


class _ShuffleBlock(nn.Module):
    """Two branches side by side, whose channels are then mixed; with stride 1 the first is half of the input."""

    def __init__(self, entering: int, leaving: int):
        super().__init__()
        half, relu = leaving // 2, [nn.ReLU(inplace=True)]
        self.splits = entering == leaving
        inner, stride, first = half, 1, []
        if not self.splits:
            inner, stride = entering, 2
            first = [*_unit(entering, entering, 3, 2, entering), *_unit(entering, half, 1, last=relu)]
        last = [*_unit(half, half, 3, stride, half), *_unit(half, half, 1, last=relu)]
        second = [*_unit(inner, half, 1, last=relu), *last]
        self.first, self.second = nn.Sequential(*first), nn.Sequential(*second)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        halves = images.chunk(2, dim=1) if self.splits else (images, images)
        maps = torch.cat([self.first(halves[0]), self.second(halves[1])], dim=1)
        if maps.is_contiguous(memory_format=torch.channels_last):
            # It keeps the format, which the views below lose; without the format it is the slower one.
            return nn.functional.channel_shuffle(maps, 2)
        count, channels, height, width = maps.shape
        mixed = maps.view(count, 2, channels // 2, height, width).transpose(1, 2)
        return mixed.reshape(count, channels, height, width)


def _shufflenet(num_classes: int) -> nn.Module:
    relu, entering = [nn.ReLU(inplace=True)], 24
    layers = [*_unit(3, 24, 3, 2, last=relu), nn.MaxPool2d(3, 2, 1)]
    for channels, blocks in SHUFFLENET_STAGES:
        for _ in range(blocks):
            layers.append(_ShuffleBlock(entering, channels))
            entering = channels
    layers += _unit(entering, 1024, 1, last=relu)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, num_classes))


def _cnn(num_classes: int) -> nn.Module:
    """This project's network for images of 32x32."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 64), nn.ReLU(), nn.Linear(64, num_classes),
    )  # fmt: skip


NETWORKS = {
    "cnn": _cnn, "resnet50": _resnet50, "mobilenet_v2": _mobilenet_v2, "vgg16": _vgg16,
    "shufflenet_v2_x1_0": _shufflenet,
}  # fmt: skip


def construct(name: str, num_classes: int) -> nn.Module:
    """Builds a network float32 [N, 3, H, W] -> logits [N, num_classes] with random weights.

    Raises:
        KeyError: Another name than those of NETWORKS.
    """
    return NETWORKS[name](num_classes)


if __name__ == "__main__":
    for network_name, expected in WEIGHTS.items():
        counted = sum(weight.numel() for weight in construct(network_name, 1000).parameters())
        print(f"{network_name}: {counted:,} weights, expected {expected:,}")
