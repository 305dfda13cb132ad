"""Optimization: learning rate by step, weight decay, clipping, balanced sampling, accumulation, EMA, unfreezing."""

import math

import numpy as np
import paddle
import pytest
from paddle import nn

import config
import train
from dataset import BatchLoader
from system.settings import Settings
from training import optim


def settings(**values) -> Settings:
    return config.load(None, [f"{key}={value}" for key, value in values.items()])


def learning_rates(steps_per_epoch: int = 10, **values) -> list[float]:
    schedule = optim.Schedule(settings(learning_rate=1.0, **values), steps_per_epoch)
    found = []
    for _ in range(schedule.total):
        found.append(schedule.get_lr())
        schedule.step()
    return found


@pytest.mark.effect("schedule", "warmup_epochs", "decay_epochs", "decay_factor")
def test_the_learning_rate_warms_up_and_follows_its_schedule():
    """Guards against a learning rate that starts at its peak, never reaches it, or is stepped by epoch."""
    cosine = learning_rates(epochs=4, schedule="cosine", warmup_epochs=1)
    assert cosine[0] == pytest.approx(1 / 11)
    assert cosine[10] == 1
    assert cosine[25] == pytest.approx(0.5)
    assert 0 < cosine[-1] < 0.01
    assert learning_rates(epochs=2, schedule="constant", warmup_epochs=0) == [1.0] * 20
    step = learning_rates(epochs=4, schedule="step", warmup_epochs=0, decay_epochs=2, decay_factor=0.5)
    assert step == [1.0] * 20 + [0.5] * 20
    cycle = learning_rates(epochs=4, schedule="one_cycle")
    assert cycle[0] == pytest.approx(1 / 25)
    assert cycle.index(max(cycle)) == 12
    assert max(cycle) == 1
    assert cycle[-1] == pytest.approx(1 / 25 / 1e4)


@pytest.mark.parametrize("epochs, steps", [(1, 1), (1, 2), (1, 3), (2, 5), (3, 40)])
def test_every_schedule_ends_where_it_should_in_short_trainings(epochs, steps):
    """Guards against a division by zero, or a last step at the highest rate, where there are few steps."""
    total = epochs * steps
    for schedule in ("cosine", "constant", "one_cycle"):
        for warmup in (0, 0.5, 9):
            rates = learning_rates(steps, epochs=epochs, schedule=schedule, warmup_epochs=warmup)
            assert len(rates) == total and all(0 < rate <= 1 for rate in rates)
            if schedule != "one_cycle":
                # A warm-up leaves the last step, and rises evenly to just below the peak.
                length = min(round(warmup * steps), total - 1)
                assert rates[:length] == pytest.approx([(n + 1) / (length + 1) for n in range(length)])
                assert rates[length] == 1
    cycle = learning_rates(steps, epochs=epochs, schedule="one_cycle")
    peak = max(1, round(0.3 * (total - 1)))
    assert cycle[0] == pytest.approx(1 / 25)
    if total > peak:
        assert cycle[peak] == 1
    if total > peak + 1:
        assert cycle[-1] == pytest.approx(1 / 25 / 1e4)


@pytest.mark.effect("backbone_lr_scale")
def test_weights_that_stay_frozen_are_no_part_of_the_optimizer():
    """Guards against moments kept for, and a learning rate given to, weights that nothing will move."""
    for freeze, unfreeze, expected, rate in ((True, 0, 1, 1.0), (True, 3, 2, 0.25), (False, 3, 1, 1.0)):
        network = nn.Sequential(nn.Linear(2, 2, bias_attr=False), nn.Linear(2, 2, bias_attr=False))
        network[0].weight.stop_gradient = True
        chosen = settings(freeze=freeze, unfreeze_epoch=unfreeze, backbone_lr_scale=0.25)
        optimizer = optim.make_optimizer(chosen, network, optim.Schedule(chosen, 1))
        assert len(optimizer._parameter_list) == expected
        assert network[0].weight.optimize_attr["learning_rate"] == rate
        assert network[1].weight.optimize_attr["learning_rate"] == 1.0


def test_plateau_lowers_the_learning_rate_that_weights_move_with():
    """Guards against paddle's own plateau, which shows a lower learning rate and goes on with the old one."""
    schedule = optim.Schedule(settings(learning_rate=1.0, schedule="plateau", warmup_epochs=0, decay_epochs=2), 5)
    weight = paddle.create_parameter([1], "float32", default_initializer=nn.initializer.Constant(0.0))
    optimizer = paddle.optimizer.SGD(schedule, [weight])
    moved = []
    for improved in (True, False, False, False, True):
        before = float(weight)
        weight.sum().backward()
        optimizer.step()
        optimizer.clear_grad()
        schedule.step()
        schedule.step_epoch(improved)
        moved.append(before - float(weight))
    np.testing.assert_allclose(moved, [1, 1, 1, 0.1, 0.1], rtol=1e-5)


