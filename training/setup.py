"""Setup of a training: device, data loaders, run folder, optimizer."""

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path

import config
from annotation.lists import list_digest, read_samples
from dataset import BatchLoader, ListDataset
from imaging.augmentation import mix
from imaging.transforms import EvalTransform, TrainTransform
from models import acceleration, bfloat16, onednn
from models.checkpoint import Run
from models.classifier import Classifier
from system import machine
from system.errors import UserError
from system.files import locked
from system.settings import Settings
from system.text import counted
from system.workers import choose_workers
from training import optim, overview, processes
from training.autotuning import autotune
from training.session import Session


def print_once(message: str) -> None:
    """Prints a line, once where several processes train together."""
    if machine.rank()[0] == 0:
        print(message)


def select_device(settings: Settings) -> str:
    """Selects the device to train on and seeds all random generators.

    Returns:
        The device, for example "cpu" or "gpu:0".

    Raises:
        UserError: The device does not exist, or does not support the mixed precision of `amp`.
    """
    if machine.rank()[0] == 0:
        machine.warn_of_two_builds()
    device = machine.select_device(settings)
    if reason := _amp_obstacle(settings, device):
        raise UserError(f"amp={settings.amp}: {reason}")
    machine.seed_all(settings.seed)
    return device


def _amp_obstacle(settings: Settings, device: str) -> str:
    """Returns why the mixed precision of the settings is not possible, with a remedy; "" if it is."""
    if settings.amp in ("O1", "O2") and device == "cpu":
        return "float16 is for GPUs only; use amp=none, or amp=bf16 on a CPU that has bfloat16"
    if settings.amp != "bf16":
        return ""
    if device != "cpu":
        return "is for CPUs; use amp=O1 (float16) on a GPU, or device=cpu"
    if not settings.cpu_speedups:
        return "is one of the speed-ups that cpu_speedups=false turns off; use cpu_speedups=true, or amp=none"
    return bfloat16.obstacle()


def is_resumed(settings: Settings) -> bool:
    """Returns whether `resume` is set and there is a checkpoint."""
    return settings.resume and "step" in Run(settings.run).state


def checked_settings(settings: Settings) -> Settings:
    """Returns the settings to train with: a run that is resumed keeps what an earlier release trained it with.

    Raises:
        UserError: A new run would train the head of a network that knows nothing; or this is one process, where
            several were asked for.
    """
    settings = processes.of_this_process(settings)
    if is_resumed(settings):
        return config.with_older_values(settings, Run(settings.run).settings)
    if settings.freeze and not settings.pretrained:
        raise UserError(
            "freeze=true: without pretrained weights the frozen layers are random; set pretrained=true, "
            "pretrained=FILE or pretrained=RUN, or freeze=false"
        )
    return settings


def make_loader(settings: Settings, split: str, class_names: list[str], device: str) -> BatchLoader:
    """Makes the loader of a split: shuffled and augmented for train, plain otherwise.

    Raises:
        UserError: The list is missing or malformed, or was made for other classes.
    """
    training = split == "train"
    samples = read_samples(settings, split, len(class_names))
    transform = (TrainTransform if training else EvalTransform).from_settings(settings)
    dataset = ListDataset(samples, transform, settings.max_pixels, settings.seed)
    workers, (rank, world) = choose_workers(settings, device), machine.rank()
    balanced = training and settings.class_balance == "sampling"
    batch_size = processes.images_per_process(settings)
    loader = BatchLoader(dataset, batch_size, workers, training, balanced, rank, world)
    if training and (settings.augment.mixup or settings.augment.cutmix):
        loader.mix = functools.partial(mix, num_classes=len(class_names), augment=settings.augment)
    return loader


@contextlib.contextmanager
def lock_run(settings: Settings) -> Iterator[None]:
    """Keeps other trainings out of the run's folder, where the system has locks (not on Windows).

    Raises:
        UserError: Another one is training the run, or the folder cannot be made.
    """
    if machine.rank()[0]:
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            settings.run.mkdir(parents=True, exist_ok=True)
            held = stack.enter_context(locked(settings.run))
        except OSError as error:
            raise UserError(f"{settings.run}: cannot be made ({error.strerror}); choose another output_dir") from None
        if held is False:
            raise UserError(f"{settings.run}: another train.py is at work in it; wait, or use another run_name=NAME")
        yield


