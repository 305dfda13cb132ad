"""The queue of images, at times of the test's own making: when a batch goes, what is refused, what comes first."""

import asyncio
from types import SimpleNamespace

import pytest

from serving import job_queue
from serving.job_queue import Job, JobQueue
from serving.messages import Task
from serving.monitoring import Monitor
from serving.options import Options
from serving.refusal import RefusalError


@pytest.fixture
def clock(monkeypatch):
    """The queue's own clock, which stands still: `clock.now` is its time in seconds."""
    times = SimpleNamespace(now=100.0)
    monkeypatch.setattr(job_queue, "time", SimpleNamespace(monotonic=lambda: times.now))
    return times


def in_queue(test, tmp_path, **options):
    """Runs a coroutine on a queue and a function that makes a job of a name."""

    async def whole():
        queue = JobQueue(Options(tmp_path, **{"max_wait_ms": 0, "max_batch": 4, "queue_size": 8} | options), Monitor())

        def job(name="a", deadline=200.0, arrived=100.0):
            return Job(Task(name), name.encode(), deadline, arrived=arrived)

        await asyncio.wait_for(test(queue, job), 20)

    asyncio.run(whole())


def names(batch):
    return [job.task.name for job in batch]


def finish(queue, batch, seconds=0.0):
    """What a pool does once a worker has answered a batch."""
    queue.end(batch, seconds)
    for job in batch:
        queue.note_answer(job)


def test_the_queue_holds_as_many_as_it_says_and_says_when_to_come_again(tmp_path, clock):
    """Guards against a queue one too long, or full of images nobody waits for, and a Retry-After that is made up."""

    async def test(queue, job):
        queue.check_room(8, workers=2)
        queue.put([job() for _ in range(8)])
        assert queue.monitor.queue._value.get() == 8
        queue.seconds_per_image = 1.0
        queue.record_batch(images=4, seconds=12.0)
        assert queue.seconds_per_image == pytest.approx(1.2)
        for workers, seconds in ((1, 10), (2, 5), (0, 10), (100, 1)):
            with pytest.raises(RefusalError) as error:
                queue.check_room(1, workers)
            assert (error.value.status, error.value.retry_after) == (503, seconds)
        assert len(queue._jobs) == 8
        for abandoned in list(queue._jobs)[:3]:
            abandoned.result.cancel()
        queue.check_room(3, workers=2)
        with pytest.raises(RefusalError):
            queue.check_room(4, workers=2)

    in_queue(test, tmp_path)


def test_a_batch_goes_when_it_is_full_or_its_first_image_has_waited(tmp_path, clock):
    """Guards against images that wait longer than max_wait_ms, and against one sent alone while more may come."""

    async def test(queue, job):
        queue.arriving = lambda: 2
        waiting = asyncio.create_task(queue.next_batch())
        queue.put([job("a"), job("b")])
        for _ in range(20):
            await asyncio.sleep(0)
        assert not waiting.done()
        queue.put([job("c"), job("d"), job("e")])
        assert names(await waiting) == list("abcd")
        clock.now = 159.9
        waiting = asyncio.create_task(queue.next_batch())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not waiting.done()
        clock.now = 160.0
        queue.put([job("f")])
        assert names(await waiting) == list("ef")

    in_queue(test, tmp_path, max_wait_ms=60_000)


def test_nobody_waits_for_images_that_nobody_sends(tmp_path, clock):
    """Guards against a lone client whose every image waits max_wait_ms, and against clients just answered that do not
    come together again.
    """

    async def test(queue, job):
        for _ in range(3):
            queue.put([job("alone")])
            batch = await queue.next_batch()
            assert names(batch) == ["alone"]
            finish(queue, batch)
        queue.put([job("a"), job("b"), job("c")])
        finish(queue, await queue.next_batch())
        waiting = asyncio.create_task(queue.next_batch())
        queue.put([job("d")])
        for _ in range(20):
            await asyncio.sleep(0)
        assert not waiting.done()
        queue.put([job("e"), job("f"), job("g")])
        assert names(await waiting) == list("defg")

    in_queue(test, tmp_path, max_wait_ms=60_000)


