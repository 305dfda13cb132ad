"""The queue of images and the workers that take from it in batches; a dead worker's images are queued once more."""

import asyncio
import contextlib
import math
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from serving.monitoring import Monitor
from serving.options import Options
from serving.worker_process import DeathError, StartError, Worker
from system import machine

# Seconds before a worker that cannot be started is tried again: from the first to the last.
FIRST_PAUSE, LAST_PAUSE = 0.5, 30.0


class RefusalError(Exception):
    """A request that gets no answer.

    Attributes:
        status: HTTP status.
        told: One sentence for the client.
        retry_after: Seconds after which another try may do better; None: none will.
    """

    def __init__(self, status: int, told: str, retry_after: int | None = None):
        super().__init__(told)
        self.status, self.told, self.retry_after = status, told, retry_after


@dataclass(eq=False)
class Job:
    """One image on its way.

    Attributes:
        head: What the worker is told beside the bytes.
        data: The bytes.
        deadline: By when it must be answered (time.monotonic).
        answer: Where the answer goes; cancelled where nobody waits for it any more.
        deaths: How many workers have died while they held it.
    """

    head: dict[str, Any]
    data: bytes
    deadline: float
    answer: asyncio.Future = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    arrived: float = field(default_factory=time.monotonic)
    deaths: int = 0


class Lane:
    """One worker at a time, replaced when it dies, until the lane is retired."""

    def __init__(self, pool: "Pool", plan: dict[str, Any]):
        self.pool, self.plan = pool, plan
        self.worker: Worker | None = None
        self.task: asyncio.Task | None = None
        self.retired = asyncio.get_running_loop().create_future()
        self.replacing = False

    def begin(self) -> None:
        """Starts to take from the queue; the worker is there already."""
        self.task = asyncio.create_task(self._run())

    async def retire(self) -> None:
        """Ends the worker once its batch is answered."""
        if not self.retired.done():
            self.retired.set_result(None)
        if self.task:
            if self.replacing:
                self.task.cancel()
            await asyncio.wait([self.task])
        if self.worker:
            await self.worker.stop()
            self.worker = None

    async def _run(self) -> None:
        while not self.retired.done():
            jobs = await self._next()
            try:
                if jobs:
                    await self._judge(jobs)
                elif self.worker.ended.done():
                    raise DeathError("it ended")
            except DeathError as died:
                self.pool.lost(jobs, f"worker {self.worker.pid}: {died}; another is started")
                await self._replace()

    async def _next(self) -> list[Job]:
        """Waits for a batch; none where the worker dies or the lane is retired first."""
        gathering = asyncio.create_task(self.pool.gather())
        await asyncio.wait({gathering, self.worker.ended, self.retired}, return_when=asyncio.FIRST_COMPLETED)
        # Does nothing where a batch has been taken, which is then ours to answer.
        gathering.cancel()
        try:
            return await gathering
        except asyncio.CancelledError:
            return []

    async def _judge(self, jobs: list[Job]) -> None:
        options, monitor = self.pool.options, self.pool.monitor
        monitor.batch.observe(len(jobs))
        began = time.monotonic()
        heads, files = [job.head for job in jobs], [job.data for job in jobs]
        answers = await self.worker.answer(heads, files, options.hang_seconds)
        self.pool.took(len(jobs), time.monotonic() - began)
        for job, told in zip(jobs, answers, strict=True):
            if not job.answer.done():
                job.answer.set_result(told)

    async def _replace(self) -> None:
        self.replacing = True
        dead, self.worker = self.worker, None
        await dead.kill()
        pause = FIRST_PAUSE
        while not self.retired.done() and not self.worker:
            self.pool.monitor.restarts.inc()
            try:
                self.worker = await Worker.start(self.plan)
            except StartError as error:
                self.pool.tell(f"{error}; trying again in {pause:g} s")
                await asyncio.sleep(pause)
                pause = min(2 * pause, LAST_PAUSE)
        self.replacing = False


