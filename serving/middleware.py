"""HTTP middleware: token check, request ids, security headers, metrics and the access log around every request."""

import hmac
from collections.abc import Callable, Collection

from opentelemetry import trace
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.access_log import AccessLog, Exchange
from serving.monitoring import Monitor

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    ),
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


# Where a request's scope holds its Exchange.
EXCHANGE = "serve.exchange"
# For kubelets and Prometheus, which come by address.
BY_ADDRESS = frozenset({"/healthz", "/readyz", "/metrics"})
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
# Addresses that stand for every address of the machine.
WILDCARDS = frozenset({"", "0.0.0.0", "::"})


class Names:
    """The names that a browser may reach this server by; others are another site's, pointed here (DNS rebinding).

    Args:
        bound: The address that the server listens on; of a wildcard, every name is right unless some are given.
        given: Names beside it.
    """

    def __init__(self, bound: str, given: Collection[str]):
        self.any = bound in WILDCARDS and not given
        names = {bound, *given} | (LOCAL_NAMES if bound in WILDCARDS | LOCAL_NAMES else frozenset())
        self.names = {name.lower() for name in names}

    def has(self, authority: str) -> bool:
        """Whether a Host header, NAME or NAME:PORT, is one of them."""
        name = authority.strip().lower()
        name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
        return self.any or name.rstrip(".") in self.names


class Middleware:
    """ASGI middleware around the whole application.

    Args:
        names: Those that the server may be reached by.
        public_paths: Paths that need no token.
        is_draining: Whether the server is shutting down.
        metrics_token: As in Options.
        known_paths: Paths counted by name; all others count as one, so that a scanner does not create thousands of
            time series.
    """

    def __init__(
        self,
        app: ASGIApp,
        token: str,
        names: Names,
        public_paths: Collection[str],
        known_paths: Collection[str],
        monitor: Monitor,
        is_draining: Callable[[], bool] = lambda: False,
        access_log: AccessLog | None = None,
        metrics_token: str | None = None,
    ):
        self.names, self.is_draining, self.access_log = names, is_draining, access_log
        self.app, self.public_paths, self.known_paths, self.monitor = app, public_paths, known_paths, monitor
        self.tokens = [token.encode()] if token else []
        self.metrics_tokens = self.tokens + ([metrics_token.encode()] if metrics_token else [])
        if metrics_token == "":
            self.metrics_tokens = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = Exchange(scope)
        is_head = scope["method"] == "HEAD"
        # Every path that answers GET answers HEAD, with the same head.
        scope = {**scope, EXCHANGE: exchange} | ({"method": "GET"} if is_head else {})

        async def counting_receive() -> Message:
            message = await receive()
            exchange.bytes_in += len(message.get("body", b""))
            return message

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                exchange.note_trace(trace.get_current_span())
                headers = MutableHeaders(scope=message)
                _add_headers(headers, exchange)
                if self.is_draining():
                    # The client's next request would meet a closed connection.
                    headers["Connection"] = "close"
            elif is_head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        try:
            await self._respond(scope, counting_receive, send_with_headers)
        finally:
            label = exchange.path if exchange.path in self.known_paths else "other"
            self.monitor.requests.labels(label, exchange.status).inc()
            self.monitor.latency.labels(label).observe(exchange.seconds)
            if self.access_log is not None:
                self.access_log.write(exchange.line())

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        if refusal := self.refusal(scope):
            await JSONResponse({"error": refusal}, 403, {"Connection": "close"})(scope, receive, send)
        elif self.is_authorized(scope):
            await self.app(scope, receive, send)
        else:
            content = {"error": "a token is required; send Authorization: Bearer TOKEN"}
            await JSONResponse(content, 401, {"WWW-Authenticate": "Bearer"})(scope, receive, send)

    def refusal(self, scope: Scope) -> str:
        """Why a browser's request is another site's; "" if it is not."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if scope["path"] not in BY_ADDRESS and host and not self.names.has(host):
            return f"Host {host[:100]}: this server has another name; start it with --allowed-host NAME"
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return ""
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return "a page of another site sent this request; use the page of this server"
        origin = headers.get("origin", "")
        # The host that a browser's page is from; programs send none.
        if origin and origin.partition("://")[2].lower() != host.lower():
            return f"Origin {origin[:100]}: a page of another site sent this request; use the page of this server"
        return ""

    def is_authorized(self, scope: Scope) -> bool:
        """Compares the token in constant time; a server without one admits everybody."""
        wanted = self.metrics_tokens if scope["path"] == "/metrics" else self.tokens
        if not wanted or scope["path"] in self.public_paths:
            return True
        scheme, _, text = Headers(scope=scope).get("authorization", "").partition(" ")
        given = text.strip().encode("utf-8", "replace")
        return scheme.lower() == "bearer" and any(hmac.compare_digest(given, token) for token in wanted)


def _add_headers(headers: MutableHeaders, exchange: Exchange) -> None:
    headers["X-Request-Id"] = exchange.id
    for name, value in HEADERS.items():
        headers.setdefault(name, value)
    if exchange.path == "/docs":
        headers["Content-Security-Policy"] = DOCS_POLICY
