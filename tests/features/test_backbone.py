"""Features: the input of the last dense layer."""

import numpy as np
import paddle
import pytest

from features.backbone import find_head, without_head
from models import networks
from models.classifier import Classifier


@pytest.mark.parametrize(("name", "width"), [("cnn", 64), ("resnet18", 512), ("squeezenet1_1", 4), ("googlenet", 1024)])
def test_features_are_what_the_logits_are_computed_from(name, width):
    """Guards against features of another layer; without a dense layer at the end they are the logits."""
    classifier = Classifier(networks.construct(name, 4, [3, 48, 48]), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    classifier.eval()
    images = paddle.to_tensor(np.random.default_rng(0).integers(0, 256, (5, 3, 48, 48), np.uint8))
    head = find_head(classifier, [3, 48, 48])
    before = classifier.state_dict()
    with paddle.no_grad():
        logits = classifier(images)
        with without_head(classifier, head):
            features = classifier(images).flatten(1)
        again = classifier(images)
    assert features.shape == [5, width] and (head is None) == (name == "squeezenet1_1")
    computed = head(features) if head else features
    np.testing.assert_allclose(computed.numpy(), logits.numpy(), 1e-5, 1e-5)
    # The network is whole again.
    assert (again == logits).all() and list(classifier.state_dict()) == list(before)


def test_a_network_that_is_its_head_has_its_pixels_as_features():
    """Guards against a dense layer that is not found because it has no layer above it."""
    classifier = Classifier(paddle.nn.Sequential(paddle.nn.Flatten(), paddle.nn.Linear(12, 3)), (0, 0, 0), (1, 1, 1))
    classifier.eval()
    head = find_head(classifier, [3, 2, 2])
    images = paddle.to_tensor(np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2))
    with paddle.no_grad(), without_head(classifier, head):
        np.testing.assert_allclose(classifier(images).numpy(), images.flatten(1).numpy() / 255, rtol=1e-6)
