"""ResNet50 and MobileNetV2 in plain PyTorch, layer for layer those of paddle.vision.models and torchvision.

torchvision's wheels fit one build of torch only, and the CPU build often has no match; the benches need only these two
networks of it.

Source: He et al. 2015, https://arxiv.org/abs/1512.03385 (stride in the 3x3 convolution, as both libraries have it);
Sandler et al. 2018, https://arxiv.org/abs/1801.04381
"""

import torch
from torch import nn

# Numbers of weights with ImageNet's 1,000 classes.
WEIGHTS = {"resnet50": 25_557_032, "mobilenet_v2": 3_504_872}
# Width, blocks and stride of each stage.
RESNET_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
# Expansion, channels, blocks and stride of each stage.
MOBILENET_STAGES = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip


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


def construct(name: str, num_classes: int) -> nn.Module:
    """Builds a network float32 [N, 3, H, W] -> logits [N, num_classes] with random weights.

    Raises:
        KeyError: Another name than resnet50 or mobilenet_v2.
    """
    return {"resnet50": _resnet50, "mobilenet_v2": _mobilenet_v2}[name](num_classes)


if __name__ == "__main__":
    for network_name, expected in WEIGHTS.items():
        counted = sum(weight.numel() for weight in construct(network_name, 1000).parameters())
        print(f"{network_name}: {counted:,} weights, expected {expected:,}")
