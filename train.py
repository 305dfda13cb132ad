"""Trains the network that config.yaml describes on the lists that annotate.py wrote."""

import contextlib
import functools
import shlex
import time

import config
from system import cli, machine
from system.errors import UserError
from system.settings import Settings


def make_loader(settings: Settings, split: str, class_names: list[str], device: str):
    """Builds the loader of a split: shuffled and augmented for train, plain otherwise.

    Raises:
        UserError: The list is missing or malformed, or made for other classes.
    """
    from annotation.lists import read_list
    from dataset import BatchLoader, ListDataset, choose_workers
    from imaging.augmentation import mix
    from imaging.transforms import EvalTransform, TrainTransform

    training = split == "train"
    samples = read_list(settings.lists / f"{split}.txt", len(class_names))
    transform = (TrainTransform if training else EvalTransform).from_settings(settings)
    dataset = ListDataset(samples, transform, settings.max_pixels, settings.seed)
    workers, (rank, processes) = choose_workers(settings, device), machine.rank()
    balanced = training and settings.class_balance == "sampling"
    loader = BatchLoader(dataset, settings.batch_size, workers, training, balanced, rank, processes)
    if training and (settings.augment.mixup or settings.augment.cutmix):
        loader.mix = functools.partial(mix, num_classes=len(class_names), augment=settings.augment)
    return loader


def open_run(settings: Settings, class_names: list[str]):
    """Makes the run's folder, or with `resume` opens the one that is there.

    Returns:
        The run (checkpoint.Run), and whether it goes on from a saved point.

    Raises:
        UserError: A run of that name exists and is not to be resumed, or was trained with other settings.
    """
    from models.checkpoint import Run

    rank, _ = machine.rank()
    resumed = settings.resume and "step" in Run(settings.run).state
    # One process writes; the others only need to know where.
    if rank:
        return Run(settings.run), resumed
    if resumed:
        return Run.reopen(settings, class_names), True
    # Without a saved point there is nothing to go on from, and nothing to lose.
    started = settings.resume and not Run(settings.run).state
    return Run.create(settings.model_copy(update={"overwrite": settings.overwrite or started}), class_names), False


def train(settings: Settings):
    """Trains a network and keeps it as a run.

    Returns:
        The run (checkpoint.Run).

    Raises:
        UserError: Lists, settings or weights do not fit together; the run exists already.
    """
    machine.prepare(settings)
    import paddle

    from annotation.lists import LABELS, read_labels
    from models import acceleration, networks

    device = machine.select_device(settings)
    check(settings, device)
    machine.seed_all(settings.seed)
    class_names = read_labels(settings.lists / LABELS)
    loaders = {split: make_loader(settings, split, class_names, device) for split in ("train", "valid")}
    # Names of weights count up in a process; a fresh count makes optimiser states fit whatever was built before.
    paddle.utils.unique_name.switch()
    network, told = networks.build(settings, len(class_names))
    run, resumed = open_run(settings, class_names)
    if resumed and run.state["epoch"] >= settings.epochs:
        say(f"{run.path}: all {settings.epochs} epochs are done; raise epochs to train on")
        return run
    _introduce(settings, device, run, class_names, loaders, network, told)
    session = _start(settings, run, loaders["train"], network)
    if resumed:
        session.restore(network)
        say(f"resumed after epoch {session.epoch - 1}, step {session.step} of the next one")
    fast = device == "cpu" and settings.cpu_speedups
    with acceleration.speed_up(network) if fast else contextlib.nullcontext():
        _fit(session, network, loaders, class_names)
    return run


def say(told: str) -> None:
    """Prints a line, once where several processes train together."""
    if machine.rank()[0] == 0:
        print(told)


def _introduce(settings: Settings, device: str, run, class_names: list[str], loaders: dict, network, told: str) -> None:
    """Says what will be trained on what, fills the caches and writes the run's summary.txt."""
    import training

    rank, processes = machine.rank()
    counts = " and ".join(f"{len(loader.dataset)} {split}" for split, loader in loaders.items())
    computing = f"{machine.describe(settings, device)}, {processes} process{'es' * (processes > 1)}"
    say(f"{run.path}: {counts} images, {len(class_names)} classes; {computing}")
    say(told)
    for split, loader in loaders.items():
        say(loader.dataset.use_cache(settings, split))
    if rank == 0:
        training.write_summary(network, settings, run.path / "summary.txt")


def _start(settings: Settings, run, loader, network):
    """Makes what trains the network: optimiser, schedule, moving average (training.Session)."""
    import training
    from training import optim

    optimizer = optim.make_optimizer(settings, network, optim.Schedule(settings, loader.steps))
    average = optim.MovingAverage(network.network, settings.ema) if settings.ema else None
    return training.Session(settings, run, loader, optimizer, average)


def _fit(session, network, loaders: dict, class_names: list[str]) -> None:
    """Lets paddle.Model train from where the session stands to the last epoch."""
    import paddle

    import training
    from training import optim

    settings, weights = session.settings, None
    if settings.class_balance == "weights":
        weights = optim.class_weights(loaders["train"].dataset.labels, len(class_names))
    recall = training.Recall(len(class_names))
    model = paddle.Model(network)
    model.prepare(
        session.optimizer,
        training.Loss(settings.label_smoothing, weights),
        [training.MeanLoss(), training.Accuracy(), recall],
        amp_configs=None if settings.amp == "none" else settings.amp,
    )
    callbacks = training.callbacks(session, class_names, recall)
    try:
        model.fit(
            loaders["train"],
            loaders["valid"],
            epochs=session.epochs_left,
            verbose=0,
            accumulate_grad_batches=settings.accumulate,
            callbacks=callbacks,
        )
    finally:
        callbacks[-1].release()


def check(settings: Settings, device: str) -> None:
    """Refuses what this machine or this way of training cannot do.

    Raises:
        UserError: Mixed precision on a CPU.
    """
    if settings.amp != "none" and device == "cpu":
        raise UserError(f"amp={settings.amp}: paddle computes in 16 bits on GPUs only; use amp=none on a CPU")


def main() -> None:
    """Command line of train.py."""
    parser = cli.parser(__doc__)
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings that win over config.yaml")
    arguments = parser.parse_intermixed_args()
    settings = config.load(arguments.config, arguments.settings)
    started = time.monotonic()
    run = train(settings)
    if machine.rank()[0]:
        return
    state = run.state
    print(
        f"best epoch {state['best_epoch']} of {state['epoch']}: valid accuracy {state['best_accuracy']:.4f}, "
        f"loss {state['best_loss']:.4f}; {time.monotonic() - started:.0f} s"
    )
    files = "best.pdparams, last.pdparams, history.csv, curves.png, augmented.png, summary.txt"
    print(f"{run.path}: {files}, vdl/ (see them: make board)")
    print(f"next: python evaluate.py {shlex.quote(str(run.path))}")


if __name__ == "__main__":
    cli.command(main)
