"""Ray Serve deployment, for more than one machine: the same model and the same /predict.

    serve run serving.ray_app:build folder=infer/NAME replicas=2        (`serve` is Ray's; in the project's folder)

Ray replaces worker_pool.py, worker_process.py and server.py: it starts replicas on any machine of a cluster, routes
requests, gathers batches and replaces what dies.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi import Request
from starlette.responses import JSONResponse, Response

import config
from serving.messages import Data, Deferred, Result, Task
from serving.monitoring import Monitor
from serving.options import Options
from serving.refusal import RefusalError
from serving.responses import predict_response
from serving.uploads import Uploads
from system import machine, optional

# Requests that a replica holds, its batch among them; beyond it Ray queues requests, then refuses them with 503.
MAX_ONGOING, MAX_QUEUED = 64, 256


def _ray_serve() -> Any:
    return optional.load("ray.serve", "serving.ray_app", '"ray[serve]"')


def build(arguments: Mapping[str, str]) -> Any:
    """Builds Ray Serve's application.

    Args:
        arguments: `folder`; and, with defaults, `replicas` (1), `threads` (1), `engine` (auto).
    """
    replicas, threads = int(arguments.get("replicas", 1)), int(arguments.get("threads", 1))
    deployment = _ray_serve().deployment(
        Classifier, name="classifier", num_replicas=replicas, ray_actor_options={"num_cpus": threads},
        max_ongoing_requests=MAX_ONGOING, max_queued_requests=MAX_QUEUED,
    )  # fmt: skip
    return deployment.bind(str(Path(arguments["folder"]).resolve()), threads, arguments.get("engine", "auto"))


class Classifier:
    """One replica: a model in a process of its own, like a worker of serve.py."""

    def __init__(self, folder: str, threads: int, engine: str):
        settings = config.load(None, [f"threads={threads}", f"engine={engine}"])
        machine.prepare(settings)
        from serving.batch_classifier import BatchClassifier

        self.options = Options(Path(folder))
        self.model = BatchClassifier(folder, settings, engine, self.options.max_pixels)
        self.uploads = Uploads(self.options, Monitor())
        size, seconds = self.options.max_batch, self.options.max_wait_ms / 1000
        self.classify = _ray_serve().batch(max_batch_size=size, batch_wait_timeout_s=seconds)(self._classify_batch)

    async def _classify_batch(self, images: list[tuple[str, Data]]) -> list[Result]:
        return await asyncio.to_thread(self._run, images)

    def _run(self, images: list[tuple[str, Data]]) -> list[Result]:
        tasks, files = [Task(name) for name, _ in images], [bytes(data) for _, data in images]
        results = zip(tasks, files, self.model.run(tasks, files), strict=True)
        # Heavy images come again, one by one.
        return [
            self.model.run([replace(task, is_deferred=True)], [data])[0] if isinstance(result, Deferred) else result
            for task, data, result in results
        ]

    async def __call__(self, request: Request) -> Response:
        """Handles `POST /predict` as serve.py does."""
        try:
            async with self.uploads.hold(request) as body:
                upload = await body.images()
                images = zip(upload.names, upload.files, strict=True)
                results = await asyncio.gather(*(self.classify(image) for image in images))
        except RefusalError as error:
            return JSONResponse({"error": error.message}, error.status)
        content, status = predict_response(self.model.model_info()["name"], upload.names, results)
        return JSONResponse(content, status)