def open_run(settings: Settings, class_names: list[str]) -> tuple[Run, bool]:
    """Creates the run folder, or reopens it if `resume` is set and there is a checkpoint.

    Returns:
        The run, and whether it is resumed.

    Raises:
        UserError: A run of that name exists and is not to be resumed, or was trained with other settings.
    """
    rank, _ = machine.rank()
    resumed = is_resumed(settings)
    # One process writes; the others only need to know where.
    if rank:
        return Run(settings.run), resumed
    if resumed:
        return Run.reopen(settings, class_names), True
    started = settings.resume and not Run(settings.run).state
    if started and any(settings.run.glob("*.pdparams")):
        raise UserError(
            f"{settings.run}: its weights cannot be trained further, for state.json is missing; put it back, or start "
            "anew with overwrite=true or another run_name=NAME"
        )
    # Without a checkpoint there is nothing to resume, and nothing to lose.
    return Run.create(settings.model_copy(update={"overwrite": settings.overwrite or started}), class_names), False


def what_is_done(run: Run, settings: Settings) -> str:
    """Returns why a run that is resumed has nothing left to train, with a remedy; "" if it has."""
    state = run.state
    if state["finished"] and "best_strength" in state:
        return "its head is fitted; train anew with overwrite=true, or set unfreeze_epoch in another run_name"
    if state["epoch"] >= settings.epochs:
        return f"all {settings.epochs} epochs are done; raise epochs to train on"
    return ""


def describe(settings: Settings, device: str, class_names: list[str], loaders: dict[str, BatchLoader]) -> str:
    """Returns one line: the run, the number of images and classes, the device."""
    counts = " and ".join(f"{len(loader.dataset)} {split}" for split, loader in loaders.items())
    computing = f"{machine.describe(settings, device)}{_describe_bfloat16(settings)}"
    running = counted(machine.rank()[1], "process", "processes")
    return f"{settings.run}: {counts} images, {counted(len(class_names), 'class', 'classes')}; {computing}, {running}"


def _describe_bfloat16(settings: Settings) -> str:
    if settings.amp != "bf16":
        return ""
    fault = onednn.fault("bfloat16")
    return f", float32 convolutions (a test of bfloat16 {fault})" if fault else ", bfloat16 convolutions"


def fill_caches(settings: Settings, loaders: dict[str, BatchLoader]) -> None:
    """Reads the images into the cache of the settings, and prints what was done.

    Raises:
        UserError: There is no room for the cache, or an image cannot be read.
    """
    for split, loader in loaders.items():
        print_once(loader.dataset.use_cache(settings, split))


def start_session(
    settings: Settings, run: Run, loaders: dict[str, BatchLoader], network: Classifier, resumed: bool
) -> Session:
    """Makes the optimizer, its schedule and the moving average, and restores them if the run is resumed.

    Raises:
        UserError: The checkpoint does not fit the lists or the number of processes.
    """
    if machine.rank()[0] == 0:
        overview.write_summary(network, settings, run.path / "summary.txt")
    loader = loaders["train"]
    optimizer = optim.make_optimizer(settings, network, optim.Schedule(settings, loader.steps))
    ema = optim.ExponentialMovingAverage(network.network, settings.ema) if settings.ema else None
    lists = {split: list_digest(one.dataset.samples) for split, one in loaders.items()}
    session = Session(settings, run, loader, optimizer, ema, lists)
    if resumed:
        session.restore(network)
        print_once(f"resumed after epoch {session.epoch - 1}, step {session.step} of the next one")
    return session


@contextlib.contextmanager
def accelerated(network: Classifier, settings: Settings, device: str, run: Path | None = None) -> Iterator[None]:
    """The context in which the network uses the faster layers of `cpu_speedups` and `amp=bf16`, on a CPU.

    Args:
        run: Folder that the choice of convolutions is kept in; None: none is trained.

    Raises:
        UserError: See `autotune`.
    """
    if device != "cpu" or not settings.cpu_speedups:
        yield
        return
    is_bfloat16 = settings.amp == "bf16" and not onednn.fault("bfloat16")
    convolution, summary = autotune(network, settings, is_bfloat16, run)
    if summary:
        print_once(summary)
    with acceleration.speed_up(network, convolution):
        yield
