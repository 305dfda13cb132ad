"""Classifier: a network that takes raw pixels, with the normalisation inside."""

from collections.abc import Sequence

import numpy as np
import paddle
from paddle import nn


class Classifier(nn.Layer):
    """A network that takes raw pixels: uint8 or float32 [N, 3, H, W] in 0..255.

    Scaling, mean and std are part of it, so that batches travel as bytes and no caller can forget them. In training
    mode it returns what the network returns (GoogLeNet: three outputs); in eval mode the logits [N, num_classes].

    Attributes:
        network: The network itself, whose `state_dict` is what checkpoints hold.
    """

    def __init__(self, network: nn.Layer, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.network = network
        scale = 1 / (255 * np.asarray(std, np.float64))
        shift = -np.asarray(mean, np.float64) / np.asarray(std, np.float64)
        self.register_buffer("scale", paddle.to_tensor(scale.reshape(1, 3, 1, 1).astype("float32")), persistable=False)
        self.register_buffer("shift", paddle.to_tensor(shift.reshape(1, 3, 1, 1).astype("float32")), persistable=False)

    def forward(self, images: paddle.Tensor) -> paddle.Tensor | Sequence[paddle.Tensor]:
        """Normalises raw pixels and runs the network on them."""
        outputs = self.network(images.astype("float32") * self.scale + self.shift)
        return outputs if self.training else main_output(outputs)

    def train(self) -> None:
        """Sets training mode, except for frozen batch norm, whose statistics belong to the frozen weights."""
        super().train()
        for layer in self.network.sublayers(include_self=True):
            own = layer.parameters(include_sublayers=False)
            if isinstance(layer, nn.layer.norm._BatchNormBase) and own and all(p.stop_gradient for p in own):
                layer.eval()


def main_output(outputs: paddle.Tensor | Sequence[paddle.Tensor]) -> paddle.Tensor:
    """Returns the logits of a network that may return auxiliary outputs after them."""
    return outputs[0] if isinstance(outputs, (list, tuple)) else outputs
