"""Past one machine: the same predictor and the same /predict as a deployment of Ray Serve.

    serve run serving.ray_app:build folder=infer/NAME replicas=2        (`serve` is Ray's; in the project's folder)

Ray replaces what is in pool.py, process.py and server.py: it starts the replicas on any machine of a cluster, hands
requests out, gathers batches and replaces what dies. Ray is imported only here, once it is asked for.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.options import Options

# Requests that a replica holds, the batch among them; beyond it Ray lets them wait, then refuses with 503.
ONGOING, QUEUED = 64, 256


def build(arguments: Mapping[str, str]) -> Any:
    """Makes Ray Serve's application.

    Args:
        arguments: `folder`; and, with defaults, `replicas` (1), `threads` (1), `engine` (auto).
    """
    from ray import serve

    replicas, threads = int(arguments.get("replicas", 1)), int(arguments.get("threads", 1))
    deployment = serve.deployment(
        Classifier, name="classifier", num_replicas=replicas, ray_actor_options={"num_cpus": threads},
        max_ongoing_requests=ONGOING, max_queued_requests=QUEUED,
    )  # fmt: skip
    return deployment.bind(str(Path(arguments["folder"]).resolve()), threads, arguments.get("engine", "auto"))


class Classifier:
    """One replica: a model in a process of its own, as a worker of serve.py holds one."""

    def __init__(self, folder: str, threads: int, engine: str):
        import config
        from system import machine

        settings = config.load(None, [f"threads={threads}", f"engine={engine}"])
        machine.prepare(settings)
        from ray import serve

        from serving.batch_classifier import Judge
        from serving.monitoring import Monitor
        from serving.uploads import Uploads

        self.options = Options(Path(folder))
        self.judge = Judge(folder, settings, engine, self.options.max_pixels)
        self.uploads = Uploads(self.options, Monitor())
        batch, wait = self.options.max_batch, self.options.max_wait_ms / 1000
        self.gather = serve.batch(max_batch_size=batch, batch_wait_timeout_s=wait)(self._gather)

    async def _gather(self, images: list[tuple[str, bytes]]) -> list[dict[str, Any]]:
        import asyncio

        from serving.app import TOP

        jobs = [{"kind": "classify", "name": name, "top": TOP} for name, _ in images]
        return await asyncio.to_thread(self.judge.answer, jobs, [data for _, data in images])

    async def __call__(self, request: Any) -> Any:
        """Answers `POST /predict` as serve.py does."""
        import asyncio

        from starlette.responses import JSONResponse

        from serving.app import answer_form
        from serving.worker_pool import RefusalError

        try:
            async with self.uploads.held(request) as body:
                upload = await body.images()
                images = zip(upload.names, upload.files, strict=True)
                told = await asyncio.gather(*(self.gather(one) for one in images))
        except RefusalError as error:
            return JSONResponse({"error": error.told}, error.status)
        answer, status = answer_form(self.judge.about()["name"], upload.names, told)
        return JSONResponse(answer, status)
