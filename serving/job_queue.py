"""The bounded queue of images, from which workers take batches."""

import asyncio
import contextlib
import hashlib
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from serving.messages import Result, Task
from serving.monitoring import Monitor
from serving.options import Options
from serving.refusal import RefusalError

DEADLY = "two workers died while processing this image; send it in another format"
# For so long, and so many, images that killed workers are refused at once.
DEADLY_SECONDS, DEADLY_KEPT = 600.0, 1000


@dataclass(eq=False)
class Job:
    """One image in the queue or with a worker.

    Attributes:
        data: The uploaded bytes.
        deadline: When its request times out (time.monotonic).
        result: Receives the result; cancelled once nobody waits for it.
        deaths: How many workers have died while they held it.
    """

    task: Task
    data: bytes
    deadline: float
    result: asyncio.Future[Result] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    arrived: float = field(default_factory=time.monotonic)
    deaths: int = 0


class JobQueue:
    """Images that wait for a worker.

    Attributes:
        idle_workers: How many workers wait for a batch.
        seconds_per_image: Moving average over batches.
    """

    def __init__(self, options: Options, monitor: Monitor):
        self.options, self.monitor = options, monitor
        self.idle_workers = 0
        self.seconds_per_image = 0.05
        self._jobs: deque[Job] = deque()
        # Digests of images that workers died with, and until when they are refused.
        self._deadly: OrderedDict[str, float] = OrderedDict()
        self._turn, self._changed = asyncio.Lock(), asyncio.Event()

    def check_room(self, images: int, workers: int) -> None:
        """Checks that so many more images fit.

        Raises:
            RefusalError: The queue is full.
        """
        if len(self._jobs) + images > self.options.queue_size:
            self._jobs = deque(job for job in self._jobs if not job.result.done())
        if len(self._jobs) + images > self.options.queue_size:
            seconds = len(self._jobs) * self.seconds_per_image / max(1, workers)
            raise RefusalError(503, "the queue is full; try again later", max(1, math.ceil(seconds)))

    def put(self, jobs: Sequence[Job]) -> None:
        """Appends jobs; one whose bytes have killed workers lately is refused."""
        for job in jobs:
            if self._deadly and self._deadly.get(_digest(job), 0) > time.monotonic():
                job.result.set_exception(RefusalError(503, DEADLY))
            else:
                self._jobs.append(job)
        self.monitor.queue.set(len(self._jobs))
        self._changed.set()

    async def next_batch(self) -> list[Job]:
        """Waits for the first image, then until the batch is full or that image has waited for max_wait_ms.

        Workers that are idle at the same time share the queue, so that none is idle beside one with a full batch.
        An image whose worker died goes alone, so that if it is the cause, no other image is lost with it.
        """
        self.idle_workers += 1
        try:
            async with self._turn:
                while True:
                    await self._wait_until(lambda: bool(self._jobs))
                    due = self._jobs[0].arrived + self.options.max_wait_ms / 1000
                    await self._wait_until(lambda: len(self._jobs) >= self.options.max_batch, due)
                    if batch := self._take(math.ceil(len(self._jobs) / self.idle_workers)):
                        return batch
        finally:
            self.idle_workers -= 1

    async def _wait_until(self, holds: Callable[[], bool], due: float | None = None) -> None:
        while not holds():
            self._changed.clear()
            seconds = None if due is None else due - time.monotonic()
            if seconds is not None and seconds <= 0:
                return
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), seconds)

    def _take(self, share: int) -> list[Job]:
        batch: list[Job] = []
        now = time.monotonic()
        while self._jobs and len(batch) < min(share, self.options.max_batch):
            job = self._jobs.popleft()
            if job.result.done():
                continue
            if job.deadline < now:
                job.result.set_exception(deadline_error(self.options.deadline_seconds))
                continue
            batch.append(job)
            if job.deaths:
                break
        self.monitor.queue.set(len(self._jobs))
        return batch

    def record_batch(self, images: int, seconds: float) -> None:
        """Updates the moving average of the time per image."""
        self.seconds_per_image += 0.1 * (seconds / images - self.seconds_per_image)

    def requeue(self, jobs: Sequence[Job]) -> None:
        """Puts a dead worker's images back to the front; one that two workers died with is refused."""
        for job in reversed(jobs):
            job.deaths += 1
            if job.result.done():
                continue
            if job.deaths > 1:
                self._deadly[_digest(job)] = time.monotonic() + DEADLY_SECONDS
                while len(self._deadly) > DEADLY_KEPT:
                    self._deadly.popitem(last=False)
                job.result.set_exception(RefusalError(503, DEADLY))
            else:
                self._jobs.appendleft(job)
        self._changed.set()


def _digest(job: Job) -> str:
    return hashlib.sha256(job.data).hexdigest()


def deadline_error(seconds: float) -> RefusalError:
    """The refusal of a request that was not completed in time."""
    return RefusalError(503, f"not completed within {seconds:g} s; try again later, or send fewer images", 1)