def test_heavy_images_go_alone_and_leave_most_of_the_time_to_others(tmp_path, clock):
    """Guards against a sender of huge images who occupies the workers, and against heavy images that never go."""

    async def test(queue, job):
        queue.workers, queue._last_light = 2, clock.now
        for number in range(4):
            queue.defer(job(f"heavy {number}"))
        queue.check_room(4, workers=2)
        with pytest.raises(RefusalError):
            queue.check_room(5, workers=2)
        queue.put([job("a"), job("b"), job("c")])
        first, others = await queue.next_batch(), await queue.next_batch()
        assert (names(first), names(others)) == (["heavy 0"], ["a", "b", "c"])
        queue.put([job("d")])
        assert names(await queue.next_batch()) == ["d"]
        finish(queue, first, seconds=0.2)
        queue.put([job("e")])
        assert names(await queue.next_batch()) == ["e"]
        clock.now += 0.4
        queue.put([job("f")])
        assert names(await queue.next_batch()) == ["heavy 1"]
        assert names(await queue.next_batch()) == ["f"]
        waiting = asyncio.create_task(queue.next_batch())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        clock.now += 0.7
        queue.put([])
        assert names(await waiting) == ["heavy 2"]
        assert names(await queue.next_batch()) == ["heavy 3"]

    in_queue(test, tmp_path)


def test_heavy_images_need_not_rest_where_nobody_else_comes(tmp_path, clock):
    """Guards against scans that are processed a third of the time although the server has nothing else to do."""

    async def test(queue, job):
        for number in range(3):
            queue.defer(job(f"heavy {number}"))
            batch = await queue.next_batch()
            assert names(batch) == [f"heavy {number}"] and batch[0].task.is_deferred
            finish(queue, batch, seconds=5.0)

    in_queue(test, tmp_path)


def test_deadlines_are_those_of_their_images(tmp_path, clock):
    """Guards against images processed after their deadline or for nobody, and refusing what can still be done."""

    async def test(queue, job):
        late, abandoned, last = job("late", deadline=99.9), job("abandoned"), job("last", deadline=100.0)
        abandoned.result.cancel()
        queue.put([late, abandoned, last])
        assert names(await queue.next_batch()) == ["last"]
        with pytest.raises(RefusalError, match="not completed within 7 s") as error:
            await late.result
        assert (error.value.status, error.value.retry_after) == (503, 1)

    in_queue(test, tmp_path, deadline_seconds=7)


def test_images_of_a_dead_worker_come_first_in_their_order_and_alone(tmp_path, clock):
    """Guards against an image that kills a second batch, and against images overtaken by later ones."""

    async def test(queue, job):
        batch = [job("a"), job("b")]
        queue.put([job("c"), job("d")])
        queue.requeue(batch)
        assert [names(await queue.next_batch()) for _ in range(3)] == [["a"], ["b"], ["c", "d"]]
        assert queue.monitor.queue._value.get() == 0
        batch[1].result.cancel()
        queue.requeue(batch)
        with pytest.raises(RefusalError, match="two workers died") as error:
            await batch[0].result
        assert error.value.status == 503 and not queue._jobs

    in_queue(test, tmp_path)


def test_idle_workers_are_counted(tmp_path, clock):
    """Guards against a count that grows with each batch, by which every batch becomes one image."""

    async def test(queue, job):
        for _ in range(3):
            queue.put([job(), job(), job()])
            assert len(await queue.next_batch()) == 3
        assert queue.idle_workers == 0
        takers = [asyncio.create_task(queue.next_batch()) for _ in range(2)]
        await asyncio.sleep(0)
        assert queue.idle_workers == 2
        for taker in takers:
            taker.cancel()
        await asyncio.wait(takers)
        assert queue.idle_workers == 0

    in_queue(test, tmp_path)


def test_bytes_that_killed_workers_are_refused_for_a_while(tmp_path, clock):
    """Guards against one sender who has every worker killed again and again, and against a refusal for ever."""

    async def test(queue, job):
        killer = job("killer")
        for _ in range(2):
            queue.requeue([killer])
        with pytest.raises(RefusalError, match="two workers died"):
            await killer.result
        again, other = job("killer"), job("other")
        queue._jobs.clear()
        queue.put([again, other])
        with pytest.raises(RefusalError, match="two workers died"):
            await again.result
        assert names(await queue.next_batch()) == ["other"]
        clock.now += job_queue.DEADLY_SECONDS
        queue.put([job("killer", deadline=1e9)])
        assert names(await queue.next_batch()) == ["killer"]
        for number in range(job_queue.DEADLY_KEPT + 5):
            one = job(str(number))
            one.deaths = 1
            queue.requeue([one])
            assert one.result.exception()
        assert len(queue._deadly) == job_queue.DEADLY_KEPT

    in_queue(test, tmp_path)
