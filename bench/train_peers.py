"""The training steps of PyTorch and Keras that bench/train.py measures, each as its users write it.

Libraries are imported in the functions: a process measures one of them, and the others would take memory and threads.
"""

import math
import os
from collections.abc import Callable

import numpy as np

Step = Callable[[], object]


def torch_step(
    name: str, images: np.ndarray, labels: np.ndarray, num_classes: int, channels_last: bool, bfloat16: bool
) -> tuple[Step, int]:
    """Makes a training step of PyTorch.

    Args:
        images: uint8 [N, 3, H, W].
        labels: int64 [N].
        channels_last: Network and images have the memory format that PyTorch recommends for CPUs.
        bfloat16: Forward and loss run under autocast.

    Returns:
        The step, which ends when the loss is known, and the number of trained weights.
    """
    import torch
    import torch_networks

    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = torch_networks.construct(name, num_classes).to(memory_format=layout)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    inputs = (torch.from_numpy(images).float() / 255).to(memory_format=layout)
    targets = torch.from_numpy(labels)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            loss = torch.nn.functional.cross_entropy(network(inputs), targets)
        loss.backward()
        optimizer.step()
        loss.item()

    return step, sum(weight.numel() for weight in network.parameters())


def keras_step(name: str, images: np.ndarray, labels: np.ndarray, num_classes: int) -> tuple[Step, int]:
    """Makes a training step of Keras on TensorFlow; arguments and result as those of torch_step."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras
    import keras_networks

    network = keras_networks.construct(name, images.shape[2], num_classes)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
    inputs = images.transpose(0, 2, 3, 1).astype("float32") / 255
    weights = sum(math.prod(weight.shape) for weight in network.trainable_variables)
    return lambda: network.train_on_batch(inputs, labels), weights
