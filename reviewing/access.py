"""Who may use the page: a browser of this machine that was given the printed address, and no page of another site."""

import hmac
import secrets
import threading
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Access:
    """ASGI middleware: lets a token in once, and afterwards the cookie that it was exchanged for.

    A token that was used, or seen in a list of processes afterwards, opens nothing; the next one is printed.

    Args:
        app: What is protected.
        port: Of the server.
        on_token: Called with the address that holds the next token whenever one has been used.
    """

    def __init__(self, app: ASGIApp, port: int, on_token: Callable[[str], None]):
        self.app, self.port, self.on_token = app, port, on_token
        self.names = {f"127.0.0.1:{port}", f"localhost:{port}"} | ({"127.0.0.1", "localhost"} if port == 80 else set())
        # Browsers keep one jar of cookies for all ports of a host.
        self.cookie = f"review-{port}"
        self._secret = secrets.token_urlsafe(32)
        self._token = secrets.token_urlsafe(24)
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        """Where the page is, with a token that opens it once."""
        return f"http://127.0.0.1:{self.port}/?token={self._token}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        fault = self._foreign(scope, headers)
        knows = _same(HTTPConnection(scope).cookies.get(self.cookie, ""), self._secret)
        entered = not fault and not knows and self._enter(scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = MutableHeaders(scope=message)
                added.update(HEADERS)
                if entered:
                    added["Set-Cookie"] = f"{self.cookie}={self._secret}; Path=/; HttpOnly; SameSite=Strict"
            await send(message)

        if fault or not (knows or entered):
            code = fault or "token"
            await JSONResponse({"error": code, "detail": DETAILS[code]}, 403)(scope, receive, send_with_headers)
        else:
            await self.app(scope, receive, send_with_headers)
        if entered:
            self.on_token(self.address)

    def _enter(self, scope: Scope) -> bool:
        """Whether the request brings the token, which then is another one."""
        if scope["path"] != "/" or scope["method"] != "GET":
            return False
        given = QueryParams(scope["query_string"]).get("token", "")
        with self._lock:
            if not _same(given, self._token):
                return False
            self._token = secrets.token_urlsafe(24)
            return True

    def _foreign(self, scope: Scope, headers: Headers) -> str:
        """Why a request comes from another site, or by another name of this machine; "" if it does not."""
        if headers.get("host", "").lower() not in self.names:
            return "host"
        origin = headers.get("origin")
        if origin is not None and origin.lower() != f"http://{headers['host'].lower()}":
            return "origin"
        # The first visit may come by a link on any page, since it has to bring the token.
        is_visit = scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate"
        is_own = headers.get("sec-fetch-site", "none") in ("none", "same-origin")
        return "" if is_own or is_visit else "origin"


def _same(given: str, secret: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), secret.encode())


DETAILS = {
    "token": "open the address that review.py printed last; it holds a token for this page",
    "host": "this server is called 127.0.0.1 and localhost only, with the port that it listens on",
    "origin": "a page of another site sent this request; use the page of this server",
}
