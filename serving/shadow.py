"""Shadow: a second model that sees the same images as the first, so that both can be compared before it takes over.

Clients get the first model's predictions only, and never wait for the second: it has one worker, which yields the
processor to the others, and a small queue of its own; images that do not fit are not compared, and counted.
"""

import asyncio
import functools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from serving.messages import Data, Prediction, Result, Task
from serving.monitoring import Monitor
from serving.refusal import RefusalError
from serving.worker_pool import WorkerPool


@dataclass
class Counts:
    """What the comparison found since the first model was loaded.

    Attributes:
        compared: Images that both models classified.
        class_differences: Of those, images with another most likely class.
        rejection_differences: Of those, images that only one of both rejects ("none of these").
        largest_difference: Largest difference of a probability, 0..1.
        failed: Images that the second model refused, though the first classified them.
        dropped: Images that found no room, or were left at the end.
    """

    compared: int = 0
    class_differences: int = 0
    rejection_differences: int = 0
    largest_difference: float = 0.0
    failed: int = 0
    dropped: int = 0


class Shadow:
    """Compares the predictions of a pool with those of a second model.

    Args:
        first: The pool whose predictions clients get.
        second: The pool of the other model.
        most_bytes: Bytes of images that may be held for it.
    """

    def __init__(self, first: WorkerPool, second: WorkerPool, monitor: Monitor, most_bytes: int):
        self.first, self.second, self.monitor, self.most_bytes = first, second, monitor, most_bytes
        self.counts, self.against, self.bytes = Counts(), "", 0
        self.waiting: set[asyncio.Future[Result]] = set()

    def offer(self, tasks: Sequence[Task], files: Sequence[Data], results: Sequence[Result]) -> None:
        """Has the second model classify images that the first one has classified; returns at once."""
        if (digest := self.first.model_info["digest"]) != self.against:
            if self.against:
                self.first.log(self.summary())
            self.counts, self.against = Counts(), digest
        for task, data, result in zip(tasks, files, results, strict=True):
            if not isinstance(result, Prediction):
                continue
            if not self._submit(task, data, result):
                self._drop()

    def _submit(self, task: Task, data: Data, expected: Prediction) -> bool:
        if self.first.is_draining or not self.is_comparable or self.bytes + len(data) > self.most_bytes:
            return False
        try:
            (job,) = self.second.submit([replace(task, is_comparison=True)], [data], math.inf)
        except RefusalError:
            return False
        self.bytes += len(data)
        self.waiting.add(job.result)
        job.result.add_done_callback(functools.partial(self._finish, expected, self.counts, len(data)))
        return True

    def _finish(self, expected: Prediction, counts: Counts, size: int, future: asyncio.Future[Result]) -> None:
        self.bytes -= size
        self.waiting.discard(future)
        if future.cancelled():
            self._drop()
            return
        found = future.result() if future.exception() is None else None
        if not isinstance(found, Prediction):
            counts.failed += 1
            self.monitor.shadow_failed.inc()
            return
        self._compare(counts, expected, found)

    def _compare(self, counts: Counts, expected: Prediction, found: Prediction) -> None:
        probabilities = {name: probability for _, name, probability in found.top}
        difference = max(abs(probability - probabilities[name]) for _, name, probability in expected.top)
        counts.compared += 1
        counts.largest_difference = max(counts.largest_difference, difference)
        self.monitor.shadow_compared.inc()
        self.monitor.shadow_difference.observe(difference)
        if found.top[0][1] != expected.top[0][1]:
            counts.class_differences += 1
            self.monitor.shadow_classes.inc()
        if found.none_of_these != expected.none_of_these:
            counts.rejection_differences += 1
            self.monitor.shadow_rejections.inc()

    @property
    def is_comparable(self) -> bool:
        """Whether both models have the same classes; a new export of the first may have others."""
        return bool(self.first.model_info.get("classes") == self.second.model_info.get("classes"))

    def _drop(self) -> None:
        self.counts.dropped += 1
        self.monitor.shadow_dropped.inc()

    async def stop(self) -> None:
        """Gives up what is not compared yet, and says what was found."""
        for future in list(self.waiting):
            future.cancel()
        await asyncio.sleep(0)
        self.first.log(self.summary())

    def model_info(self) -> dict[str, Any]:
        """The part of `GET /model`."""
        info = {key: self.second.model_info.get(key) for key in ("name", "digest", "loaded")}
        return info | asdict(self.counts)

    def summary(self) -> str:
        """The comparison in one line."""
        counts = self.counts
        share = f" ({counts.class_differences / counts.compared:.1%})" if counts.compared else ""
        return (
            f"shadow {self.second.model_info.get('name', '')}: {counts.compared} images compared, "
            f"{counts.class_differences} of another class{share}, {counts.rejection_differences} rejected by one model "
            f"only, largest difference of a probability {counts.largest_difference:.3f}; {counts.failed} failed, "
            f"{counts.dropped} not compared"
        )
