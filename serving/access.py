"""What stands around every request: the token, headers that browsers obey, counting, and errors without traces."""

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
# The page of the interface runs a script that stands in it.
DOCS_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; frame-ancestors 'none'"
)


class Access:
    """ASGI middleware around the whole application.

    Args:
        public: Paths that need no token.
        known: Paths that are counted by name; all others count as one, so that a scan makes no thousand series.
    """

    def __init__(self, app: ASGIApp, token: str, public: Collection[str], known: Collection[str], monitor: Monitor):
        self.app, self.public, self.known, self.monitor = app, public, known, monitor
        self.token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path, began, code = scope["path"], time.perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if path == "/docs":
                    headers["Content-Security-Policy"] = DOCS_POLICY
            await send(message)

        try:
            if self.admits(scope):
                await self.app(scope, receive, watched)
            else:
                told = {"error": "a token is needed; send Authorization: Bearer TOKEN with the server's own"}
                await JSONResponse(told, 401, {"WWW-Authenticate": "Bearer"})(scope, receive, watched)
        finally:
            name = path if path in self.known else "other"
            self.monitor.requests.labels(name, code).inc()
            self.monitor.latency.labels(name).observe(time.perf_counter() - began)

    def admits(self, scope: Scope) -> bool:
        """Compares the token in constant time; without one everybody is let in."""
        if not self.token or scope["path"] in self.public:
            return True
        kind, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode("utf-8", "replace"), self.token)
