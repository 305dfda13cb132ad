"""Program of a worker process: loads a model and processes batches until its stdin is closed.

The first frame is a WorkerPlan, each further one a batch of tasks. Images are decoded here and never in the process
that speaks HTTP, so an image that crashes a decoder costs one worker, which is replaced.
"""

import os
import signal
from collections.abc import Sequence
from typing import Any, BinaryIO, Protocol

import config
from serving import frames
from serving.messages import Result, Task, WorkerPlan, pack_results
from system import machine
from system.errors import UserError

# That of a worker, and how much more of one in the background: 19 is the most.
NICENESS, BACKGROUND_NICENESS = 5, 14


class Model(Protocol):
    """What a worker runs: a BatchClassifier or an Explainer.

    Attributes:
        seconds: How long the last batch took, by stage.
    """

    seconds: dict[str, float]

    def model_info(self) -> dict[str, Any]:
        """What the server is to know of the model."""

    def run(self, tasks: Sequence[Task], files: Sequence[bytes]) -> list[Result]:
        """Processes a batch: one result per file."""


def main() -> None:
    """Loads what the first frame names, reports that it is ready, and processes batches."""
    _ignore_signals()
    if hasattr(os, "nice"):
        # Where cores are scarce HTTP goes first: it needs little, and every client waits for it.
        os.nice(NICENESS)
    incoming, outgoing = _take_pipes()
    frame = frames.read(incoming)
    if frame is None:
        return
    plan, _ = frame
    plan.pop("sizes")
    try:
        model = _load(WorkerPlan(**plan))
    except UserError as error:
        frames.write(outgoing, {"failed": str(error)})
        return
    # Again: paddle installs handlers of its own on import, and they abort.
    _ignore_signals()
    frames.write(outgoing, {"ready": model.model_info()})
    while (frame := frames.read(incoming)) is not None:
        head, files = frame
        results, images = pack_results(model.run([Task(**task) for task in head["tasks"]], files))
        frames.write(outgoing, {"results": results, "seconds": model.seconds}, images)
        # Not held beside the next ones.
        del frame, files, images


def _ignore_signals() -> None:
    """Ctrl-C and a service manager's SIGTERM reach the whole process group; the server decides when workers end."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Reserves stdin and stdout for frames; anything printed from now on, C++ code included, goes to stderr."""
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    return incoming, outgoing


def _load(plan: WorkerPlan) -> Model:
    """Prepares the machine, then imports what the plan needs and no more: a classifier carries no training code."""
    settings = config.load(plan.config_file, plan.overrides)
    settings = settings.model_copy(update={"threads": plan.threads})
    machine.bind(plan.cores)
    if plan.is_background and hasattr(os, "nice"):
        os.nice(BACKGROUND_NICENESS)
    machine.share_one_heap()
    machine.prepare(settings)
    if plan.run:
        from serving.explainer import Explainer

        return Explainer(plan.run, plan.overrides, plan.max_pixels)
    from serving.batch_classifier import BatchClassifier

    return BatchClassifier(plan.folder, settings, plan.engine, plan.max_pixels)
