"""What the routes share: worker pools, uploads, label reports."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol

from fastapi import Request
from starlette.requests import ClientDisconnect

from serving.job_queue import Job, deadline_error
from serving.label_reports import LabelReports
from serving.messages import Data, Result, Task
from serving.middleware import EXCHANGE
from serving.monitoring import Monitor
from serving.options import Options
from serving.shadow import Shadow
from serving.uploads import Uploads


class Pool(Protocol):
    """What processes images: a WorkerPool, or a replica of Ray."""

    model_info: dict[str, Any]
    is_draining: bool

    @property
    def ready(self) -> bool:
        """Whether images would be processed."""

    def check(self, images: int = 1) -> None:
        """Raises a RefusalError where so many images would not be accepted now."""

    def expect(self, arriving: Callable[[], int]) -> None:
        """Takes a function that returns how many requests are still being received."""

    def submit(self, tasks: list[Task], files: list[Data], deadline: float) -> list[Job]:
        """Takes the images of a request, all or none."""


class Service:
    """State of the application.

    Attributes:
        classifiers: The pool that runs the exported model.
        explainers: The pool that computes Grad-CAM; None without a run.
        shadow: Compares predictions with those of a second model; None: there is none.
        reports: Where /relabel writes; None: nowhere.
    """

    def __init__(
        self,
        options: Options,
        monitor: Monitor,
        classifiers: Pool,
        explainers: Pool | None,
        shadow: Shadow | None = None,
    ):
        self.shadow = shadow
        self.options, self.monitor, self.classifiers, self.explainers = options, monitor, classifiers, explainers
        self.uploads = Uploads(options, monitor, lambda: classifiers.is_draining)
        classifiers.expect(lambda: self.uploads.arriving)
        self.reports = LabelReports(options.relabel_file) if options.relabel_file else None

    async def process(self, pool: Pool, request: Request, tasks: list[Task], files: list[Data]) -> list[Result]:
        """Runs a request's files through a pool, until the client disconnects.

        Raises:
            RefusalError: The queue is full, or the deadline has passed.
            ClientDisconnect: The client has gone.
        """
        deadline = time.monotonic() + self.options.deadline_seconds
        jobs = pool.submit(tasks, files, deadline)
        request.scope[EXCHANGE].images = len(files)
        finished: asyncio.Future[Any] = asyncio.gather(*(job.result for job in jobs), return_exceptions=True)
        disconnected: asyncio.Future[Any] = asyncio.create_task(_disconnected(request))
        try:
            seconds = deadline - time.monotonic()
            await asyncio.wait({finished, disconnected}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if finished.done():
                results = [job.result.result() for job in jobs]
                if self.shadow and pool is self.classifiers:
                    self.shadow.offer(tasks, files, results)
                return results
            raise ClientDisconnect() if disconnected.done() else deadline_error(self.options.deadline_seconds)
        finally:
            disconnected.cancel()
            for job in jobs:
                job.result.cancel()
                job.data = b""

    @property
    def can_explain(self) -> bool:
        """Whether there is a run whose classes are those of the exported model."""
        if self.explainers is None:
            return False
        return self.explainers.model_info.get("classes") == self.classifiers.model_info.get("classes")

    def model_info(self) -> dict[str, Any]:
        """The body of `GET /model`."""
        options = self.options
        limits = {"body_mb": options.max_body_mb, "files": options.max_files, "pixels": options.max_pixels}
        features = {"gradcam": self.can_explain, "relabel": self.reports is not None, "limits": limits}
        if self.shadow:
            features["shadow"] = self.shadow.model_info()
        return self.classifiers.model_info | features


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
