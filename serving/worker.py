"""A worker process: decodes images and judges them with one predictor, batch by batch, until its stdin is closed.

Started by `serving.process`. The first frame says what to load; each further one holds jobs of
`serving.pool.Job`. Decoding happens here and never in the process that speaks HTTP, so an image that makes a decoder
crash costs one worker, which is replaced.
"""

import os
import signal
from typing import BinaryIO

import config
from serving import frames
from system import machine
from system.errors import UserError

NICENESS = 5


def _pipes() -> tuple[BinaryIO, BinaryIO]:
    """Takes stdin and stdout for frames; whatever prints, C++ code included, goes to stderr from now on."""
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    return incoming, outgoing


def _ignore_signals() -> None:
    """Ctrl-C and a service manager's SIGTERM reach the whole group; the server decides when its workers end."""
    for one in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(one, signal.SIG_IGN)


def main() -> None:
    """Loads what the first frame names, says so, and answers until there is no more to do."""
    _ignore_signals()
    if hasattr(os, "nice"):
        # Where cores are short, HTTP goes first: it needs little, and everybody waits for it.
        os.nice(NICENESS)
    incoming, outgoing = _pipes()
    plan = frames.read(incoming)
    if plan is None:
        return
    try:
        judge = _load(plan[0])
    except UserError as error:
        frames.write(outgoing, {"failed": str(error)})
        return
    # Once more: importing paddle has put handlers of its own in place, which abort.
    _ignore_signals()
    frames.write(outgoing, {"ready": judge.about()})
    while (frame := frames.read(incoming)) is not None:
        head, blocks = frame
        answers = judge.answer(head["jobs"], blocks)
        images = [answer.pop("image", b"") for answer in answers]
        frames.write(outgoing, {"answers": answers}, images)


def _load(plan: dict):
    settings = config.load(plan["config_file"], plan["overrides"])
    settings = settings.model_copy(update={"threads": plan["threads"]})
    machine.bind(plan["cores"])
    machine.prepare(settings)
    if plan["run"]:
        from serving.explainer import Explainer

        return Explainer(plan["run"], plan["overrides"], plan["max_pixels"])
    from serving.batch_classifier import Judge

    return Judge(plan["folder"], settings, plan["engine"], plan["max_pixels"])
