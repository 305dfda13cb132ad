"""The routes: what is asked for over HTTP, and the form of the answers."""

import asyncio
import time
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from serving import paddlex_protocol
from serving.access import Access
from serving.monitoring import Monitor
from serving.options import Options
from serving.relabel import Relabel
from serving.uploads import Upload, Uploads, clean
from serving.worker_pool import Pool, RefusalError, late

PAGE = Path(__file__).parent / "page"
TOP = 5
# A note about a wrong answer is a few lines.
NOTE_BYTES = 16_384
_FORM = {"type": "object", "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}}}
_IMAGE = {"schema": {"type": "string", "format": "binary"}}
_PREDICT = {"content": {"multipart/form-data": {"schema": _FORM}, "image/jpeg": _IMAGE}}
_EXPLAIN = {"type": "object", "properties": {"file": _IMAGE["schema"], "class": {"type": "string"}}}
_PADDLEX = {
    "type": "object", "required": ["image"],
    "properties": {"image": {"type": "string"}, "topk": {"type": "integer"}, "visualize": {"type": "boolean"}},
}  # fmt: skip
_NOTE = {"type": "object", "properties": {name: {"type": "string"} for name in ("file", "digest", "class", "note")}}


def _takes(content: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, **content}}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return _takes({"content": {"application/json": {"schema": schema}}})


