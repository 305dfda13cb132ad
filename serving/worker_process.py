"""A worker process as the server sees it: started, given batches one at a time, noticed when it dies or hangs."""

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serving import frames

ROOT = Path(__file__).resolve().parent.parent
# Not `-m`, which would look for our modules in the current folder first.
COMMAND = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from serving.worker import main; main()"
# Loading a model and choosing its engine takes seconds; a machine under load may need many more.
START_SECONDS = 300
END_SECONDS = 10


class StartError(Exception):
    """A worker could not be started; its text is a sentence for the operator."""


class DeathError(Exception):
    """A worker ended, or had to be ended, while it held a batch."""


class Worker:
    """One worker process.

    Attributes:
        about: What it has told about its model.
        pid: Its process id.
        ended: Done when the process has ended.
    """

    def __init__(self, process: asyncio.subprocess.Process, about: dict[str, Any]):
        self.process, self.about, self.pid = process, about, process.pid
        self.ended = asyncio.create_task(process.wait())

    @classmethod
    async def start(cls, plan: dict[str, Any]) -> "Worker":
        """Starts a process and waits until its model is loaded.

        Raises:
            StartError: It cannot load it.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", COMMAND, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**20
        )  # fmt: skip
        worker = cls(process, {})
        try:
            head, _ = await asyncio.wait_for(worker._exchange(plan), START_SECONDS)
        except BaseException as error:
            await worker.kill()
            if not isinstance(error, (asyncio.IncompleteReadError, OSError, asyncio.TimeoutError)):
                raise
            told = f"a worker ended while loading (exit status {process.returncode}); read what it said before"
            raise StartError(told) from None
        if "failed" in head:
            await worker.stop()
            raise StartError(head["failed"])
        worker.about = head["ready"]
        return worker

    async def _exchange(self, head: dict, blocks: Sequence[bytes] = ()) -> tuple[dict, list[bytes]]:
        self.process.stdin.writelines(frames.pack(head, blocks))
        await self.process.stdin.drain()
        return await frames.receive(self.process.stdout)

    async def answer(self, jobs: list[dict], files: list[bytes], seconds: float) -> list[dict[str, Any]]:
        """Has a batch judged.

        Returns:
            What `Judge.answer` returns, with the bytes of drawn images under `image`.

        Raises:
            DeathError: It ended, or took longer than so many seconds and was ended.
        """
        try:
            head, images = await asyncio.wait_for(self._exchange({"jobs": jobs}, files), seconds)
        except (asyncio.IncompleteReadError, OSError) as error:
            raise DeathError(f"it ended ({type(error).__name__})") from None
        except asyncio.TimeoutError:
            raise DeathError(f"it computed for more than {seconds:g} s") from None
        return [told | {"image": image} for told, image in zip(head["answers"], images, strict=True)]

    async def stop(self) -> None:
        """Lets the process end by itself: its stdin is closed, which it reads once its batch is done."""
        self.process.stdin.close()
        try:
            await asyncio.wait_for(self.process.wait(), END_SECONDS)
        except asyncio.TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """Ends the process at once."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
