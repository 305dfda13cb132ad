"""Features: the input of the last dense layer."""

import numpy as np
import paddle
import pytest
from paddle import nn

from models import networks
from models.classifier import Classifier
from models.features import penultimate


@pytest.mark.parametrize(("name", "width"), [("cnn", 64), ("resnet18", 512), ("squeezenet1_1", 4)])
def test_features_are_what_the_logits_are_computed_from(name, width):
    """Guards against features of another layer; without a dense layer at the end they are the logits."""
    classifier = Classifier(networks.construct(name, 4, [3, 48, 48]), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    classifier.eval()
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 48, 48), np.uint8)
    features = penultimate(classifier, images)
    assert features.shape == (5, width) and features.dtype == np.float32
    with paddle.no_grad():
        logits = classifier(paddle.to_tensor(images)).numpy()
    dense = [layer for layer in classifier.network.sublayers() if isinstance(layer, nn.Linear)]
    computed = dense[-1](paddle.to_tensor(features)).numpy() if dense else features
    np.testing.assert_allclose(computed, logits, 1e-5, 1e-5)
