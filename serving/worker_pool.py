"""Worker pool: worker processes that take batches from a queue; dead ones are replaced, and their images requeued."""

import asyncio
import datetime
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from serving.job_queue import Job, JobQueue
from serving.messages import Data, Deferred, Task, WorkerPlan
from serving.monitoring import Monitor
from serving.options import Options
from serving.refusal import RefusalError
from serving.worker_process import Worker, WorkerDiedError, WorkerStartError
from system import machine

# Seconds between attempts to replace a worker: the first, and the last, after doubling.
FIRST_PAUSE, LAST_PAUSE = 0.5, 30.0
# A worker that dies within so many seconds dies quickly; after so many in a row the next one starts later and later.
QUICK_SECONDS, QUICK_DEATHS = 10.0, 2


class WorkerSlot:
    """One worker at a time, replaced when it dies, until the slot is retired."""

    def __init__(self, pool: "WorkerPool", plan: WorkerPlan):
        self.pool, self.plan = pool, plan
        self.worker: Worker | None = None
        self.task: asyncio.Task[None] | None = None
        self.retired: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_replacing = False
        self.started, self.quick_deaths = 0.0, 0

    def start(self) -> None:
        """Starts taking batches; the worker has been started before."""
        self.started = time.monotonic()
        self.task = asyncio.create_task(self._run())

    async def finish(self) -> None:
        """Takes no more batches; waits for the current one."""
        if not self.retired.done():
            self.retired.set_result(None)
        if self.task:
            if self.is_replacing:
                self.task.cancel()
            await asyncio.wait([self.task])

    async def retire(self) -> None:
        """Ends the worker once its current batch is done."""
        await self.finish()
        if self.worker:
            await self.worker.stop()
            self.worker = None

    async def _run(self) -> None:
        while self.worker and not self.retired.done():
            worker = self.worker
            batch = await self._next_batch(worker)
            try:
                if batch:
                    await self._process(worker, batch)
                elif worker.exited.done():
                    raise WorkerDiedError("it exited")
            except WorkerDiedError as error:
                self.pool.log(f"worker {worker.pid}: {error}; starting another")
                self.pool.queue.requeue(batch)
                await self._replace(worker)

    async def _next_batch(self, worker: Worker) -> list[Job]:
        """Waits for a batch; empty where the worker dies or the slot is retired first."""
        waiting = asyncio.create_task(self.pool.queue.next_batch())
        await asyncio.wait({waiting, worker.exited, self.retired}, return_when=asyncio.FIRST_COMPLETED)
        # Does nothing where a batch has been taken: it is ours, and has to be processed.
        waiting.cancel()
        try:
            return await waiting
        except asyncio.CancelledError:
            return []

    async def _process(self, worker: Worker, batch: list[Job]) -> None:
        self.pool.monitor.batch.observe(len(batch))
        start = time.monotonic()
        tasks, files = [job.task for job in batch], [job.data for job in batch]
        try:
            results = await worker.process_batch(tasks, files, self.pool.options.hang_seconds)
        finally:
            self.pool.queue.end(batch, time.monotonic() - start)
        self.pool.queue.record_batch(len(batch), time.monotonic() - start)
        for stage, seconds in worker.seconds.items():
            self.pool.monitor.stages[stage].observe(seconds)
        for job, result in zip(batch, results, strict=True):
            if isinstance(result, Deferred):
                self.pool.queue.defer(job)
                continue
            self.pool.queue.note_answer(job)
            if not job.result.done():
                job.result.set_result(result)

    async def _replace(self, dead: Worker) -> None:
        self.is_replacing, self.worker = True, None
        await dead.kill()
        # Starting a worker takes seconds of a processor: where each dies at once, that would be all it does.
        self.quick_deaths = self.quick_deaths + 1 if time.monotonic() - self.started < QUICK_SECONDS else 0
        if self.quick_deaths > QUICK_DEATHS:
            await asyncio.sleep(min(FIRST_PAUSE * 2 ** (self.quick_deaths - QUICK_DEATHS), LAST_PAUSE))
        pause = FIRST_PAUSE
        while not self.retired.done() and not self.worker:
            self.pool.monitor.restarts.inc()
            try:
                self.worker = await Worker.start(self.plan)
                self.started = time.monotonic()
            except WorkerStartError as error:
                self.pool.log(f"{error}; retrying in {pause:g} s")
                await asyncio.sleep(pause)
                pause = min(2 * pause, LAST_PAUSE)
        self.is_replacing = False