class Service:
    """Everything a route needs.

    Attributes:
        explainer: The pool that draws Grad-CAM; None where no run is at hand.
    """

    def __init__(self, options: Options, monitor: Monitor, pool: Pool, explainer: Pool | None):
        self.options, self.monitor, self.pool, self.explainer = options, monitor, pool, explainer
        self.uploads = Uploads(options, monitor)
        self.relabel = Relabel(options.relabel_file) if options.relabel_file else None

    async def judge(
        self, pool: Pool, request: Request, heads: list[dict[str, Any]], files: list[bytes]
    ) -> list[dict[str, Any]]:
        """Has images judged, unless the client goes first.

        Raises:
            RefusalError: The queue is full, or the deadline has come.
            ClientDisconnect: Nobody waits any more.
        """
        deadline = time.monotonic() + self.options.deadline_seconds
        jobs = pool.submit(heads, files, deadline)
        answers = asyncio.gather(*(job.answer for job in jobs), return_exceptions=True)
        gone = asyncio.create_task(_disconnected(request))
        try:
            left = deadline - time.monotonic()
            await asyncio.wait({answers, gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if answers.done():
                return [job.answer.result() for job in jobs]
            raise ClientDisconnect() if gone.done() else late(self.options.deadline_seconds)
        finally:
            gone.cancel()
            for job in jobs:
                job.answer.cancel()
                job.data = b""

    def about(self) -> dict[str, Any]:
        """The answer to `GET /model`."""
        options = self.options
        limits = {"body_mb": options.max_body_mb, "files": options.max_files, "pixels": options.max_pixels}
        explains = self.explainer is not None and self.explainer.about.get("classes") == self.pool.about.get("classes")
        told = {"gradcam": explains, "relabel": self.relabel is not None, "limits": limits}
        return self.pool.about | told


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def result(name: str, told: dict[str, Any]) -> dict[str, Any]:
    """The form of one image's answer."""
    if "error" in told:
        return {"file": name, "error": told["error"]}
    best = [{"class": one, "probability": probability} for _, one, probability in told["top"]]
    refused = told["none_of_these"]
    named = {"class": None if refused else best[0]["class"], "probability": best[0]["probability"]}
    return {"file": name, **named, "none_of_these": refused, "top": best}


def answer_form(model: str, names: list[str], told: list[dict[str, Any]]) -> tuple[dict[str, Any], int]:
    """The form of a request's answer, and its HTTP status: 400 where no file was an image."""
    answer = {"model": model, "results": [result(name, one) for name, one in zip(names, told, strict=True)]}
    if any("error" not in one for one in told):
        return answer, 200
    error = told[0]["error"] if len(told) == 1 else f"no image among these; {told[0]['error']}"
    return answer | {"error": error}, 400


def build(options: Options, monitor: Monitor, pool: Pool, explainer: Pool | None) -> Access:
    """Puts the application together."""
    service = Service(options, monitor, pool, explainer)
    app = FastAPIOffline(
        title="Image classification", description=f"The exported model {options.folder.resolve().name}.", version="1",
        docs_url="/docs", redoc_url=None,
    )  # fmt: skip
    _add_predictions(app, service)
    _add_extras(app, service)
    _add_state(app, service)
    page = _add_page(app)
    _add_errors(app)
    known = {route.path for route in app.routes if "{" not in route.path}
    return Access(app, options.token, {"/healthz", "/readyz", *page}, known, monitor)


def _add_predictions(app: FastAPI, service: Service) -> None:
    @app.post("/predict", openapi_extra=_takes(_PREDICT), summary="Name what images show")
    async def predict(request: Request) -> Response:
        began = time.perf_counter()
        service.pool.check()
        async with service.uploads.held(request) as body:
            upload = await body.images()
            heads = [{"kind": "classify", "name": name, "top": TOP} for name in upload.names]
            told = await service.judge(service.pool, request, heads, upload.files)
        answer, status = answer_form(service.pool.about["name"], upload.names, told)
        taken = round(1000 * (time.perf_counter() - began), 1)
        return JSONResponse({"model": answer.pop("model"), "milliseconds": taken} | answer, status)

    @app.post(paddlex_protocol.PATH, openapi_extra=_json(_PADDLEX), summary="The same in the form of PaddleX's serving")
    async def image_classification(request: Request) -> Response:
        service.pool.check()
        async with service.uploads.held(request) as body:
            head = {"kind": "paddlex", "name": "image", "top": paddlex_protocol.TOP_K}
            (told,) = await service.judge(service.pool, request, [head], [await body.read()])
        if "error" in told:
            return JSONResponse(paddlex_protocol.error(told["status"], told["error"]), told["status"])
        return JSONResponse(paddlex_protocol.answer(told, told["image"]))


def _add_extras(app: FastAPI, service: Service) -> None:
    @app.post("/gradcam", openapi_extra=_takes({"content": {"multipart/form-data": {"schema": _EXPLAIN}}}),
              summary="Show which parts of an image speak for a class")  # fmt: skip
    async def gradcam(request: Request) -> Response:
        if not service.about()["gradcam"]:
            raise RefusalError(404, "no run of this model is at hand; start serve.py with --run")
        service.explainer.check()
        async with service.uploads.held(request) as body:
            upload: Upload = await body.images()
            if len(upload.files) != 1:
                raise RefusalError(400, "one image is explained at a time; send one file")
            name = upload.fields.get("class", "")
            if name and name not in service.pool.about["classes"]:
                raise RefusalError(400, f"class {clean(name)!r}: no class of this model; see /model")
            head = {"name": upload.names[0], "class": name}
            (told,) = await service.judge(service.explainer, request, [head], upload.files)
        if "error" in told:
            raise RefusalError(told["status"], told["error"])
        return Response(told["image"], media_type="image/png")

    @app.post("/relabel", openapi_extra=_json(_NOTE), summary="Note a wrong answer")
    async def relabel(request: Request) -> Response:
        if service.relabel is None:
            raise RefusalError(404, "wrong answers are not noted here; start serve.py with --relabel-file")
        async with service.uploads.held(request) as body:
            note = service.relabel.read(await body.read(NOTE_BYTES), service.pool.about.get("classes", []))
        await asyncio.to_thread(service.relabel.add, note, service.pool.about.get("name", ""))
        return JSONResponse({"noted": True})


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/model", summary="What is served, and its limits")
    async def model() -> Response:
        if not service.pool.about:
            raise RefusalError(503, "the model is not loaded yet; try again in a moment", 2)
        return JSONResponse(service.about())

    @app.get("/healthz", summary="Whether the server lives")
    async def healthz() -> Response:
        return JSONResponse({"alive": True})

    @app.get("/readyz", summary="Whether it takes images")
    async def readyz() -> Response:
        return JSONResponse({"ready": service.pool.ready}, 200 if service.pool.ready else 503)

    @app.get("/metrics", summary="Figures for Prometheus")
    async def metrics() -> Response:
        return Response(service.monitor.page(), media_type=service.monitor.content_type)


def _add_page(app: FastAPI) -> list[str]:
    paths = []
    for file in sorted(PAGE.rglob("*")):
        if file.is_file():
            name = file.relative_to(PAGE).as_posix()
            paths += [f"/{name}"] if name != "index.html" else ["/", "/index.html"]

            async def serve(file: Path = file) -> Response:
                return FileResponse(file)

            for path in paths[-1 if name != "index.html" else -2 :]:
                app.add_api_route(path, serve, methods=["GET", "HEAD"], include_in_schema=False)
    return paths


def _add_errors(app: FastAPI) -> None:
    def answer(request: Request, status: int, told: str, headers: dict[str, str] | None = None) -> Response:
        paddlex = request.url.path == paddlex_protocol.PATH
        return JSONResponse(paddlex_protocol.error(status, told) if paddlex else {"error": told}, status, headers)

    @app.exception_handler(RefusalError)
    async def refused(request: Request, error: RefusalError) -> Response:
        # A body that was not read to its end stands in the way of another request on this connection.
        close = {"Connection": "close"} if error.status in (408, 413, 415) else {}
        again = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
        return answer(request, error.status, error.told, close | again)

    @app.exception_handler(HTTPException)
    async def mistaken(request: Request, error: HTTPException) -> Response:
        told = {404: "there is nothing here; see /docs", 405: f"not with {request.method}; see /docs"}
        return answer(request, error.status_code, told.get(error.status_code, str(error.detail)), error.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return answer(request, 500, "the server failed over this request; its log says why")
