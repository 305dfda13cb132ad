"""Callbacks: the list can be edited, the best epoch is chosen as documented, a diverging training stops."""

import signal
from types import SimpleNamespace

import paddle
import pytest

import train
from training import callbacks, selection
from training.running_metrics import Recall
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
def test_ties_of_accuracy_are_broken_by_the_loss(monitor, accuracy, loss, better):
    """Guards against the first of many epochs of equal accuracy, or a better loss that outweighs the accuracy."""
    best = {"valid_accuracy": 0.5, "valid_loss": 1.0}
    assert selection.is_better({"valid_accuracy": accuracy, "valid_loss": loss}, best, monitor) is better


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


def test_accumulated_batches_are_weighted_by_their_images(settings_for):
    """Guards against the last, smaller group of an epoch that counts as much as a full one."""
    loader = SimpleNamespace(sizes=lambda: [4, 4, 4, 4, 2], steps=5)
    for group, sums in ((1, [4, 4, 4, 4, 2]), (2, [8, 8, 8, 8, 2]), (3, [12, 12, 12, 6, 6])):
        session = SimpleNamespace(settings=settings_for("data", accumulate=group), loader=loader)
        assert callbacks.StepTracker(session).groups == sums


def test_a_step_is_saved_when_it_is_due_and_complete(settings_for, monkeypatch):
    """Guards against checkpoints at every step, never, or in the middle of an accumulated update."""
    clock, saved = SimpleNamespace(now=0.0), []
    monkeypatch.setattr(callbacks, "time", SimpleNamespace(monotonic=lambda: clock.now))
    session = SimpleNamespace(
        settings=settings_for("data", save_every_minutes=2), updated=True, interrupted_by=None, save=saved.append
    )
    checkpoint = callbacks.StepCheckpoint(session)
    checkpoint.model = SimpleNamespace(network="network")
    times = []
    for clock.now, session.updated in ((119, True), (120, False), (121, True), (230, True), (241, True)):
        before = len(saved)
        checkpoint.on_train_batch_end(0)
        times += [clock.now] * (len(saved) - before)
    assert times == [121, 241]
    clock.now = 300
    checkpoint.on_eval_end()
    clock.now = 400
    checkpoint.on_train_batch_end(0)
    assert len(saved) == 2
    session.interrupted_by, session.updated = signal.SIGTERM, False
    checkpoint.on_train_batch_end(0)
    assert len(saved) == 2


def test_speed_is_that_of_the_images_of_this_epoch(settings_for, monkeypatch):
    """Guards against the images of an interrupted epoch that count although an earlier process trained on them."""
    clock = SimpleNamespace(now=10.0)
    monkeypatch.setattr(callbacks, "time", SimpleNamespace(monotonic=lambda: clock.now))
    session = SimpleNamespace(
        settings=settings_for("data", epochs=3), loader=SimpleNamespace(sizes=lambda: [4, 4, 2]), epoch=2, step=1
    )
    bar = callbacks.ProgressBar(session)
    bar.on_epoch_begin(1)
    assert (bar.bar.total, bar.bar.n) == (10, 4)
    clock.now = 12.0
    bar.on_epoch_end(1)
    assert bar.images_per_second == 3.0


def test_recalls_are_counted_on_valid_only():
    """Guards against recalls of training images, and against an epoch whose weights stay averaged."""
    swaps, recall = [], Recall.__new__(Recall)
    recall.active = False
    session = SimpleNamespace(
        ema=SimpleNamespace(swap=lambda: swaps.append(recall.active)), processes=1, loader=SimpleNamespace(sizes=list),
        settings=SimpleNamespace(accumulate=1),
    )  # fmt: skip
    tracker = callbacks.StepTracker(session)
    tracker.model = SimpleNamespace(_metrics=[object(), recall], _loss=SimpleNamespace(share=0.5))
    tracker.on_eval_begin()
    assert recall.active and tracker.model._loss.share == 1.0
    tracker.on_eval_end()
    assert not recall.active and swaps == [True, False]
