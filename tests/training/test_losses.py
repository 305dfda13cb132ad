"""Losses: each is what its formula says, for hard, smoothed, mixed and weighted labels; a name selects it."""

from pathlib import Path

import numpy as np
import paddle
import pytest

import train
from dataset import PADDING
from system import machine
from system.errors import UserError
from training import losses

GAMMA = {"cross_entropy": 0.0, "focal": 2.0}


def reference(name: str, logits: np.ndarray, targets: np.ndarray, smoothing: float = 0.0) -> np.ndarray:
    """The loss of each row in float64; targets are indices [N] or shares [N, C]."""
    logits, count = logits.astype(np.float64), logits.shape[1]
    shifted = logits - logits.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    targets = np.eye(count)[targets] if targets.ndim == 1 else targets
    targets = targets * (1 - smoothing) + smoothing / count
    return -(targets * (1 - np.exp(log_p)) ** GAMMA[name] * log_p).sum(1)


@pytest.fixture(scope="module")
def batch() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.standard_normal((7, 4)).astype("float32") * 3, generator.integers(0, 4, 7)


@pytest.fixture(scope="module")
def mixed() -> np.ndarray:
    """Targets of mixed images."""
    return np.random.default_rng(1).dirichlet([0.5] * 4, 7).astype("float32")