@pytest.mark.parametrize("name", ["adam", "adamw", "momentum"])
def test_norms_and_biases_do_not_decay(name):
    """Guards against decay of weights that are meant to scale and shift."""
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1D(3))
    chosen = settings(optimizer=name, learning_rate=0.1, weight_decay=0.5, schedule="constant", warmup_epochs=0)
    optimizer = optim.make_optimizer(chosen, network, optim.Schedule(chosen, 1))
    before = {key: weight.numpy() for key, weight in network.named_parameters() if not weight.stop_gradient}
    (network(paddle.ones([4, 3])).sum() * 0).backward()
    optimizer.step()
    moved = {
        key: np.abs(weight.numpy() - before[key]).max() for key, weight in network.named_parameters() if key in before
    }
    assert moved.pop("0.weight") > 1e-3
    assert max(moved.values()) < 1e-7


@pytest.mark.effect("clip_norm")
def test_clipping_bounds_the_norm_over_all_weights():
    """Guards against gradients that are clipped weight by weight, or not at all."""
    network = nn.Linear(4, 2)
    constant = {"schedule": "constant", "warmup_epochs": 0, "learning_rate": 1, "weight_decay": 0}
    chosen = settings(optimizer="momentum", momentum=0, clip_norm=0.5, **constant)
    optimizer = optim.make_optimizer(chosen, network, optim.Schedule(chosen, 1))
    before = [weight.numpy() for weight in network.parameters()]
    (network(paddle.ones([4, 4])).sum() * 100).backward()
    optimizer.step()
    moved = [np.square(weight.numpy() - old).sum() for weight, old in zip(network.parameters(), before, strict=True)]
    assert math.sqrt(sum(moved)) == pytest.approx(0.5, rel=1e-4)


class Labelled(paddle.io.Dataset):
    """Labels without images."""

    seed = 3

    def __init__(self, labels):
        super().__init__()
        self.labels = np.asarray(labels)

    def __len__(self) -> int:
        return len(self.labels)


def test_balanced_sampling_draws_every_class_as_often():
    """Guards against an epoch that changes its length, or that repeats one image while another waits."""
    loader = BatchLoader(Labelled([0] * 30 + [1] * 6), 6, shuffle=True, balanced=True)
    drawn = np.concatenate(loader.batches())
    assert len(drawn) == 36
    assert np.bincount(loader.dataset.labels[drawn]).tolist() == [18, 18]
    assert np.bincount(drawn)[30:].tolist() == [3] * 6
    assert np.bincount(drawn)[:30].max() == 1
    loader.epoch = 2
    assert np.concatenate(loader.batches()).tolist() != drawn.tolist()


@pytest.mark.effect("accumulate", "batch_size")
def test_accumulated_steps_move_weights_as_one_large_batch(drawn, settings_for, plain, tmp_path):
    """Guards against the sum of gradients, which would be a learning rate several times too high."""
    common = {"augment": plain, "epochs": 1, "optimizer": "momentum", "learning_rate": 0.05, "schedule": "constant"}
    runs = [
        train.train(settings_for(drawn, **common, **changes, output_dir=str(tmp_path), run_name=str(number)))
        for number, changes in enumerate(({"batch_size": 18}, {"batch_size": 5, "accumulate": 4}))
    ]
    weights = [paddle.load(str(run.path / "last.pdparams")) for run in runs]
    for key, value in weights[0].items():
        np.testing.assert_allclose(weights[1][key].numpy(), value.numpy(), atol=1e-5, err_msg=key)


def test_the_average_follows_the_weights_and_can_be_put_in_their_place():
    """Guards against averages that share memory with the weights they should lag behind."""
    network = nn.Linear(1, 1)
    network.weight.set_value(paddle.zeros([1, 1]))
    average = optim.ExponentialMovingAverage(network, 0.9)
    network.weight.set_value(paddle.ones([1, 1]))
    average.update()
    assert float(average.weights()["weight"]) == pytest.approx(0.9)  # 1 / 10 of the beginning is kept at first
    average.swap()
    assert float(network.weight) == pytest.approx(0.9)
    average.swap()
    assert float(network.weight) == 1


