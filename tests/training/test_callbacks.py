"""Callbacks: the list can be edited, the best epoch is chosen as documented, a diverging training stops."""

import signal
from types import SimpleNamespace

import paddle
import pytest

import train
from training import callbacks
from training.session import Session


class Counter(paddle.callbacks.Callback):
    """Counts what fit calls."""

    def __init__(self):
        super().__init__()
        self.steps, self.ended = 0, 0

    def on_train_batch_end(self, step, logs=None):
        self.steps += 1

    def on_train_end(self, logs=None):
        self.ended += 1


@pytest.mark.parametrize("place", [0, 100], ids=["first", "last"])
def test_a_callback_of_ones_own_can_stand_anywhere(drawn, settings_for, tmp_path, monkeypatch, place):
    """Guards against a training that fails, or keeps the signals to itself, because of what stands last in the list."""
    counter, original = Counter(), callbacks.make_callbacks

    def with_counter(*arguments):
        made = original(*arguments)
        made.insert(place, counter)
        return made

    monkeypatch.setattr(callbacks, "make_callbacks", with_counter)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    run = train.train(settings_for(drawn, output_dir=str(tmp_path)))
    assert run.state["finished"]
    assert (counter.steps, counter.ended) == (2 * run.state["steps_per_epoch"], 1)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == handlers


@pytest.mark.parametrize(
    ("monitor", "accuracy", "loss", "better"),
    [
        ("accuracy", 0.6, 9.0, True),
        ("accuracy", 0.5, 0.9, True),
        ("accuracy", 0.5, 1.0, False),
        ("accuracy", 0.4, 0.1, False),
        ("loss", 0.1, 0.9, True),
        ("loss", 0.9, 1.1, False),
    ],
)
@pytest.mark.effect("monitor")
def test_ties_of_accuracy_are_broken_by_the_loss(settings_for, monitor, accuracy, loss, better):
    """Guards against the first of many epochs of equal accuracy, or a better loss that outweighs the accuracy."""
    loader = SimpleNamespace(sizes=lambda: [1], steps=1)
    best = {"valid_accuracy": 0.5, "valid_loss": 1.0}
    session = SimpleNamespace(settings=settings_for("data", monitor=monitor), loader=loader, best=best)
    checkpoint = callbacks.EpochCheckpoint(session)
    checkpoint.row = {"valid_accuracy": accuracy, "valid_loss": loss}
    assert checkpoint._is_better() is better


def test_a_diverging_training_stops(call, data, arguments_for):
    """Guards against a night of training on NaN."""
    ended = call(
        train, *arguments_for("data", learning_rate=10, optimizer="momentum", std=[1e-6, 1e-6, 1e-6], epochs=5)
    )
    assert ended.status == 1 and "learning_rate" in ended.err and "Traceback" not in ended.err


@pytest.mark.parametrize("rank, expected", [(0, ["step", "epoch"]), (1, [])])
def test_only_the_first_process_saves(rank, expected):
    """Guards against processes that write over each other's checkpoint, and against none that writes."""
    saved = []
    session = SimpleNamespace(
        rank=rank,
        ema=None,
        state=lambda *_, epoch_ended, **__: {"kind": "epoch" if epoch_ended else "step"},
        _save=lambda weights, state, row=None: saved.append(state["kind"]),
    )
    network = SimpleNamespace(network=SimpleNamespace(state_dict=dict))
    Session.save(session, network)
    Session.save_epoch(session, network, {}, True, False)
    assert saved == expected
