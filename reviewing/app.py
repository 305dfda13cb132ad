"""The HTTP application: the page, the images, and the decisions."""

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from reviewing.decisions import Choice, DecisionError
from reviewing.rendering import SIDES, Renderer
from reviewing.session import Session
from system.errors import UserError
from system.pages import SHARED

PAGE = Path(__file__).parent / "page"
# Decisions about some thousand images at once.
MOST_BYTES = 8 << 20
# Images that are decoded at a time: each may take the memory of max_pixels.
DECODERS = 2


def build(session: Session, renderer: Renderer) -> Starlette:
    """Builds the application, without the check of who may use it (access.Access)."""
    return Starlette(routes=[*_reading(session, renderer), *_deciding(session), *_page()])


def _reading(session: Session, renderer: Renderer) -> list[Route]:
    decoders = ThreadPoolExecutor(DECODERS, "decode")

    async def content(request: Request) -> Response:
        return await _answer(session.content)

    async def changes(request: Request) -> Response:
        version = _integer(request.query_params.get("version"))

        def answer() -> dict[str, Any]:
            session.decisions.refresh()
            return session.changes(version)

        return await _answer(answer)

    async def image(request: Request) -> Response:
        entry, side = session.entry(request.query_params.get("path", "")), _integer(request.query_params.get("side"))
        if entry is None or side not in SIDES:
            return JSONResponse({"error": "no_image", "detail": ""}, 404)
        made = await asyncio.get_running_loop().run_in_executor(decoders, renderer.render, entry.file, side)
        headers = {"X-Digest": made.digest}
        if made.error:
            return JSONResponse({"error": "broken", "detail": made.error}, 422, headers)
        return Response(made.content, media_type=made.media_type, headers=headers)

    return [Route("/review", content), Route("/changes", changes), Route("/image", image)]


def _deciding(session: Session) -> list[Route]:
    async def decide(request: Request) -> Response:
        body = await _body(request)
        try:
            version, page = int(body["version"]), str(body["page"])
            choices = [Choice(*(one[key] for key in ("path", "digest", "action", "class"))) for one in body["choices"]]
            known = all(session.entry(choice.path) for choice in choices)
        except (KeyError, TypeError, ValueError):
            return JSONResponse({"error": "malformed", "detail": ""}, 400)
        if not known:
            return JSONResponse({"error": "no_image", "detail": ""}, 404)

        def answer() -> dict[str, Any]:
            session.decisions.decide(choices, version, page)
            return session.changes(version)

        return await _answer(answer, lambda: session.changes(version))

    async def undo(request: Request) -> Response:
        body = await _body(request)
        version = _integer(body.get("version"))

        def answer() -> dict[str, Any]:
            undone = session.decisions.undo(str(body.get("page")))
            return {"undone": undone, **session.changes(version)}

        return await _answer(answer, lambda: session.changes(version))

    return [Route("/decide", decide, methods=["POST"]), Route("/undo", undo, methods=["POST"])]


def _page() -> list[Route]:
    """A route for each file of the page."""

    def route(path: str, file: Path) -> Route:
        async def serve_file(request: Request) -> Response:
            return FileResponse(file)

        return Route(path, serve_file)

    files = [*sorted(PAGE.iterdir()), *sorted(SHARED.iterdir())]
    return [route("/", PAGE / "review.html"), *(route(f"/{file.name}", file) for file in files)]


async def _answer(answer: Callable[[], dict[str, Any]], changes: Callable[[], dict[str, Any]] = dict) -> Response:
    """Answers in a thread, since files are read and written; a refusal says what has changed meanwhile."""

    def run() -> Response:
        try:
            return JSONResponse(answer())
        except DecisionError as error:
            content = {"error": error.code, "paths": error.paths, "detail": error.detail}
            return JSONResponse(changes() | content, 507 if error.code == "unwritable" else 409)
        except UserError as error:
            return JSONResponse({"error": "table", "detail": str(error)}, 503)

    return await asyncio.to_thread(run)


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object that a request brings; empty if it is none."""
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > MOST_BYTES:
            return {}
    # A page of another site can send any other type without asking.
    is_json = request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"
    try:
        body = json.loads(data) if is_json else None
    except (ValueError, RecursionError):
        body = None
    return body if isinstance(body, dict) else {}


def _integer(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return 0
