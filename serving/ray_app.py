"""Ray Serve deployment, for more than one machine: the application of serve.py, one model per replica.

    serve run serving.ray_app:build folder=infer/NAME replicas=2        (`serve` is Ray's; in the project's folder)

Ray replaces worker_pool.py, worker_process.py and server.py: it starts replicas on any machine of a cluster, routes
requests, gathers batches and replaces what dies.
"""

import asyncio
import datetime
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from fastapi import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message

import config
from inference.names import DESCRIPTION
from serving import options
from serving.app import build as build_app
from serving.job_queue import Job
from serving.messages import Data, Deferred, Result, Task
from serving.monitoring import Monitor
from serving.options import Options
from serving.refusal import RefusalError
from system import machine, optional
from system.errors import UserError

# Requests that a replica holds, its batch among them; beyond it Ray queues requests, then refuses them with 503.
MAX_ONGOING, MAX_QUEUED = 64, 256
# What Ray does in its own way.
OF_RAY = {"port", "workers", "hang_seconds", "watch_seconds", "ready_workers", "max_connections"}
LIMITS = {one.name: type(one.default) for one in fields(Options) if one.metadata and one.name not in OF_RAY}


def _ray_serve() -> Any:
    return optional.load("ray.serve", "serving.ray_app", '"ray[serve]"')


def build(arguments: Mapping[str, str]) -> Any:
    """Builds Ray Serve's application; the token is that of SERVE_TOKEN where it is built.

    Args:
        arguments: `folder`; and, with defaults, `replicas` (1), `threads` (1), `engine` (auto), `allowed_host` (any),
            and the limits of serve.py, such as `max_pixels`.

    Raises:
        UserError: An argument is unknown or out of range, or there is no exported model.
    """
    known = {"folder": str, "replicas": int, "threads": int, "engine": str, "allowed_host": str, **LIMITS}
    given = {name: _value(name, text, known) for name, text in arguments.items()}
    folder = Path(given.get("folder", ""))
    if not (folder / DESCRIPTION).is_file():
        raise UserError(f"folder={folder}: no {DESCRIPTION} there; name a folder that export.py made")
    limits = {name: given[name] for name in LIMITS if name in given}
    options.check_range(limits)
    hosts = tuple(filter(None, given.get("allowed_host", "").split(",")))
    # Ray listens, on an address of its own.
    chosen = Options(folder.resolve(), token=options.token(), host="0.0.0.0", allowed_host=hosts, **limits)
    replicas, threads = given.get("replicas", 1), given.get("threads", 1)
    deployment = _ray_serve().deployment(
        Classifier, name="classifier", num_replicas=replicas, ray_actor_options={"num_cpus": threads},
        max_ongoing_requests=MAX_ONGOING, max_queued_requests=MAX_QUEUED,
    )  # fmt: skip
    return deployment.bind(chosen, threads, given.get("engine", "auto"))


def _value(name: str, text: str, known: Mapping[str, type]) -> Any:
    if name not in known:
        why = "Ray does this in its own way; leave it out" if name in OF_RAY else f"unknown; give {', '.join(known)}"
        raise UserError(f"{name}={text}: {why}")
    try:
        return known[name](text)
    except ValueError:
        raise UserError(f"{name}={text}: not a number; give one") from None


class Replica:
    """The model of one replica, as the application knows a pool of workers; Ray gathers the batches.

    Attributes:
        waiting: Images that wait or are being processed.
    """

    is_draining, ready = False, True

    def __init__(self, model: Any, chosen: Options):
        self.model, self.options, self.waiting = model, chosen, 0
        loaded = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        self.model_info: dict[str, Any] = model.model_info() | {"loaded": loaded}
        self.running: set[asyncio.Task[None]] = set()
        seconds = chosen.max_wait_ms / 1000
        self.classify = _ray_serve().batch(max_batch_size=chosen.max_batch, batch_wait_timeout_s=seconds)(self._batch)

    def check(self, images: int = 1) -> None:
        """Checks that so many images would be accepted now.

        Raises:
            RefusalError: Too many wait.
        """
        if self.waiting + images > self.options.queue_size:
            raise RefusalError(503, "the queue is full; try again later", 1)

    def expect(self, arriving: Callable[[], int]) -> None:
        """Ray gathers batches in its own way."""

    def submit(self, tasks: list[Task], files: list[Data], deadline: float) -> list[Job]:
        """Has the images of a request classified, all or none.

        Raises:
            RefusalError: Too many wait.
        """
        self.check(len(files))
        jobs = [Job(task, data, deadline) for task, data in zip(tasks, files, strict=True)]
        self.waiting += len(jobs)
        for job in jobs:
            running = asyncio.create_task(self._run(job))
            self.running.add(running)
            running.add_done_callback(self.running.discard)
        return jobs

    async def _run(self, job: Job) -> None:
        try:
            result = await self.classify(job)
            if not job.result.done():
                job.result.set_result(result)
        finally:
            self.waiting -= 1

    async def _batch(self, jobs: list[Job]) -> list[Result]:
        return await asyncio.to_thread(self._classify, [job.task for job in jobs], [bytes(job.data) for job in jobs])

    def _classify(self, tasks: Sequence[Task], files: Sequence[bytes]) -> list[Result]:
        """Runs the model; where it fails, image by image, so that one costs no other its result."""
        try:
            results = self.model.run(tasks, files)
            # Heavy images come again, one by one.
            return [
                self.model.run([replace(task, is_deferred=True)], [data])[0] if isinstance(result, Deferred) else result
                for task, data, result in zip(tasks, files, results, strict=True)
            ]
        except Exception:
            if len(tasks) > 1:
                return [self._classify([task], [data])[0] for task, data in zip(tasks, files, strict=True)]
            traceback.print_exc()
            return [RefusalError(503, f"{tasks[0].name}: processing this image failed; send it in another format")]


class NoMetrics(Monitor):
    """A replica counts what it has done itself, and every request for /metrics reaches another one."""

    def exposition(self) -> bytes:
        """Refuses."""
        raise RefusalError(404, "each replica counts for itself; use the metrics of Ray")


class Classifier:
    """One replica: a model in a process of its own, like a worker of serve.py, and the application before it."""

    def __init__(self, chosen: Options, threads: int, engine: str):
        settings = config.load(None, [f"threads={threads}", f"engine={engine}"])
        machine.prepare(settings)
        from serving.batch_classifier import BatchClassifier

        model = BatchClassifier(str(chosen.folder), settings, engine, chosen.max_pixels)
        self.app = build_app(chosen, NoMetrics(), Replica(model, chosen), None)

    async def __call__(self, request: Request) -> Response:
        """Handles any request as serve.py does."""
        return await _respond(self.app, request)


async def _respond(app: ASGIApp, request: Request) -> Response:
    """Collects an application's response, which Ray takes as a value."""
    start: Message = {}
    parts: list[bytes] = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
        parts.append(message.get("body", b""))

    try:
        await app({**request.scope, "extensions": {}}, request.receive, send)
    except Exception:
        # The application has answered with 500 before it raised.
        if not start:
            raise
        traceback.print_exc()
    response = Response(b"".join(parts), start["status"])
    # Ray's proxy adds the same request id itself.
    response.raw_headers = [(name, value) for name, value in start["headers"] if name.lower() != b"x-request-id"]
    return response
