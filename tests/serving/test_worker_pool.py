"""The worker pool, with fake workers: no image is lost, and none gets the result of another."""

import asyncio
import os
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

from serving import worker_pool
from serving.messages import HeatMap, Task, WorkerPlan
from serving.monitoring import Monitor
from serving.options import Options
from serving.refusal import RefusalError
from serving.worker_pool import WorkerPool
from serving.worker_process import WorkerDiedError, WorkerStartError
from system import machine

PLAN = WorkerPlan("folder", None, (), threads=1, engine="auto", max_pixels=1, pin_cores=False)


class FakeWorker:
    """Returns each image's own bytes; b"die" kills it, b"slow" takes a while."""

    started: ClassVar[list] = []
    plans: ClassVar[list] = []
    failures = 0

    def __init__(self):
        self.model_info, self.pid, self.batches = {"digest": "d", "engine": "e"}, 1, []
        self.seconds = {"decode": 0.02, "inference": 0.2}
        self.exited = asyncio.get_running_loop().create_future()
        FakeWorker.started.append(self)

    @classmethod
    async def start(cls, plan):
        await asyncio.sleep(0)
        if cls.failures:
            cls.failures -= 1
            raise WorkerStartError("no")
        cls.plans.append(plan)
        return cls()

    async def process_batch(self, tasks, files, seconds):
        self.batches.append(files)
        await asyncio.sleep(0.05 if b"slow" in files else 0)
        if b"die" in files:
            self.exited.set_result(None)
            raise WorkerDiedError("dead")
        return [HeatMap(data) for data in files]

    async def kill(self):
        pass

    async def stop(self):
        if not self.exited.done():
            self.exited.set_result(None)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs a test's coroutine on a started pool."""
    monkeypatch.setattr(worker_pool, "Worker", FakeWorker)
    monkeypatch.setattr(worker_pool, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(FakeWorker, "started", [])

    def run_test(test, workers=2, plan=PLAN, **options):
        async def whole():
            chosen = Options(tmp_path, **{"max_wait_ms": 0, "max_batch": 4} | options)
            pool = WorkerPool(chosen, Monitor(), plan, workers)
            await pool.start()
            try:
                await asyncio.wait_for(test(pool), 20)
            finally:
                await pool.stop()

        asyncio.run(whole())

    return run_test


@pytest.fixture
def pauses(monkeypatch):
    """Every pause, in seconds, that the code asks for from here on; none is waited for."""
    asked, sleep = [], asyncio.sleep

    async def noted(seconds):
        if seconds:
            asked.append(seconds)
        await sleep(0)

    monkeypatch.setattr(worker_pool.asyncio, "sleep", noted)
    return asked


def _submit(pool, *files, seconds=10.0):
    jobs = pool.submit([Task("a.png")] * len(files), list(files), time.monotonic() + seconds)
    return [job.result for job in jobs]


def test_every_image_gets_its_own_result(run):
    """Guards against results of another image, and batches above the limit."""

    async def test(pool):
        pairs = [_submit(pool, f"{i}".encode(), f"{i}b".encode()) for i in range(100)]
        for i, pair in enumerate(pairs):
            assert [(await result).image for result in pair] == [f"{i}".encode(), f"{i}b".encode()]
        assert max(len(batch) for worker in FakeWorker.started for batch in worker.batches) == 4

    run(test, queue_size=300)


def test_idle_workers_share_the_queue(run):
    """Guards against one worker that takes the whole queue while another is idle."""

    async def test(pool):
        while pool.queue.idle_workers < 2:
            await asyncio.sleep(0)
        await asyncio.gather(*_submit(pool, *[b"slow"] * 4))
        assert [len(batch) for worker in FakeWorker.started for batch in worker.batches] == [2, 2]

    run(test)


def test_an_image_that_kills_workers_is_refused_alone(run):
    """Guards against images lost with a worker, and good ones refused because of their batch."""

    async def test(pool):
        results = _submit(pool, b"a", b"die", b"b", b"c")
        assert [(await results[i]).image for i in (0, 2, 3)] == [b"a", b"b", b"c"]
        with pytest.raises(RefusalError, match="two workers died"):
            await results[1]
        before = pool.queue.seconds_per_image
        assert (await _submit(pool, b"after")[0]).image == b"after"
        assert pool.queue.seconds_per_image != before
        assert pool.monitor.restarts._value.get() == 2

    run(test, workers=1)


def test_an_idle_worker_that_dies_is_replaced(run):
    """Guards against a death noticed only by the next request, and a replacement that is tried only once."""

    async def test(pool):
        FakeWorker.failures = 2
        FakeWorker.started[0].exited.set_result(None)
        while len(FakeWorker.started) < 2:
            await asyncio.sleep(0.01)
        assert (await _submit(pool, b"a")[0]).image == b"a"

    run(test, workers=1)


def test_new_workers_take_over_without_a_loss(run):
    """Guards against images dropped while workers are replaced, and old workers left running."""

    async def test(pool):
        results = []
        for i in range(20):
            results += _submit(pool, f"{i}".encode(), b"slow")
            swap = asyncio.create_task(pool.start())
            await asyncio.sleep(0.003)
            results += _submit(pool, b"x")
            await swap
        assert len([await result for result in results]) == 60
        assert sum(not worker.exited.done() for worker in FakeWorker.started) == 2

    run(test)


def test_a_new_export_that_fails_leaves_the_old_one(run):
    """Guards against a torn export that takes the server down."""

    async def test(pool):
        FakeWorker.failures = 1
        with pytest.raises(WorkerStartError):
            await pool.start()
        assert (await _submit(pool, b"a")[0]).image == b"a"

    run(test)


def test_each_worker_gets_cores_of_its_own(run, monkeypatch):
    """Guards against workers that all run on the first cores, or that have fewer cores than threads."""
    plans = []
    monkeypatch.setattr(FakeWorker, "plans", plans)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {4, 5, 6, 7, 8, 9}, raising=False)
    monkeypatch.setattr(machine, "cores", lambda: 6)

    async def test(pool):
        assert [plan.cores for plan in plans] == [[4, 5], [6, 7], [8, 9]]
        assert [plan.engine for plan in plans] == ["auto", "e", "e"]

    run(test, workers=3, plan=replace(PLAN, pin_cores=True, threads=2))
    plans.clear()

    async def unpinned(pool):
        assert [list(plan.cores) for plan in plans] == [[], []]

    run(unpinned)


