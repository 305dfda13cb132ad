"""The queue and its workers, with workers that do as a test says: nothing is lost, nothing is answered twice."""

import asyncio
import time
from typing import ClassVar

import pytest

from serving import worker_pool as pools
from serving.monitoring import Monitor
from serving.options import Options
from serving.worker_pool import Pool, RefusalError
from serving.worker_process import DeathError, StartError


class Fake:
    """A worker that answers each image with its own bytes; "die" kills it, "slow" takes a while."""

    made: ClassVar[list] = []
    fails = 0

    def __init__(self):
        self.about, self.pid, self.batches = {"digest": "d", "engine": "e"}, 1, []
        self.ended = asyncio.get_running_loop().create_future()
        Fake.made.append(self)

    @classmethod
    async def start(cls, plan):
        await asyncio.sleep(0)
        if cls.fails:
            cls.fails -= 1
            raise StartError("no")
        return cls()

    async def answer(self, jobs, files, seconds):
        self.batches.append(files)
        await asyncio.sleep(0.05 if b"slow" in files else 0)
        if b"die" in files:
            self.ended.set_result(None)
            raise DeathError("dead")
        return [{"told": data} for data in files]

    async def kill(self):
        pass

    async def stop(self):
        if not self.ended.done():
            self.ended.set_result(None)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs a test's coroutine on a started pool."""
    monkeypatch.setattr(pools, "Worker", Fake)
    monkeypatch.setattr(pools, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(Fake, "made", [])

    def begin(test, workers=2, **options):
        async def whole():
            pool = Pool(
                Options(tmp_path, **{"max_wait_ms": 0, "max_batch": 4} | options),
                Monitor(),
                {"threads": 1, "bound": False},
                workers,
            )
            await pool.start()
            try:
                await asyncio.wait_for(test(pool), 20)
            finally:
                await pool.stop()

        asyncio.run(whole())

    return begin


def _submit(pool, *files, seconds=10.0):
    jobs = pool.submit([{} for _ in files], list(files), time.monotonic() + seconds)
    return [job.answer for job in jobs]


def test_every_image_gets_its_own_answer(run):
    """Guards against answers of another image, and batches above the limit."""

    async def test(pool):
        asked = [_submit(pool, f"{i}".encode(), f"{i}b".encode()) for i in range(100)]
        for i, pair in enumerate(asked):
            assert [(await one)["told"] for one in pair] == [f"{i}".encode(), f"{i}b".encode()]
        assert max(len(batch) for worker in Fake.made for batch in worker.batches) == 4

    run(test, queue_size=300)


def test_free_workers_share_what_waits(run):
    """Guards against one worker that takes the whole queue while another has nothing to do."""

    async def test(pool):
        while pool.free < 2:
            await asyncio.sleep(0)
        jobs = pool.submit([{}] * 4, [b"slow"] * 4, time.monotonic() + 9)
        await asyncio.gather(*(job.answer for job in jobs))
        assert [len(batch) for worker in Fake.made for batch in worker.batches] == [2, 2]

    run(test)


def test_a_image_that_kills_takes_no_other_along(run):
    """Guards against images lost with a worker, and innocent ones refused for their neighbour's sake."""

    async def test(pool):
        answers = _submit(pool, b"a", b"die", b"b", b"c")
        assert [(await answers[i])["told"] for i in (0, 2, 3)] == [b"a", b"b", b"c"]
        with pytest.raises(RefusalError, match="two workers died"):
            await answers[1]
        assert (await _submit(pool, b"after")[0])["told"] == b"after"
        assert pool.monitor.restarts._value.get() == 2

    run(test, workers=1)


def test_an_idle_worker_that_dies_is_replaced(run):
    """Guards against a death that is noticed only when it costs a request its time; and a start that fails at first."""

    async def test(pool):
        Fake.fails = 2
        Fake.made[0].ended.set_result(None)
        while len(Fake.made) < 2:
            await asyncio.sleep(0.01)
        assert (await _submit(pool, b"a")[0])["told"] == b"a"

    run(test, workers=1)


def test_the_queue_is_bounded_and_forgets_who_left(run):
    """Guards against a queue that grows without end, or stays full of images nobody waits for."""

    async def test(pool):
        first = _submit(pool, b"slow")
        await asyncio.sleep(0.01)
        waiting = _submit(pool, *[b"x"] * 6)
        with pytest.raises(RefusalError) as error:
            _submit(pool, b"y")
        assert error.value.status == 503 and error.value.retry_after >= 1
        for one in waiting:
            one.cancel()
        late = _submit(pool, b"y")
        assert (await late[0])["told"] == b"y" and (await first[0])["told"] == b"slow"
        assert sum(batch.count(b"x") for worker in Fake.made for batch in worker.batches) == 0

    run(test, workers=1, queue_size=6)


def test_a_image_too_late_is_refused_undecoded(run):
    """Guards against work on images whose answer comes too late anyway, or that nobody waits for."""

    async def test(pool):
        _submit(pool, b"slow")
        await asyncio.sleep(0.01)
        (gone,) = _submit(pool, b"gone")
        gone.cancel()
        (late,) = _submit(pool, b"late", seconds=0.01)
        with pytest.raises(RefusalError, match="not answered within"):
            await late
        assert not any({b"late", b"gone"} & set(batch) for worker in Fake.made for batch in worker.batches)

    run(test, workers=1)


def test_new_workers_take_over_without_a_loss(run):
    """Guards against images dropped while workers are swapped, again and again, and workers left behind."""

    async def test(pool):
        answers = []
        for i in range(20):
            answers += _submit(pool, f"{i}".encode(), b"slow")
            swap = asyncio.create_task(pool.start())
            await asyncio.sleep(0.003)
            answers += _submit(pool, b"x")
            await swap
        assert len([await one for one in answers]) == 60
        assert sum(not worker.ended.done() for worker in Fake.made) == 2

    run(test)


def test_a_new_export_that_fails_leaves_the_old_one(run):
    """Guards against a torn export that takes the server down."""

    async def test(pool):
        Fake.fails = 1
        with pytest.raises(StartError):
            await pool.start()
        assert (await _submit(pool, b"a")[0])["told"] == b"a"

    run(test)
