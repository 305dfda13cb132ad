"""Metrics of an epoch: means over all its images, comparable between runs."""

import numpy as np
import paddle
import pytest

from annotation.lists import read_split
from dataset import PADDING, BatchLoader, ListDataset
from evaluation import metrics
from imaging.transforms import EvalTransform
from models import factory
from system import machine
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


def test_a_mixed_image_counts_as_the_class_of_its_larger_part():
    """Guards against training accuracies of 0 with mixup, and against losses of the wrong target."""
    logits = paddle.to_tensor([[4.0, 0.0, 0.0], [0.0, 3.0, 0.0]])
    targets = paddle.to_tensor([[0.7, 0.3, 0.0], [0.6, 0.4, 0.0]])
    assert Accuracy().compute(logits, targets).numpy().tolist() == [1.0, 0.0]
    log_p = paddle.nn.functional.log_softmax(logits, axis=1).numpy()
    np.testing.assert_allclose(
        MeanLoss().compute(logits, targets).numpy(), -(targets.numpy() * log_p).sum(1), rtol=1e-5
    )


def test_only_the_main_output_is_judged():
    """Guards against GoogLeNet's auxiliary outputs in the place of its answer."""
    main, auxiliary = paddle.to_tensor([[9.0, 0.0]]), paddle.to_tensor([[0.0, 9.0]])
    labels = paddle.to_tensor([0])
    assert float(Accuracy().compute(main, auxiliary, auxiliary, labels)[0]) == 1.0
    assert float(MeanLoss().compute(main, auxiliary, auxiliary, labels)[0]) < 0.01


def test_rows_of_padding_are_counted_by_no_metric(monkeypatch):
    """Guards against the accuracy of several processes that counts rows which only fill up a batch."""
    monkeypatch.setattr(machine, "rank", lambda: (1, 2))
    logits, labels = paddle.to_tensor([[4.0, 0.0], [4.0, 0.0], [0.0, 4.0]]), paddle.to_tensor([0, PADDING, 0])
    assert Accuracy().compute(logits, labels).numpy().tolist() == [1.0, 0.0]
    assert len(MeanLoss().compute(logits, labels)) == 2
    recall = Recall(2)
    recall.active = True
    recall.update(*(part.numpy() for part in recall.compute(logits, labels)))
    assert recall.counts.tolist() == [2, 0] and recall.hits.tolist() == [1, 0]


def test_recall_is_of_the_validation_alone_and_outlives_its_end():
    """Guards against recalls of training batches, and against none at the end of an epoch, when they are written."""
    recall = Recall(2)
    assert recall.compute(paddle.to_tensor([[1.0, 0.0]]), paddle.to_tensor([0])) == []
    recall.update()
    assert recall.accumulate() == 0 and np.isnan(recall.last).all()
    recall.active = True
    recall.update(np.array([0, 1, 1]), np.array([0, 0, 1]))
    recall.reset()
    assert recall.last.tolist() == [0.5, 1.0] and recall.counts.tolist() == [0, 0]
    recall.active = False
    recall.reset()
    assert recall.last.tolist() == [0.5, 1.0]


def test_a_mean_of_many_images_does_not_lose_small_ones():
    """Guards against sums in 32 bits, which stop growing after 16 million images."""
    metric = MeanLoss()
    metric.total, metric.count = float(2**25), 2**25
    metric.update(np.ones(3, np.float32))
    assert metric.total == 2**25 + 3 and metric.accumulate() == 1
