"""What paddle.Model is given: a loss and measures that mean what they say."""

import numpy as np
import paddle
import pytest

import training
from annotation.lists import read_split
from dataset import BatchLoader, ListDataset
from imaging.transforms import EvalTransform
from models import networks


def softmax_loss(logits: np.ndarray, labels: np.ndarray, smoothing: float = 0.0) -> np.ndarray:
    """Cross-entropy of each row in float64, by hand."""
    logits = logits.astype(np.float64)
    logs = (
        logits
        - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
        - logits.max(1, keepdims=True)
    )
    targets = np.eye(logits.shape[1])[labels] * (1 - smoothing) + smoothing / logits.shape[1]
    return -(targets * logs).sum(1)


@pytest.fixture(scope="module")
def batch() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.standard_normal((7, 4)).astype("float32") * 3, generator.integers(0, 4, 7)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_cross_entropy(batch, smoothing):
    """Guards against a loss of probabilities instead of logits, and smoothing that is dropped."""
    logits, labels = batch
    loss = training.Loss(smoothing)(paddle.to_tensor(logits), paddle.to_tensor(labels))
    assert float(loss) == pytest.approx(softmax_loss(logits, labels, smoothing).mean(), rel=1e-5)


def test_auxiliary_outputs_count_three_tenths(batch):
    """Guards against GoogLeNet's side outputs that learn nothing, or as much as the main one."""
    logits, labels = batch
    outputs = [paddle.to_tensor(logits * factor) for factor in (1, 2, -1)]
    loss = training.Loss(0.0)(*outputs, paddle.to_tensor(labels))
    main, *others = (softmax_loss(logits * factor, labels).mean() for factor in (1, 2, -1))
    assert float(loss) == pytest.approx(main + 0.3 * sum(others), rel=1e-5)


def test_the_valid_loss_is_the_mean_over_all_images(drawn, settings_for, monkeypatch):
    """Guards against paddle's own eval loss, which is that of the last batch."""
    monkeypatch.chdir(drawn.parent)
    settings = settings_for("data")
    samples, class_names = read_split(settings, "valid")
    loader = BatchLoader(ListDataset(samples, EvalTransform.from_settings(settings), settings.max_pixels), 5)
    paddle.seed(0)
    network, _ = networks.build(settings, len(class_names))
    model = paddle.Model(network)
    model.prepare(loss=training.Loss(0.1), metrics=[training.MeanLoss(), training.Accuracy()])
    scores = model.evaluate(loader, verbose=0)
    images, labels = (
        np.concatenate(part) for part in zip(*((np.asarray(i), np.asarray(y)) for i, y in loader), strict=True)
    )
    with paddle.no_grad():
        logits = network(paddle.to_tensor(images)).numpy()
    assert len(labels) % 5
    losses = softmax_loss(logits, labels)
    assert scores["mean_loss"] == pytest.approx(losses.mean(), rel=1e-5)
    assert abs(losses[-(len(losses) % 5) :].mean() - losses.mean()) > 1e-3
    assert scores["accuracy"] == pytest.approx((logits.argmax(1) == labels).mean())


def test_a_measure_starts_anew_each_pass():
    """Guards against a mean over all epochs so far."""
    for measure in (training.MeanLoss(), training.Accuracy()):
        measure.update(np.array([1.0, 3.0], np.float32))
        measure.update(np.array([5.0], np.float32))
        assert measure.accumulate() == pytest.approx(3)
        measure.reset()
        measure.update(np.array([2.0], np.float32))
        assert measure.accumulate() == pytest.approx(2)