class PrivateCopy:
    """The export's files as they were accepted: a folder that is torn, replaced or gone afterwards changes nothing.

    Attributes:
        plan: The plan of the workers, with the copy as its folder.

    Raises:
        WorkerStartError: There is no room for it.
    """

    def __init__(self, plan: WorkerPlan):
        self.plan, self.place = plan, ""
        # Heat maps are computed from the run; a missing folder is the workers' to report.
        if plan.run or not Path(plan.folder).is_dir():
            return
        self.place = tempfile.mkdtemp(prefix="serve-")
        folder = Path(self.place) / Path(plan.folder).resolve().name
        try:
            # Bytes, not links: who cuts a file short would cut a linked one too.
            shutil.copytree(plan.folder, folder)
        except (OSError, shutil.Error) as error:
            self.remove()
            reason = getattr(error, "strerror", None) or "it changed while it was copied"
            raise WorkerStartError(f"{plan.folder}: cannot be copied to {self.place} ({reason})") from None
        self.plan = replace(plan, folder=str(folder))

    def remove(self) -> None:
        """Removes the copy."""
        if self.place:
            shutil.rmtree(self.place, ignore_errors=True)


class WorkerPool:
    """A queue and the workers that take from it.

    Attributes:
        plan: What each worker loads.
        count: Number of workers.
        model_info: What the workers report of their model; {} before the first is ready.
        is_draining: Whether the server is shutting down.
    """

    def __init__(self, options: Options, monitor: Monitor, plan: WorkerPlan, count: int):
        self.options, self.monitor, self.plan, self.count = options, monitor, plan, count
        self.queue = JobQueue(options, monitor, count)
        self.slots: list[WorkerSlot] = []
        self.model_info: dict[str, Any] = {}
        self.copy: PrivateCopy | None = None
        self.is_draining = False

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that are alive; 0 in the place of one that is being replaced."""
        return [slot.worker.pid if slot.worker else 0 for slot in self.slots]

    @property
    def ready(self) -> bool:
        """Whether images are accepted and enough workers are there to process them."""
        live = sum(map(bool, self.pids))
        return not self.is_draining and live > 0 and live >= self.options.ready_workers * self.count

    async def start(self) -> None:
        """Starts the workers; those that already run finish their batches and are stopped.

        The first worker chooses the engine, and all others take the same.

        Raises:
            WorkerStartError: The model cannot be loaded; everything stays as it was.
        """
        shares = machine.shares(self.count, self.plan.threads) if self.plan.pin_cores else [[]] * self.count
        copy = await asyncio.to_thread(PrivateCopy, self.plan)
        slots = [WorkerSlot(self, replace(copy.plan, cores=share)) for share in shares]
        try:
            info = await self._start_workers(slots)
        except BaseException:
            await asyncio.gather(*(slot.retire() for slot in slots))
            copy.remove()
            raise
        # Only once the last batch of the old model is done: no request is answered by two models.
        await asyncio.gather(*(slot.finish() for slot in self.slots))
        loaded = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        old, self.slots, self.model_info = self.slots, slots, info | {"loaded": loaded}
        old_copy, self.copy = self.copy, copy
        for slot in slots:
            slot.start()
        await asyncio.gather(*(slot.retire() for slot in old))
        if old_copy:
            old_copy.remove()

    async def _start_workers(self, slots: list[WorkerSlot]) -> dict[str, Any]:
        first, *others = slots
        first.worker = await Worker.start(first.plan)
        info = first.worker.model_info
        for slot in slots:
            slot.plan = replace(slot.plan, engine=info.get("engine", ""))
        started = await asyncio.gather(*(Worker.start(slot.plan) for slot in others), return_exceptions=True)
        for slot, worker in zip(others, started, strict=True):
            slot.worker = None if isinstance(worker, BaseException) else worker
        for worker in started:
            if isinstance(worker, BaseException):
                raise worker
            if worker.model_info != info:
                raise WorkerStartError("the exported model changed while it was loaded")
        return info

    async def stop(self) -> None:
        """Stops the workers."""
        await asyncio.gather(*(slot.retire() for slot in self.slots))
        if self.copy:
            self.copy.remove()

    def expect(self, arriving: Callable[[], int]) -> None:
        """Takes a function that returns how many requests are still being received."""
        self.queue.arriving = arriving

    def submit(self, tasks: list[Task], files: list[Data], deadline: float) -> list[Job]:
        """Queues the images of a request, all or none.

        Raises:
            RefusalError: The queue is full, or the pool is not running.
        """
        self.check(len(files))
        jobs = [Job(task, data, deadline) for task, data in zip(tasks, files, strict=True)]
        self.queue.put(jobs)
        return jobs

    def check(self, images: int = 1) -> None:
        """Checks that so many images would be accepted now.

        Raises:
            RefusalError: The queue is full, or the pool is not running.
        """
        # While a dead worker is being replaced the queue still accepts images: their deadlines bound the wait.
        if self.is_draining or not self.model_info:
            raise RefusalError(503, "the server is starting or shutting down; try again in a moment", 2)
        self.queue.check_room(images, len(self.slots))

    def log(self, message: str) -> None:
        """Writes a line for the operator."""
        print(f"serve: {message}", file=sys.stderr, flush=True)
