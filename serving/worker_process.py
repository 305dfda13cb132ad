"""A worker process as the server sees it: start it, send it batches one at a time, notice when it dies or hangs."""

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from serving import frames
from serving.messages import Data, Result, Task, WorkerPlan, unpack_results

ROOT = Path(__file__).resolve().parent.parent
# Not `-m`, which would look for our modules in the current folder first.
COMMAND = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from serving.worker import main; main()"
# Loading a model and choosing its engine takes seconds; on a machine under load it may take many more.
START_SECONDS = 300
STOP_SECONDS = 10


class WorkerStartError(Exception):
    """A worker could not be started; the message is one sentence for the operator."""


class WorkerDiedError(Exception):
    """A worker exited, or had to be killed, while it held a batch."""


class Worker:
    """One worker process.

    Attributes:
        model_info: What it reports of its model.
        pid: Its process id.
        seconds: How long its last batch took, by stage.
        exited: Done when the process has exited.
    """

    def __init__(self, process: asyncio.subprocess.Process):
        assert process.stdin is not None and process.stdout is not None
        self.process, self.pid = process, process.pid
        self.stdin, self.stdout = process.stdin, process.stdout
        self.model_info: dict[str, Any] = {}
        self.seconds: dict[str, float] = {}
        self.exited: asyncio.Future[Any] = asyncio.create_task(process.wait())

    @classmethod
    async def start(cls, plan: WorkerPlan) -> "Worker":
        """Starts a process and waits until its model is loaded.

        Raises:
            WorkerStartError: It cannot load the model.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", COMMAND, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**20
        )  # fmt: skip
        worker = cls(process)
        try:
            head, _ = await asyncio.wait_for(worker._exchange(asdict(plan)), START_SECONDS)
        except BaseException as error:
            await worker.kill()
            if not isinstance(error, (asyncio.IncompleteReadError, OSError, asyncio.TimeoutError)):
                raise
            message = f"a worker exited while loading (exit status {process.returncode}); see its messages above"
            raise WorkerStartError(message) from None
        if "failed" in head:
            await worker.stop()
            raise WorkerStartError(head["failed"])
        worker.model_info = head["ready"]
        return worker

    async def _exchange(self, head: dict[str, Any], blocks: Sequence[Data] = ()) -> frames.Frame:
        await frames.send(self.stdin, head, blocks)
        return await frames.receive(self.stdout)

    async def process_batch(self, tasks: Sequence[Task], files: Sequence[Data], seconds: float) -> list[Result]:
        """Has a batch processed.

        Args:
            tasks: What to do with each file.
            files: Uploaded bytes.
            seconds: Time limit; a worker that exceeds it is hung.

        Raises:
            WorkerDiedError: It exited, or exceeded the time limit.
        """
        try:
            head, images = await asyncio.wait_for(
                self._exchange({"tasks": [asdict(task) for task in tasks]}, files), seconds
            )
        except (asyncio.IncompleteReadError, OSError) as error:
            raise WorkerDiedError(f"it exited ({type(error).__name__})") from None
        except asyncio.TimeoutError:
            raise WorkerDiedError(f"one batch took more than {seconds:g} s") from None
        self.seconds = head["seconds"]
        return unpack_results(head["results"], images)

    async def stop(self) -> None:
        """Lets the process exit by itself: it sees its stdin closed once its batch is done."""
        self.stdin.close()
        try:
            await asyncio.wait_for(self.process.wait(), STOP_SECONDS)
        except asyncio.TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """Kills the process."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
