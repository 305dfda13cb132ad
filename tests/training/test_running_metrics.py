"""Metrics of an epoch: means over all its images, comparable between runs."""

import numpy as np
import paddle
import pytest

from annotation.lists import read_split
from dataset import BatchLoader, ListDataset
from evaluation import metrics
from imaging.transforms import EvalTransform
from models import factory
from training.losses import Loss, focal
from training.running_metrics import Accuracy, MeanLoss, Recall


def test_the_valid_loss_is_the_cross_entropy_over_all_images(drawn, settings_for, monkeypatch):
    """Guards against paddle's own eval loss, which is the last batch's, and against smoothed or focal valid losses."""
    monkeypatch.chdir(drawn.parent)
    settings = settings_for("data")
    samples, class_names = read_split(settings, "valid")
    loader = BatchLoader(ListDataset(samples, EvalTransform.from_settings(settings), settings.max_pixels), 5)
    paddle.seed(0)
    network, _ = factory.build(settings, len(class_names))
    model = paddle.Model(network)
    model.prepare(loss=Loss(focal, 0.1), metrics=[MeanLoss(), Accuracy()])
    scores = model.evaluate(loader, verbose=0)
    images, labels = (
        np.concatenate(part) for part in zip(*((np.asarray(i), np.asarray(y)) for i, y in loader), strict=True)
    )
    with paddle.no_grad():
        logits = network(paddle.to_tensor(images)).numpy()
    assert len(labels) % 5
    losses = metrics.losses(logits, labels)
    assert scores["mean_loss"] == pytest.approx(losses.mean(), rel=1e-5)
    assert abs(losses[-(len(losses) % 5) :].mean() - losses.mean()) > 1e-3
    assert scores["accuracy"] == pytest.approx((logits.argmax(1) == labels).mean())


def test_a_metric_starts_anew_each_epoch():
    """Guards against a mean over all epochs so far."""
    for metric in (MeanLoss(), Accuracy()):
        metric.update(np.array([1.0, 3.0], np.float32))
        metric.update(np.array([5.0], np.float32))
        assert metric.accumulate() == pytest.approx(3)
        metric.reset()
        metric.update(np.array([2.0], np.float32))
        assert metric.accumulate() == pytest.approx(2)


def test_recall_is_averaged_over_the_classes_that_occur():
    """Guards against a mean that frequent classes dominate, or that a class without images makes 0 or NaN."""
    recall = Recall(3)
    recall.active = True
    recall.update(np.array([0, 0, 0, 1]), np.array([0, 0, 0, 1]))
    recall.update(np.array([1, 0]), np.array([0, 1]))
    np.testing.assert_allclose(recall.recalls(), [3 / 4, 1 / 2, np.nan])
    assert recall.accumulate() == pytest.approx(5 / 8)
