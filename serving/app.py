"""The HTTP application: routes, the page, and error responses."""

import asyncio
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.telemetry import TelemetryConfig
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Mount, Route

from serving import paddlex_protocol
from serving.access_log import AccessLog
from serving.messages import HeatMap, Prediction, Task
from serving.middleware import EXCHANGE, Middleware, Names
from serving.monitoring import Monitor
from serving.options import Options
from serving.refusal import RefusalError
from serving.responses import predict_response
from serving.service import Pool, Service
from serving.shadow import Shadow
from serving.uploads import Upload, clean
from system.pages import SHARED

PAGE = Path(__file__).parent / "page"
# A label report is a few lines.
REPORT_BYTES = 16_384
_FORM = {"type": "object", "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}}}
_IMAGE = {"schema": {"type": "string", "format": "binary"}}
_PREDICT = {"content": {"multipart/form-data": {"schema": _FORM}, "image/jpeg": _IMAGE}}
_GRADCAM = {"type": "object", "properties": {"file": _IMAGE["schema"], "class": {"type": "string"}}}
_PADDLEX = {
    "type": "object", "required": ["image"],
    "properties": {"image": {"type": "string"}, "topk": {"type": "integer"}, "visualize": {"type": "boolean"}},
}  # fmt: skip
_REPORT = {"type": "object", "properties": {name: {"type": "string"} for name in ("file", "digest", "class", "note")}}


def _body(content: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, **content}}


def _json_body(schema: dict[str, Any]) -> dict[str, Any]:
    return _body({"content": {"application/json": {"schema": schema}}})


# Spans are sent where OTEL_EXPORTER_OTLP_ENDPOINT says so and requirements-tracing.txt is installed. Metrics and logs
# stay ours.
TELEMETRY = TelemetryConfig(auto_configure=True, operation_spans=False, metrics=False, logs=False)


def build(
    options: Options,
    monitor: Monitor,
    classifiers: Pool,
    explainers: Pool | None,
    shadow: Shadow | None = None,
    access_log: AccessLog | None = None,
) -> Middleware:
    """Builds the application."""
    service = Service(options, monitor, classifiers, explainers, shadow)
    app = FastAPIOffline(
        title="Image classification", description=f"The exported model {options.folder.resolve().name}.", version="1",
        docs_url="/docs", redoc_url=None, redirect_slashes=False, telemetry=TELEMETRY,
    )  # fmt: skip
    _add_predict(app, service)
    _add_paddlex(app, service)
    _add_gradcam(app, service)
    _add_relabel(app, service)
    _add_state(app, service)
    page = _add_page(app)
    _add_errors(app)
    known = {route.path for route in app.routes if isinstance(route, Route | Mount) and "{" not in route.path}
    names = Names(options.host, options.allowed_host)
    return Middleware(
        app, options.token, names, {"/healthz", "/readyz", *page}, known, monitor, lambda: classifiers.is_draining,
        access_log, options.metrics_token,
    )  # fmt: skip


def _add_predict(app: FastAPI, service: Service) -> None:
    @app.post("/predict", openapi_extra=_body(_PREDICT), summary="Classify images")
    async def predict(request: Request) -> Response:
        start = time.perf_counter()
        service.classifiers.check()
        async with service.uploads.hold(request) as body:
            upload = await body.images()
            tasks = [Task(name) for name in upload.names]
            before = service.classifiers.model_info
            results = await service.process(service.classifiers, request, tasks, upload.files)
        info = service.classifiers.model_info
        content, status = predict_response(info["name"], upload.names, results)
        # Either model may have been used where one took over meanwhile.
        digest = info.get("digest") if info is before else None
        milliseconds = round(1000 * (time.perf_counter() - start), 1)
        head = {"model": content.pop("model"), "digest": digest, "milliseconds": milliseconds}
        return JSONResponse(head | content, status)


def _add_paddlex(app: FastAPI, service: Service) -> None:
    @app.post(paddlex_protocol.PATH, openapi_extra=_json_body(_PADDLEX), summary="Classify an image, as PaddleX does")
    async def image_classification(request: Request) -> Response:
        service.classifiers.check()
        async with service.uploads.hold(request) as body:
            task = Task("image", paddlex=True, top_k=paddlex_protocol.TOP_K)
            (result,) = await service.process(service.classifiers, request, [task], [await body.read()])
        if isinstance(result, RefusalError):
            raise result
        assert isinstance(result, Prediction)
        return JSONResponse(paddlex_protocol.response(result))


