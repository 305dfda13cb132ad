"""Trains the network that config.yaml describes on the lists that annotate.py wrote."""

import argparse
import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING

import config
from system import cli, machine
from system.errors import UserError
from system.settings import Settings
from system.text import counted
from system.windows import quoted
from training import process_count, processes

if TYPE_CHECKING:
    from models.checkpoint import Run


def train(settings: Settings) -> "Run":
    """Trains a network with paddle.Model.

    Returns:
        The run folder.

    Raises:
        UserError: Lists, settings or weights do not fit together; the run exists already.
    """
    machine.prepare(settings)
    import paddle

    from annotation.lists import LABELS, read_labels
    from models import factory
    from training import fitting, losses, setup

    settings = setup.checked_settings(settings)
    device = setup.select_device(settings)
    class_names = read_labels(settings.lists / LABELS)
    loaders = {split: setup.make_loader(settings, split, class_names, device) for split in ("train", "valid")}
    loss = losses.make_loss(settings, loaders["train"].dataset.labels, len(class_names))
    # Names of weights count up in a process; a fresh count makes optimizer states fit whatever was built before.
    paddle.utils.unique_name.switch()
    network, summary = factory.build(settings, len(class_names), class_names)

    with setup.lock_run(settings):
        run, resumed = setup.open_run(settings, class_names)
        if resumed and (done := setup.what_is_done(run, settings)):
            setup.print_once(f"{run.path}: {done}")
            return run
        setup.print_once(setup.describe(settings, device, class_names, loaders))
        setup.print_once(summary)
        row = {}
        if settings.freeze and not resumed:
            # SciPy's optimisers fit heads only.
            from training import frozen_head

            row = frozen_head.fit_if_possible(settings, network, run, device, len(class_names))
        if row and not frozen_head.is_unfrozen_later(settings):
            return run
        setup.fill_caches(settings, loaders)
        session = setup.start_session(settings, run, loaders, network, resumed)
        if row:
            frozen_head.start_unfrozen(session, network, row)
        fitting.fit(session, network, loss, loaders, class_names, device)
    return run


def cross_validate(settings: Settings) -> "list[Run]":
    """Trains `folds` runs, each without one fold of the images that are not in test; see training/folds.py.

    Returns:
        The runs; evaluate.py takes the folder that they lie in.

    Raises:
        UserError: See `train`; or there are fewer images of a class than folds.
    """
    machine.prepare(settings)
    from features.extraction import remembering
    from training import folds, setup

    runs = []
    with remembering():
        for number, one in enumerate(folds.prepare(settings), 1):
            setup.print_once(f"fold {number} of {settings.folds}")
            runs.append(train(one))
    return runs


def import_weights(settings: Settings, file: str) -> "Run":
    """Makes a run of weights that were trained elsewhere, such as by a loop of one's own, without training.

    Args:
        settings: Network, image_shape, mean and std are those that the weights were trained with.
        file: A .pdparams file of paddle.Model.save, or its prefix; or .safetensors.

    Raises:
        UserError: The file is missing or holds weights of another network; the run exists already.
    """
    machine.prepare(settings)
    from annotation.lists import LABELS, read_labels
    from models.checkpoint import BEST, Run
    from models.networks import construct
    from models.pretrained import load_strictly
    from models.weights_files import read_weights

    file = file if os.path.isfile(file) else f"{file}.pdparams"
    class_names = read_labels(settings.lists / LABELS)
    network = construct(settings.network, len(class_names), settings.image_shape)
    load_strictly(network, read_weights(file), file, head=set())
    run = Run.create(settings.model_copy(update={"processes": 1}), class_names)
    run.save({BEST: network.state_dict()}, state={"finished": True})
    return run


def main() -> int:
    """Command line of train.py."""
    parser = cli.parser(__doc__)
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings that override config.yaml")
    parser.add_argument(
        "--import",
        dest="weights",
        metavar="FILE",
        help="make a run of these weights (of paddle.Model.save), no training",
    )
    # The speed of the steps of a training, for `processes: auto`.
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_intermixed_args()
    settings = config.load(arguments.config, arguments.settings)
    if arguments.weights:
        run = import_weights(settings, arguments.weights)
        print(f"{run.path}: {settings.network} with the weights of {arguments.weights}")
        print(f"next: python evaluate.py {quoted([str(run.path)])}")
        return 0
    line = [__file__, *sys.argv[1:]]
    if not processes.is_launched() and (count := process_count.choose(settings, line)) > 1:
        return processes.run(line, count)
    with processes.membership() if processes.is_member() else contextlib.nullcontext():
        (measure if arguments.measure else train_and_report)(settings)
    return 0


def measure(settings: Settings) -> None:
    """Prints the seconds of a training step of this process, or of all those it is one of."""
    machine.prepare(settings)
    from training import step_speed

    print(step_speed.seconds_per_step(settings))


def train_and_report(settings: Settings) -> None:
    """Trains, and prints what came of it and where it lies."""
    started = time.monotonic()
    if settings.folds:
        runs = cross_validate(settings)
        if not machine.rank()[0]:
            scores = ", ".join(f"{run.state['best_accuracy']:.4f}" for run in runs)
            print(f"{counted(len(runs), 'fold')}: valid accuracy {scores}; {time.monotonic() - started:.0f} s")
            print(f"next: python evaluate.py {quoted([str(settings.run)])}")
        return
    run = train(settings)
    if machine.rank()[0]:
        return
    state = run.state
    if run.was_removed or not state:
        raise UserError(
            f"{run.path}: the folder was removed while it was trained; "
            + ("it was made again, without the epochs before" if state else "nothing is left of it, train again")
        )
    scores = f"valid accuracy {state['best_accuracy']:.4f}, loss {state['best_loss']:.4f}"
    seconds = f"{time.monotonic() - started:.0f} s"
    files = "best.pdparams, last.pdparams, history.csv, curves.png, summary.txt"
    if "best_strength" in state:
        print(f"best strength {state['best_strength']:g}, chosen by these scores: {scores}; {seconds}")
        print(f"{run.path}: {files}")
    else:
        print(f"best epoch {state['best_epoch']} of {state['epoch']}: {scores}; {seconds}")
        print(f"{run.path}: {files}, augmented.png, vdl/ (view it: python make.py board)")
    print(f"next: python evaluate.py {quoted([str(run.path)])}")


if __name__ == "__main__":
    cli.command(main)