def test_the_average_forgets_at_its_decay():
    """Guards against a decay that is ignored, or that averages short runs with their random initial weights.

    The decay is min(0.5, (1 + steps) / (10 + steps)): 0.1, 2/11, ... until it reaches 0.5 at step 8.
    """
    network = nn.Linear(1, 1)
    network.weight.set_value(paddle.zeros([1, 1]))
    average, expected = optim.ExponentialMovingAverage(network, 0.5), 0.0
    for step in range(12):
        network.weight.set_value(paddle.full([1, 1], float(step)))
        average.update()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
        assert float(average.weights()["weight"]) == pytest.approx(expected, rel=1e-5)
    assert decay == 0.5


@pytest.mark.effect("unfreeze_epoch")
def test_an_unfrozen_backbone_moves_slowly_and_not_before_its_epoch(drawn, settings_for, tmp_path, donor):
    """Guards against a backbone that stays frozen for ever, or that moves as fast as its new head."""
    common = {"network": "squeezenet1_1", "image_shape": [3, 32, 32], "freeze": True, "unfreeze_epoch": 2,
              "optimizer": "adam", "schedule": "constant", "weight_decay": 0, "backbone_lr_scale": 0.01}  # fmt: skip
    common["pretrained"] = donor("squeezenet1_1", 32)
    saved = []
    for epochs in (1, 2):
        run = train.train(settings_for(drawn, **common, epochs=epochs, output_dir=str(tmp_path), run_name=str(epochs)))
        weights = paddle.load(str(run.path / "last.pdparams"))
        saved.append({key: value.numpy() for key, value in weights.items()})
    moved = {key: np.abs(saved[1][key] - value).max() for key, value in saved[0].items()}
    head = max(value for key, value in moved.items() if key.startswith("_conv9"))
    backbone = max(value for key, value in moved.items() if not key.startswith("_conv9"))
    assert 0 < backbone < head / 10


def test_unfreezing_leaves_the_statistics_of_batch_norm_alone():
    """Guards against an optimizer that decays or moves running means, which paddle lists among the parameters."""
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1D(3))
    for weight in network.parameters():
        weight.stop_gradient = True
    optim.unfreeze(network)
    still = {name for name, weight in network.named_parameters() if weight.stop_gradient}
    assert still == {"1._mean", "1._variance"}


@pytest.mark.effect("amp")
def test_mixed_precision_is_refused_on_a_cpu(call, drawn, arguments_for):
    """Guards against a setting that does nothing, silently."""
    call(train, *arguments_for(drawn, amp="O1")).refused("amp=O1", "for GPUs only")


def test_plateau_waits_and_starts_to_wait_again():
    """Guards against a rate lowered an epoch too early or late, in every epoch after the first, or after a success."""
    schedule = optim.Schedule(
        settings(learning_rate=1.0, schedule="plateau", decay_epochs=2, decay_factor=0.5, warmup_epochs=0, epochs=20), 4
    )
    rates = []
    for improved in (True, False, False, False, True, False, False, False, False):
        schedule.step_epoch(improved)
        rates.append(schedule.get_lr())
    assert rates == [1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125]
    assert schedule.last_lr == 0.125
    other = optim.Schedule(settings(learning_rate=1.0, schedule="cosine", decay_epochs=1, epochs=20), 4)
    other.step_epoch(False)
    assert other.reduction == 1.0


@pytest.mark.effect("layer_decay")
def test_layers_learn_the_slower_the_deeper_they_are():
    """Guards against a decay counted from the wrong end, by weight instead of by layer, or applied to the head."""

    class Network(nn.Layer):
        def __init__(self):
            super().__init__()
            self.embed = nn.Linear(4, 4)
            self.blocks = nn.LayerList([nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)) for _ in range(2)])
            self.head = nn.Linear(4, 2)

    for decay in (1.0, 0.5):
        network = Network()
        optim.make_optimizer(settings(layer_decay=decay), network, optim.Schedule(settings(), 10))
        rates = {name: weight.optimize_attr["learning_rate"] for name, weight in network.named_parameters()}
        expected = {"embed": decay**3, "blocks.0": decay**2, "blocks.1": decay, "head": 1.0}
        assert all(rates[name] == expected[next(key for key in expected if name.startswith(key))] for name in rates)
    frozen = Network()
    for weight in frozen.embed.parameters():
        weight.stop_gradient = True
    chosen = settings(layer_decay=0.5, freeze=True, unfreeze_epoch=2, backbone_lr_scale=0.1, pretrained=True)
    optim.make_optimizer(chosen, frozen, optim.Schedule(settings(), 10))
    assert frozen.embed.weight.optimize_attr["learning_rate"] == pytest.approx(0.1 / 8)