@pytest.mark.parametrize("soft", [False, True], ids=["indices", "mixed"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", GAMMA)
def test_a_loss_is_its_formula(batch, mixed, name, smoothing, soft):
    """Guards against a loss of probabilities instead of logits, and against smoothing or mixing that is dropped."""
    logits, labels = batch
    targets = mixed if soft else labels
    loss = losses.Loss(losses.LOSSES[name], smoothing)(paddle.to_tensor(logits), paddle.to_tensor(targets))
    assert float(loss) == pytest.approx(reference(name, logits, targets, smoothing).mean(), rel=1e-5)


@pytest.mark.parametrize("name", GAMMA)
def test_class_weights_apply_to_smoothed_and_mixed_labels(batch, mixed, name):
    """Guards against weights that are ignored with label smoothing, or that a mixed image takes from one class only."""
    logits, labels = batch
    weights = np.array([0.5, 1.0, 2.0, 4.0], np.float32)
    weighted = losses.Loss(losses.LOSSES[name], 0.1, weights)
    for targets, factors in ((labels, weights[labels]), (mixed, mixed @ weights)):
        expected = (reference(name, logits, targets, 0.1) * factors).mean()
        assert float(weighted(paddle.to_tensor(logits), paddle.to_tensor(targets))) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", GAMMA)
def test_the_gradient_is_that_of_the_formula(batch, name):
    """Guards against a loss whose value is right and whose gradient is cut off."""
    logits, labels = batch
    tensor = paddle.to_tensor(logits, stop_gradient=False)
    losses.Loss(losses.LOSSES[name], 0.1)(tensor, paddle.to_tensor(labels)).backward()
    expected, step = np.zeros(logits.shape), 1e-6
    for place in np.ndindex(*logits.shape):
        moved = np.zeros(logits.shape)
        moved[place] = step
        above, below = (reference(name, logits + sign * moved, labels, 0.1).mean() for sign in (1, -1))
        expected[place] = (above - below) / (2 * step)
    np.testing.assert_allclose(tensor.grad.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", GAMMA)
def test_padding_has_no_loss(batch, name, smoothing, monkeypatch):
    """Guards against rows that only fill up a batch of several processes, and an index that has no class."""
    monkeypatch.setattr(machine, "rank", lambda: (0, 2))
    logits, labels = batch
    padded = np.where(np.arange(7) > 4, PADDING, labels)
    values = losses.LOSSES[name](paddle.to_tensor(logits), paddle.to_tensor(padded), smoothing).numpy()
    np.testing.assert_allclose(values[:5], reference(name, logits, labels, smoothing)[:5], rtol=1e-5)
    assert values[5:].tolist() == [0, 0]


def test_auxiliary_outputs_count_three_tenths(batch):
    """Guards against GoogLeNet's auxiliary outputs that learn nothing, or as much as the main one."""
    logits, labels = batch
    outputs = [paddle.to_tensor(logits * factor) for factor in (1, 2, -1)]
    loss = losses.Loss()(*outputs, paddle.to_tensor(labels))
    main, *others = (reference("cross_entropy", logits * factor, labels).mean() for factor in (1, 2, -1))
    assert float(loss) == pytest.approx(main + 0.3 * sum(others), rel=1e-5)


def test_class_weights_make_rare_classes_count_as_much():
    """Guards against weights that change the scale of the loss as well, or that break on an empty class."""
    labels = np.array([0] * 6 + [1] * 2)
    weights = losses.class_weights(labels, 2)
    np.testing.assert_allclose(weights, [8 / 12, 8 / 4])
    assert weights[labels].mean() == pytest.approx(1)
    with pytest.raises(UserError, match="no training image of class 2"):
        losses.class_weights(labels, 3)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("balance", ["none", "weights", "sampling"])
@pytest.mark.effect("label_smoothing", "class_balance")
def test_the_settings_make_the_loss_they_name(settings_for, batch, balance, smoothing):
    """Guards against smoothing that is dropped where classes are weighted, and weights where they are sampled."""
    logits, _ = batch
    labels = np.array([0, 0, 0, 1, 2, 3, 3])
    settings = settings_for("data", class_balance=balance, label_smoothing=smoothing)
    made = losses.make_loss(settings, labels, 4)
    factors = np.array([7 / 12, 7 / 4, 7 / 4, 7 / 8])[labels] if balance == "weights" else 1
    expected = (reference("cross_entropy", logits, labels, smoothing) * factors).mean()
    assert float(made(paddle.to_tensor(logits), paddle.to_tensor(labels))) == pytest.approx(expected, rel=1e-5)


def test_a_share_scales_the_loss_of_a_batch(batch):
    """Guards against batches of several processes, or of one accumulated update, that count as whole ones."""
    logits, labels = (paddle.to_tensor(part) for part in batch)
    loss = losses.Loss()
    whole = float(loss(logits, labels))
    loss.share = 0.25
    assert float(loss(logits, labels)) == pytest.approx(whole / 4)


@pytest.mark.effect("loss")
def test_the_setting_selects_the_loss_that_trains(drawn, settings_for, plain, tmp_path):
    """Guards against a setting that is ignored, and against histories that mean another loss with each setting.

    Before the first update both networks are the same, so the cross-entropy that history.csv holds is the same too.
    """
    common = {"augment": plain, "batch_size": 18, "label_smoothing": 0, "optimizer": "momentum", "learning_rate": 0.1}
    runs = [
        train.train(settings_for(drawn, **common, loss=name, output_dir=str(tmp_path), run_name=name)) for name in GAMMA
    ]
    first, second = (run.history()["train_loss"] for run in runs)
    assert first[0] == second[0] and first[1] != second[1]


def test_an_unknown_loss_is_refused_at_the_start(call, drawn, arguments_for, tmp_path, monkeypatch):
    """Guards against a traceback, or half a run, for a mistyped loss; the message lists what there is."""
    monkeypatch.chdir(tmp_path)
    call(train, *arguments_for(drawn, loss="focl")).refused("loss=focl", "cross_entropy, focal")
    assert not Path("output").exists()


def test_weights_of_a_padding_row_are_those_of_no_class(batch):
    """Guards against an index out of range, or another divisor, where a weighted batch is filled up."""
    logits, labels = batch
    weights = np.array([0.5, 1.0, 2.0, 4.0], np.float32)
    padded = np.where(np.arange(7) > 4, PADDING, labels)
    expected = (reference("cross_entropy", logits, labels) * weights[labels])[:5].sum() / 7
    made = losses.Loss(class_weights=weights)
    assert float(made(paddle.to_tensor(logits), paddle.to_tensor(padded))) == pytest.approx(expected, rel=1e-5)


def test_only_the_first_missing_classes_are_named():
    """Guards against a message of a thousand classes."""
    with pytest.raises(UserError, match=r"no training image of class 1, 2, 3, 4, 5, 6, 7, 8, 9, 10; add some"):
        losses.class_weights(np.array([0]), 30)
