"""Classifier: raw pixels in, logits out; nobody else normalises."""

import numpy as np
import paddle
from paddle import nn

from models.classifier import Classifier

MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.25, 0.125)


class Recorder(nn.Layer):
    """Keeps what it is called with."""

    def forward(self, pixels):
        self.seen = pixels.numpy()
        return pixels.mean(axis=[2, 3])


def test_raw_pixels_are_normalised_inside():
    """Guards against mean and std that are forgotten, applied twice, or in another order of channels."""
    classifier = Classifier(Recorder(), MEAN, STD)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 5), np.uint8)
    expected = (pixels / 255 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    for raw in (pixels, pixels.astype("float32")):
        classifier(paddle.to_tensor(raw))
        assert np.abs(classifier.network.seen - expected).max() < 1e-5


def test_mean_and_std_are_no_weights():
    """Guards against checkpoints whose names only this wrapper knows."""
    assert list(Classifier(nn.Linear(2, 2), MEAN, STD).network.state_dict()) == ["weight", "bias"]
    assert list(Classifier(nn.Linear(2, 2), MEAN, STD).state_dict()) == ["network.weight", "network.bias"]