class Pool:
    """A bounded queue and its lanes.

    Attributes:
        about: What the workers' model is; {} before the first is ready.
        draining: Whether the server is about to end.
    """

    def __init__(self, options: Options, monitor: Monitor, plan: dict[str, Any], count: int):
        self.options, self.monitor, self.plan, self.count = options, monitor, plan, count
        self.queue: deque[Job] = deque()
        self.lanes: list[Lane] = []
        self.about: dict[str, Any] = {}
        self.draining = False
        self.seconds_a_image = 0.05
        # Workers that wait for a batch.
        self.free = 0
        self.turn, self.news = asyncio.Lock(), asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether images are taken and a worker is there to judge them."""
        return not self.draining and any(lane.worker for lane in self.lanes)

    async def start(self) -> None:
        """Starts workers of the plan and lets them take the place of those there are, which first end their batches.

        The first worker chooses the engine, and all others take the same.

        Raises:
            StartError: The model cannot be loaded; everything stays as it was.
        """
        shares = machine.shares(self.count, self.plan["threads"]) if self.plan["bound"] else [[]] * self.count
        lanes = [Lane(self, self.plan | {"cores": share}) for share in shares]
        try:
            lanes[0].worker = await Worker.start(lanes[0].plan)
            about = lanes[0].worker.about
            for lane in lanes:
                lane.plan["engine"] = about.get("engine", "")
            started = await asyncio.gather(*(Worker.start(lane.plan) for lane in lanes[1:]), return_exceptions=True)
            for lane, worker in zip(lanes[1:], started, strict=True):
                lane.worker = worker if isinstance(worker, Worker) else None
            failed = next((one for one in started if isinstance(one, BaseException)), None)
            if failed or any(lane.worker.about != about for lane in lanes):
                raise failed or StartError("the exported folder changed while it was loaded")
        except BaseException:
            await asyncio.gather(*(lane.retire() for lane in lanes))
            raise
        old, self.lanes, self.about = self.lanes, lanes, about
        for lane in lanes:
            lane.begin()
        await asyncio.gather(*(lane.retire() for lane in old))

    async def stop(self) -> None:
        """Ends the workers."""
        await asyncio.gather(*(lane.retire() for lane in self.lanes))

    def submit(self, heads: list[dict[str, Any]], files: list[bytes], deadline: float) -> list[Job]:
        """Queues the images of a request, all or none.

        Raises:
            RefusalError: The queue is full, or nobody is there to work on it.
        """
        self.check(len(files))
        jobs = [Job(head, data, deadline) for head, data in zip(heads, files, strict=True)]
        self.queue.extend(jobs)
        self.monitor.queue.set(len(self.queue))
        self.news.set()
        return jobs

    def check(self, count: int = 1) -> None:
        """Raises RefusalError where so many images would not be taken now."""
        # While a dead worker is replaced the queue takes what it can: deadlines see to the rest.
        if self.draining or not self.about:
            raise RefusalError(503, "the server is starting or ending; try again in a moment", 2)
        if len(self.queue) + count > self.options.queue_size:
            self._drop_abandoned()
        if len(self.queue) + count > self.options.queue_size:
            seconds = len(self.queue) * self.seconds_a_image / max(1, len(self.lanes))
            raise RefusalError(503, "the queue is full; try again later", max(1, math.ceil(seconds)))

    def _drop_abandoned(self) -> None:
        self.queue = deque(job for job in self.queue if not job.answer.done())

    async def gather(self) -> list[Job]:
        """Waits for a batch: for the first image, then until it is full or the first has waited long enough.

        Workers that are free at the same time share what waits, so that none is idle beside one with a full batch.
        An image whose worker died is taken alone, so that if it is the cause it takes no other along.
        """
        self.free += 1
        try:
            async with self.turn:
                while True:
                    await self._until(lambda: self.queue)
                    due = self.queue[0].arrived + self.options.max_wait_ms / 1000
                    await self._until(lambda: len(self.queue) >= self.options.max_batch, due)
                    if jobs := self._take(math.ceil(len(self.queue) / self.free)):
                        return jobs
        finally:
            self.free -= 1

    async def _until(self, holds, due: float | None = None) -> None:
        while not holds():
            self.news.clear()
            left = None if due is None else due - time.monotonic()
            if left is not None and left <= 0:
                return
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.news.wait(), left)

    def _take(self, share: int) -> list[Job]:
        taken: list[Job] = []
        now = time.monotonic()
        while self.queue and len(taken) < min(share, self.options.max_batch):
            job = self.queue.popleft()
            if job.answer.done():
                continue
            if job.deadline < now:
                job.answer.set_exception(late(self.options.deadline_seconds))
                continue
            taken.append(job)
            if job.deaths:
                break
        self.monitor.queue.set(len(self.queue))
        return taken

    def took(self, images: int, seconds: float) -> None:
        """Learns how long images take: a moving average over batches."""
        self.seconds_a_image += 0.1 * (seconds / images - self.seconds_a_image)

    def lost(self, jobs: list[Job], told: str) -> None:
        """Puts a dead worker's images back to the front; one that has now seen two workers die is refused."""
        self.tell(told)
        for job in reversed(jobs):
            job.deaths += 1
            if job.answer.done():
                continue
            if job.deaths > 1:
                told = "two workers died over this image; send it in another format"
                job.answer.set_exception(RefusalError(503, told))
            else:
                self.queue.appendleft(job)
        self.news.set()

    def tell(self, told: str) -> None:
        """Writes a line for the operator."""
        print(f"serve: {told}", file=sys.stderr, flush=True)


def late(seconds: float) -> RefusalError:
    """The refusal of a request that has waited too long."""
    return RefusalError(503, f"not answered within {seconds:g} s; try again later, or send fewer images", 1)
