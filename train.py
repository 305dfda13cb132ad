"""Trains the network that config.yaml describes on the lists that annotate.py wrote."""

import shlex
import time

import config
import runtime
from config import Settings


def make_schedule(settings: Settings, steps_per_epoch: int):
    """Builds the learning rate by step: a linear warm-up, then constant or half a cosine down to zero.

    Source: Loshchilov & Hutter 2017 (arXiv:1608.03983) for the cosine; Goyal et al. 2017 (arXiv:1706.02677) for
        the warm-up.
    """
    import math

    import paddle

    total = settings.epochs * steps_per_epoch
    warmup = min(round(settings.warmup_epochs * steps_per_epoch), total - 1)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if settings.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))

    return paddle.optimizer.lr.LambdaDecay(settings.learning_rate, factor)


def make_optimizer(settings: Settings, network, schedule):
    """Builds the optimiser over the weights that train; biases and norm weights do not decay."""
    import paddle

    trained = [weight for weight in network.parameters() if not weight.stop_gradient]
    decayed = {weight.name for weight in trained if weight.ndim > 1}
    # hapi's minimize takes no parameter groups, so what decays is told by name or by weight.
    if settings.optimizer == "adamw":
        return paddle.optimizer.AdamW(
            schedule,
            parameters=trained,
            weight_decay=settings.weight_decay,
            apply_decay_param_fun=lambda name: name in decayed,
        )
    for weight in trained:
        if settings.weight_decay and weight.name in decayed:
            weight.regularizer = paddle.regularizer.L2Decay(settings.weight_decay)
    if settings.optimizer == "momentum":
        return paddle.optimizer.Momentum(schedule, settings.momentum, trained)
    return paddle.optimizer.Adam(schedule, parameters=trained)


def make_loader(settings: Settings, split: str, class_names: list[str], device: str):
    """Builds the loader of a split: shuffled and augmented for train, plain otherwise.

    Raises:
        UserError: The list is missing or malformed, or made for other classes.
    """
    from dataset import BatchLoader, ListDataset, choose_workers
    from lists import read_list
    from transforms import EvalTransform, TrainTransform

    training = split == "train"
    entries = read_list(settings.lists / f"{split}.txt", len(class_names))
    transform = (TrainTransform if training else EvalTransform).from_settings(settings)
    dataset = ListDataset(entries, transform, settings.max_pixels, settings.seed)
    return BatchLoader(dataset, settings.batch_size, choose_workers(settings, device), shuffle=training)


def train(settings: Settings):
    """Trains a network and keeps it as a run.

    Returns:
        The run (checkpoint.Run).

    Raises:
        UserError: Lists, settings or weights do not fit together; the run exists already.
    """
    runtime.prepare(settings)
    import paddle

    import convolution
    import networks
    import training
    from checkpoint import Run
    from lists import LABELS, read_labels

    device = runtime.select_device(settings)
    runtime.seed_all(settings.seed)
    class_names = read_labels(settings.lists / LABELS)
    loaders = {split: make_loader(settings, split, class_names, device) for split in ("train", "valid")}
    # Names of weights count up in a process; a fresh count makes optimiser states fit whatever was built before.
    paddle.utils.unique_name.switch()
    network, told = networks.build(settings, len(class_names))
    run = Run.create(settings, class_names)
    print(f"{run.path}: {len(loaders['train'].dataset)} train and {len(loaders['valid'].dataset)} valid pictures, "
          f"{len(class_names)} classes; {runtime.describe(settings, device)}")
    print(told)
    training.write_summary(network, settings, run.path / "summary.txt")
    if device == "cpu":
        convolution.speed_up(network)
    schedule = make_schedule(settings, len(loaders["train"]))
    optimizer = make_optimizer(settings, network, schedule)
    model = paddle.Model(network)
    model.prepare(optimizer, training.Loss(settings.label_smoothing), [training.MeanLoss(), training.Accuracy()])
    callbacks = training.callbacks(settings, run, loaders["train"])
    model.fit(loaders["train"], loaders["valid"], epochs=settings.epochs, verbose=0, callbacks=callbacks)
    return run


def main() -> None:
    """Command line of train.py."""
    parser = config.parser(__doc__)
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings that win over config.yaml")
    arguments = parser.parse_args()
    settings = config.load(arguments.config, arguments.settings)
    started = time.monotonic()
    run = train(settings)
    state = run.state
    print(
        f"best epoch {state['best_epoch']} of {state['epoch']}: valid accuracy {state['best_accuracy']:.4f}, "
        f"loss {state['best_loss']:.4f}; {time.monotonic() - started:.0f} s"
    )
    print(f"{run.path}: best.pdparams, last.pdparams, history.csv, curves.png, summary.txt, vdl/ (see them: make board)")
    print(f"next: python evaluate.py {shlex.quote(str(run.path))}")


if __name__ == "__main__":
    config.command(main)
