"""Learning-rate schedule, optimizer, moving average of the weights."""

import math

import paddle

from system.settings import Settings

# One cycle: the learning rate starts at 1/25 of its peak, peaks after 30 % of the steps and ends 10,000 times below
# the start. Source: the defaults of Smith & Topin 2017 (arXiv:1708.07120) as common frameworks set them.
CYCLE_START, CYCLE_PEAK, CYCLE_END = 1 / 25, 0.3, 1 / 25e4


class Schedule(paddle.optimizer.lr.LRScheduler):
    """The learning rate by step: a linear warm-up, then the schedule that the setting `schedule` names.

    For plateau, `step_epoch` has to be called after each epoch; paddle's own ReduceLROnPlateau has no effect under
    paddle.Model.

    Attributes:
        reduction: Factor that plateau has reached.
        waited: Epochs without improvement since plateau last lowered the learning rate.

    Source: Loshchilov & Hutter 2017 (arXiv:1608.03983) for the cosine; Goyal et al. 2017 (arXiv:1706.02677) for
        the warm-up.
    """

    def __init__(self, settings: Settings, steps_per_epoch: int):
        self.settings = settings
        self.steps_per_epoch = steps_per_epoch
        self.total = settings.epochs * steps_per_epoch
        self.warmup = min(round(settings.warmup_epochs * steps_per_epoch), self.total - 1)
        self.reduction, self.waited = 1.0, 0
        super().__init__(settings.learning_rate)

    def state_keys(self) -> None:
        """Names what a checkpoint keeps; paddle calls it before saving."""
        self.keys = ["last_epoch", "last_lr", "reduction", "waited"]

    def get_lr(self) -> float:
        """Returns the learning rate of step `last_epoch`, which is paddle's name for its count of steps from 0."""
        return self.base_lr * self.factor(self.last_epoch)

    def factor(self, step: int) -> float:
        """Returns the learning rate of a step, counted from 0, as a share of the highest one."""
        settings = self.settings
        if settings.schedule == "one_cycle":
            return self._one_cycle(step)
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        if settings.schedule == "step":
            return settings.decay_factor ** (step // (settings.decay_epochs * self.steps_per_epoch))
        if settings.schedule == "plateau":
            return self.reduction
        if settings.schedule == "constant":
            return 1.0
        return _half_cosine(1.0, 0.0, (step - self.warmup) / max(1, self.total - self.warmup))

    def _one_cycle(self, step: int) -> float:
        peak = max(1, round(CYCLE_PEAK * (self.total - 1)))
        if step < peak:
            return _half_cosine(CYCLE_START, 1.0, step / peak)
        return _half_cosine(1.0, CYCLE_END, min(1.0, (step - peak) / max(1, self.total - 1 - peak)))

    def step_epoch(self, improved: bool) -> None:
        """Ends an epoch; plateau lowers the learning rate after decay_epochs without improvement."""
        self.waited = 0 if improved else self.waited + 1
        if self.settings.schedule == "plateau" and self.waited >= self.settings.decay_epochs:
            self.reduction *= self.settings.decay_factor
            self.waited = 0
            self.last_lr = self.get_lr()


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))


def make_optimizer(settings: Settings, network: paddle.nn.Layer, schedule: Schedule) -> paddle.optimizer.Optimizer:
    """Makes the optimizer of the settings; biases and norm weights are exempt from weight decay.

    A frozen backbone that is unfrozen later belongs to it from the start, with its lower learning rate.
    """
    weights = _weights(network)
    if not (settings.freeze and settings.unfreeze_epoch):
        weights = [weight for weight in weights if not weight.stop_gradient]
    depths = _depths(network)
    for weight in weights:
        scale = settings.backbone_lr_scale if weight.stop_gradient else 1.0
        weight.optimize_attr["learning_rate"] = scale * settings.layer_decay ** depths[weight.name]
    decayed = {weight.name for weight in weights if weight.ndim > 1}
    clip = paddle.nn.ClipGradByGlobalNorm(settings.clip_norm) if settings.clip_norm else None
    # paddle.Model supports no parameter groups, so weight decay is chosen by name or set on the weight.
    if settings.optimizer == "adamw":
        return paddle.optimizer.AdamW(
            schedule,
            parameters=weights,
            weight_decay=settings.weight_decay,
            apply_decay_param_fun=lambda name: name in decayed,
            grad_clip=clip,
        )
    for weight in weights:
        if settings.weight_decay and weight.name in decayed:
            weight.regularizer = paddle.regularizer.L2Decay(settings.weight_decay)
    if settings.optimizer == "momentum":
        return paddle.optimizer.Momentum(schedule, settings.momentum, weights, grad_clip=clip)
    return paddle.optimizer.Adam(schedule, parameters=weights, grad_clip=clip)