def test_a_worker_that_cannot_start_is_tried_again_ever_more_rarely(run, monkeypatch, pauses):
    """Guards against a server that fills its log, or the processor, with starts that fail."""
    monkeypatch.setattr(worker_pool, "FIRST_PAUSE", 0.5)

    async def test(pool):
        FakeWorker.failures = 8
        FakeWorker.started[0].exited.set_result(None)
        while len(FakeWorker.started) < 2:
            await asyncio.sleep(0)
        assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30]
        assert pool.monitor.restarts._value.get() == 9

    run(test, workers=1)


def test_a_pool_that_starts_or_stops_accepts_nothing(run):
    """Guards against images that nobody will process, and a readiness that lies to a load balancer."""

    async def test(pool):
        assert pool.ready
        pool.is_draining = True
        assert not pool.ready
        with pytest.raises(RefusalError, match="starting or shutting down") as error:
            pool.check()
        assert (error.value.status, error.value.retry_after) == (503, 2)
        pool.is_draining, pool.model_info = False, {}
        with pytest.raises(RefusalError, match="starting or shutting down"):
            _submit(pool, b"a")

    run(test)


def test_an_export_is_served_from_a_copy_of_its_bytes(run, tmp_path, monkeypatch):
    """Guards against workers that load what the folder has become: torn, replaced, or gone."""
    export, plans = tmp_path / "my model", []
    export.mkdir()
    (export / "weights").write_text("old")
    monkeypatch.setattr(FakeWorker, "plans", plans)

    async def test(pool):
        (copy,) = {Path(plan.folder) for plan in plans}
        assert copy.name == "my model" and copy != export and (copy / "weights").read_text() == "old"
        (export / "weights").write_text("torn")
        FakeWorker.started[0].exited.set_result(None)
        while len(FakeWorker.started) < 3:
            await asyncio.sleep(0.01)
        assert plans[-1].folder == str(copy) and (copy / "weights").read_text() == "old"
        await pool.start()
        new = Path(plans[-1].folder)
        assert new != copy and (new / "weights").read_text() == "torn" and not copy.exists()
        FakeWorker.failures = 1
        with pytest.raises(WorkerStartError):
            await pool.start()
        assert new.exists()
        await pool.stop()
        assert not new.exists()

    run(test, plan=replace(PLAN, folder=str(export)))


def test_a_folder_that_cannot_be_copied_leaves_the_old_model(run, tmp_path, monkeypatch):
    """Guards against a full disk that takes the server down."""
    (tmp_path / "m").mkdir()

    async def test(pool):
        monkeypatch.setattr(worker_pool.shutil, "copytree", lambda *_: (_ for _ in ()).throw(OSError(28, "No space")))
        with pytest.raises(WorkerStartError, match="cannot be copied"):
            await pool.start()
        assert (await _submit(pool, b"a")[0]).image == b"a"

    run(test, plan=replace(PLAN, folder=str(tmp_path / "m")))


def test_workers_that_die_at_once_are_replaced_ever_more_slowly(run, monkeypatch, pauses):
    """Guards against a server that spends its processor on starting workers, and against waiting after one death."""
    monkeypatch.setattr(worker_pool, "FIRST_PAUSE", 0.5)

    async def test(pool):
        for number in range(1, 12):
            FakeWorker.started[-1].exited.set_result(None)
            while len(FakeWorker.started) <= number:
                await asyncio.sleep(0)
        assert pauses == [1, 2, 4, 8, 16, 30, 30, 30, 30]
        pool.slots[0].started -= worker_pool.QUICK_SECONDS
        FakeWorker.started[-1].exited.set_result(None)
        while len(FakeWorker.started) <= 12:
            await asyncio.sleep(0)
        assert len(pauses) == 9

    run(test, workers=1)


@pytest.mark.parametrize(("share", "live", "ready"), [(0, 0, False), (0, 1, True), (0.5, 1, False), (0.5, 2, True)])
def test_the_share_of_workers(share, live, ready):
    """Guards against a server that is ready without a worker, or waits for one more than it was told."""
    pool = SimpleNamespace(is_draining=False, pids=[7] * live + [0] * (4 - live), count=4)
    pool.options = Options(Path(), ready_workers=share)
    assert WorkerPool.ready.fget(pool) is ready
