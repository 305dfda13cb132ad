"""The bounded queue of images, from which workers take batches."""

import asyncio
import contextlib
import hashlib
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from serving.messages import Data, Result, Task
from serving.monitoring import Monitor
from serving.options import Options
from serving.refusal import RefusalError

DEADLY = "two workers died while processing this image; send it in another format"
# For so long, and so many, images that killed workers are refused at once.
DEADLY_SECONDS, DEADLY_KEPT = 600.0, 1000
# Heavy images rest for so many times what one has taken, where a light one has come within so many seconds.
HEAVY_REST, LIGHT_SECONDS = 2.0, 1.0


@dataclass(eq=False)
class Job:
    """One image in the queue or with a worker.

    Attributes:
        data: The uploaded bytes.
        deadline: When its request times out (time.monotonic).
        result: Receives the result; cancelled once nobody waits for it.
        deaths: How many workers have died while they held it.
        is_heavy: Whether it takes long to decode.
    """

    task: Task
    data: Data
    deadline: float
    result: asyncio.Future[Result] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    arrived: float = field(default_factory=time.monotonic)
    deaths: int = 0
    is_heavy: bool = False


class JobQueue:
    """Images that wait for a worker.

    Heavy ones go alone, and while others come, to half of the workers and a third of the time: who sends many of them
    delays his own.

    Attributes:
        workers: Number of workers.
        idle_workers: How many of them wait for a batch.
        seconds_per_image: Moving average over batches.
        arriving: Returns how many requests are still being received.
    """

    def __init__(self, options: Options, monitor: Monitor, workers: int = 1):
        self.options, self.monitor, self.workers = options, monitor, workers
        self.idle_workers = 0
        self.seconds_per_image = 0.05
        self.arriving: Callable[[], int] = lambda: 0
        self._jobs: deque[Job] = deque()
        self._heavy: deque[Job] = deque()
        self._heavy_at_work, self._heavy_rests_until, self._last_light = 0, 0.0, -math.inf
        # When images were answered whose senders may send the next ones now.
        self._answered: deque[float] = deque(maxlen=options.max_batch)
        # Digests of images that workers died with, and until when they are refused.
        self._deadly: OrderedDict[str, float] = OrderedDict()
        self._turn, self._changed = asyncio.Lock(), asyncio.Event()

    def __len__(self) -> int:
        return len(self._jobs) + len(self._heavy)

    def check_room(self, images: int, workers: int) -> None:
        """Checks that so many more images fit.

        Raises:
            RefusalError: The queue is full.
        """
        if len(self) + images > self.options.queue_size:
            self._jobs = deque(job for job in self._jobs if not job.result.done())
            self._heavy = deque(job for job in self._heavy if not job.result.done())
        if len(self) + images > self.options.queue_size:
            seconds = len(self) * self.seconds_per_image / max(1, workers)
            raise RefusalError(503, "the queue is full; try again later", max(1, math.ceil(seconds)))

    def put(self, jobs: Sequence[Job]) -> None:
        """Appends jobs; one whose bytes have killed workers lately is refused."""
        for job in jobs:
            if self._answered:
                self._answered.popleft()
            if self._deadly and self._deadly.get(_digest(job), 0) > time.monotonic():
                job.result.set_exception(RefusalError(503, DEADLY))
            else:
                self._jobs.append(job)
        self.monitor.queue.set(len(self))
        self._changed.set()

    async def next_batch(self) -> list[Job]:
        """Waits for the first image, then until no more are expected or that image has waited for max_wait_ms.

        Workers that are idle at the same time share the queue, so that none is idle beside one with a full batch.
        An image whose worker died goes alone, so that if it is the cause, no other image is lost with it.
        """
        self.idle_workers += 1
        try:
            async with self._turn:
                while True:
                    await self._wait_until(lambda: bool(self._jobs) or self._heavy_may_go(), self._heavy_due())
                    if self._jobs:
                        due = self._jobs[0].arrived + self.options.max_wait_ms / 1000
                        await self._wait_until(lambda: len(self._jobs) >= self._expected(), due)
                    if batch := self._take(math.ceil(len(self._jobs) / self.idle_workers)):
                        return batch
        finally:
            self.idle_workers -= 1

    def _expected(self) -> int:
        """How many images are worth waiting for: those that arrive, and the next ones of clients just answered."""
        since = time.monotonic() - self.options.max_wait_ms / 1000
        answered = sum(moment >= since for moment in self._answered)
        return min(self.options.max_batch, len(self._jobs) + max(answered, self.arriving()))

    async def _wait_until(self, holds: Callable[[], bool], due: float | None = None) -> None:
        while not holds():
            self._changed.clear()
            seconds = None if due is None else due - time.monotonic()
            if seconds is not None and seconds <= 0:
                return
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), seconds)

    def _heavy_due(self) -> float | None:
        """When a heavy image may go; None: not before something else happens."""
        if not self._heavy:
            return None
        among_others = self._heavy_rests_until if self._heavy_at_work < max(1, self.workers // 2) else math.inf
        due = among_others if self._jobs else min(among_others, self._last_light + LIGHT_SECONDS)
        return None if due == math.inf else due

    def _heavy_may_go(self) -> bool:
        due = self._heavy_due()
        return due is not None and time.monotonic() >= due

    def _take(self, share: int) -> list[Job]:
        now, batch, takes_heavy = time.monotonic(), list[Job](), self._heavy_may_go()
        jobs = self._heavy if takes_heavy else self._jobs
        most, size = 1 if takes_heavy else min(share, self.options.max_batch), 0
        while jobs and len(batch) < most:
            # A worker holds no more bytes than one request may have.
            if batch and size + len(jobs[0].data) > self.options.body_bytes:
                break
            job = jobs.popleft()
            if job.result.done():
                continue
            if job.deadline < now:
                job.result.set_exception(deadline_error(self.options.deadline_seconds))
                continue
            batch.append(job)
            size += len(job.data)
            self.monitor.waits.observe(now - job.arrived)
            if job.deaths:
                break
        self._heavy_at_work += bool(batch) and takes_heavy
        self.monitor.queue.set(len(self))
        return batch

    def defer(self, job: Job) -> None:
        """Puts a heavy image among those that go alone."""
        job.is_heavy, job.task = True, replace(job.task, is_deferred=True)
        self._heavy.append(job)
        self._changed.set()

    def end(self, batch: Sequence[Job], seconds: float) -> None:
        """Notes that a worker is done with a batch, or has died with it, after so many seconds."""
        if any(job.is_heavy for job in batch):
            self._heavy_at_work -= 1
            self._heavy_rests_until = time.monotonic() + HEAVY_REST * seconds
            self._changed.set()

    def note_answer(self, job: Job) -> None:
        """Notes that an image has its result: whoever sent it may send the next one now."""
        now = time.monotonic()
        self._answered.append(now)
        if not job.is_heavy:
            self._last_light = now

    def record_batch(self, images: int, seconds: float) -> None:
        """Updates the moving average of the time per image."""
        self.seconds_per_image += 0.1 * (seconds / images - self.seconds_per_image)

    def requeue(self, jobs: Sequence[Job]) -> None:
        """Puts a dead worker's images back to the front; one that two workers died with is refused."""
        for job in reversed(jobs):
            job.deaths += 1
            job.is_heavy = False
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
