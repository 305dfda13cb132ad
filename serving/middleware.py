"""HTTP middleware: token check, security headers, and metrics around every request."""

import hmac
import time
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.monitoring import Monitor

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
# The page at /docs runs an inline script.
DOCS_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; frame-ancestors 'none'"
)


class Middleware:
    """ASGI middleware around the whole application.

    Args:
        public_paths: Paths that need no token.
        known_paths: Paths counted by name; all others count as one, so that a scanner does not create thousands of
            time series.
    """

    def __init__(
        self, app: ASGIApp, token: str, public_paths: Collection[str], known_paths: Collection[str], monitor: Monitor
    ):
        self.app, self.public_paths, self.known_paths, self.monitor = app, public_paths, known_paths, monitor
        self.token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path, start, status = scope["path"], time.perf_counter(), 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(MutableHeaders(scope=message), path)
            await send(message)

        try:
            if self.is_authorized(scope):
                await self.app(scope, receive, send_with_headers)
            else:
                content = {"error": "a token is required; send Authorization: Bearer TOKEN"}
                await JSONResponse(content, 401, {"WWW-Authenticate": "Bearer"})(scope, receive, send_with_headers)
        finally:
            label = path if path in self.known_paths else "other"
            self.monitor.requests.labels(label, status).inc()
            self.monitor.latency.labels(label).observe(time.perf_counter() - start)

    def is_authorized(self, scope: Scope) -> bool:
        """Compares the token in constant time; a server without one admits everybody."""
        if not self.token or scope["path"] in self.public_paths:
            return True
        scheme, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode("utf-8", "replace"), self.token)


def _add_headers(headers: MutableHeaders, path: str) -> None:
    for name, value in HEADERS.items():
        headers.setdefault(name, value)
    if path == "/docs":
        headers["Content-Security-Policy"] = DOCS_POLICY