def attach_moments(optimizer: paddle.optimizer.Optimizer) -> None:
    """Attaches loaded moments to their weights at once; weights that were frozen when saved start without any.

    Paddle itself waits for the first step, and then requires moments for every weight that is updated.
    """
    loaded = optimizer._accumulators_holder
    known = [weight for weight in optimizer._parameter_list if any(key.startswith(f"{weight.name}_") for key in loaded)]
    optimizer._create_accumulators(paddle.static.default_main_program().global_block(), known)
    optimizer._accumulators_holder = {}


def unfreeze(network: paddle.nn.Layer) -> bool:
    """Makes every weight trainable; returns True if any was frozen."""
    frozen = [weight for weight in _weights(network) if weight.stop_gradient]
    for weight in frozen:
        weight.stop_gradient = False
    return bool(frozen)


def _weights(network: paddle.nn.Layer) -> list[paddle.Tensor]:
    # Paddle lists the running statistics of batch norm among the parameters; they take no gradient.
    named = network.named_parameters()
    return [weight for name, weight in named if name.rpartition(".")[2] not in ("_mean", "_variance")]


def _depths(network: paddle.nn.Layer) -> dict[str, int]:
    """How many layers lie between each weight and the head, by the weight's name; the head itself is at 0.

    A layer is what shares a name up to its first number (`blocks.3`, `layer2.0`), in the order of the network.

    Source: Clark et al. 2020, ELECTRA (arXiv:2003.10555), appendix B, for rates that shrink with the depth.
    """
    layers: dict[str, list[str]] = {}
    for name, weight in network.named_parameters():
        parts = name.removeprefix("network.").split(".")
        end = next((index for index, part in enumerate(parts) if any(map(str.isdigit, part))), 0)
        layers.setdefault(".".join(parts[: end + 1]), []).append(weight.name)
    return {name: depth for depth, names in enumerate(reversed(layers.values())) for name in names}


class ExponentialMovingAverage:
    """Exponential moving average (EMA) of a network's weights and of the running statistics of its norms.

    The decay grows with the steps, min(decay, (1 + steps) / (10 + steps)), so that short runs are not averaged with
    their random initial weights.

    Attributes:
        steps: Updates seen.
    """

    def __init__(self, network: paddle.nn.Layer, decay: float):
        self.decay = decay
        self.steps = 0
        self._own = network.state_dict()
        self._averaged = {name: weight.detach().clone() for name, weight in self._own.items()}

    @paddle.no_grad()
    def update(self) -> None:
        """Averages the weights in, after an update of theirs."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        for name, averaged in self._averaged.items():
            averaged.lerp_(self._own[name].detach(), 1 - decay)

    @paddle.no_grad()
    def swap(self) -> None:
        """Swaps the network's weights and the averages; a second call swaps them back."""
        for name, averaged in self._averaged.items():
            own = self._own[name].detach().clone()
            self._own[name].set_value(averaged)
            averaged.set_value(own)

    def weights(self) -> dict[str, paddle.Tensor]:
        """Returns the averages by name."""
        return self._averaged

    def state_dict(self) -> dict[str, paddle.Tensor | int]:
        """Returns what a checkpoint keeps."""
        return {**self._averaged, "steps": self.steps}

    def set_state_dict(self, state: dict[str, paddle.Tensor | int]) -> None:
        """Restores what a checkpoint kept."""
        self.steps = state["steps"]
        for name, averaged in self._averaged.items():
            averaged.set_value(state[name])