def _add_gradcam(app: FastAPI, service: Service) -> None:
    @app.post("/gradcam", openapi_extra=_body({"content": {"multipart/form-data": {"schema": _GRADCAM}}}),
              summary="Show which parts of an image speak for a class")  # fmt: skip
    async def gradcam(request: Request) -> Response:
        if service.explainers is None or not service.can_explain:
            raise RefusalError(404, "there is no run of this model; start serve.py with --run")
        service.explainers.check()
        async with service.uploads.hold(request) as body:
            upload: Upload = await body.images()
            if len(upload.files) != 1:
                raise RefusalError(400, "one image is explained at a time; send one file")
            name = upload.fields.get("class", "")
            if name and name not in service.classifiers.model_info["classes"]:
                raise RefusalError(400, f"class {clean(name)!r}: the model has no such class; see /model")
            task = Task(upload.names[0], class_name=name)
            (result,) = await service.process(service.explainers, request, [task], upload.files)
        if isinstance(result, RefusalError):
            raise result
        assert isinstance(result, HeatMap)
        return Response(result.image, media_type="image/png")


def _add_relabel(app: FastAPI, service: Service) -> None:
    @app.post("/relabel", openapi_extra=_json_body(_REPORT), summary="Report a wrong prediction")
    async def relabel(request: Request) -> Response:
        if service.reports is None:
            raise RefusalError(404, "this server takes no label reports; start serve.py with --relabel-file")
        model = service.classifiers.model_info
        # A page of another site can send any other type without asking.
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise RefusalError(415, "a report is JSON; send it with Content-Type: application/json")
        async with service.uploads.hold(request) as body:
            report = service.reports.parse(await body.read(REPORT_BYTES), model.get("classes", []))
        await asyncio.to_thread(service.reports.append, report, model.get("name", ""))
        return JSONResponse({"noted": True})


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/model", summary="The model served, and the limits of requests")
    async def model() -> Response:
        if not service.classifiers.model_info:
            raise RefusalError(503, "the model is still loading; try again in a moment", 2)
        return JSONResponse(service.model_info())

    @app.get("/healthz", summary="Liveness: the server responds")
    async def healthz() -> Response:
        return JSONResponse({"alive": True})

    @app.get("/readyz", summary="Readiness: the server accepts images")
    async def readyz() -> Response:
        ready = service.classifiers.ready
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    @app.get("/metrics", summary="Prometheus metrics")
    async def metrics() -> Response:
        return Response(service.monitor.exposition(), media_type=service.monitor.content_type)


def _add_page(app: FastAPI) -> list[str]:
    """Adds a route for each file of the page; returns their paths."""
    paths = []
    for file in (*sorted(PAGE.iterdir()), *sorted(SHARED.iterdir())):

        async def serve_file(file: Path = file) -> Response:
            return FileResponse(file)

        name = f"/{file.name}"
        for path in ["/", name] if name == "/index.html" else [name]:
            app.add_api_route(path, serve_file, methods=["GET", "HEAD"], include_in_schema=False)
            paths.append(path)
    return paths


def _add_errors(app: FastAPI) -> None:
    def error_response(
        request: Request, status: int, message: str, headers: Mapping[str, str] | None = None
    ) -> Response:
        is_paddlex = request.url.path == paddlex_protocol.PATH
        content = paddlex_protocol.error(status, message) if is_paddlex else {"error": message}
        return JSONResponse(content, status, headers)

    @app.exception_handler(RefusalError)
    async def on_refusal(request: Request, error: RefusalError) -> Response:
        # The unread rest of a body would be taken for the connection's next request.
        close = {"Connection": "close"} if error.status in (408, 413, 415) else {}
        retry = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
        return error_response(request, error.status, error.message, close | retry)

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> Response:
        messages = {404: "no such path; see /docs", 405: f"{request.method} is not allowed here; see /docs"}
        message = messages.get(error.status_code, str(error.detail))
        return error_response(request, error.status_code, message, error.headers)

    @app.exception_handler(ClientDisconnect)
    async def on_disconnect(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)

    @app.exception_handler(Exception)
    async def on_failure(request: Request, error: Exception) -> Response:
        print(f"serve: request {request.scope[EXCHANGE].id} failed, see below", file=sys.stderr, flush=True)
        return error_response(request, 500, "internal error; see the server's log")
