"""Connections: how many there may be, and how long one may take to say what it wants."""

import asyncio
import contextlib
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from serving.options import Options

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

# Files that the server needs besides connections: workers' pipes, the model, libraries.
RESERVED = 200
# macOS says that there is no limit, and refuses more than its OPEN_MAX.
MOST_ON_MACOS = 10240
# A connection that has not sent a request's head by then is closed.
HEAD_SECONDS = 10.0


def raise_file_limit() -> None:
    """Raises the number of files that the process may open to what the system allows it."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for most in (hard, max(soft, MOST_ON_MACOS)):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            return


def _most(options: Options) -> int:
    """Connections that fit: accept() without a free file would fail, and be logged, thousands of times a second."""
    if resource is None:
        return options.max_connections
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return options.max_connections if soft < 0 else max(1, min(options.max_connections, soft - RESERVED))


class Connection(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """A connection that is closed at once where there are too many, and soon where it sends no head.

    Attributes:
        most: Connections at a time.
    """

    most = 1
    timer: asyncio.TimerHandle | None = None
    is_refused = False

    def connection_made(self, transport: Any) -> None:
        """Called by asyncio for a new connection."""
        if len(self.connections) >= self.most:
            self.is_refused = True
            transport.abort()
            return
        super().connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio for what arrives."""
        if not self.is_refused:
            super().data_received(data)
            self._wait_for_head()

    def eof_received(self) -> None:
        """Called by asyncio when the client sends no more."""
        if not self.is_refused:
            super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio at the end."""
        if self.timer:
            self.timer.cancel()
        if not self.is_refused:
            super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        # Once a head is there its connection is left alone: uvicorn closes those that are idle after a response.
        if not self._is_between_requests():
            if self.timer:
                self.timer.cancel()
                self.timer = None
        elif self.timer is None:
            self.timer = self.loop.call_later(HEAD_SECONDS, self._close_without_head)

    def _is_between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _close_without_head(self) -> None:
        self.timer = None
        if self._is_between_requests() and not self.transport.is_closing():
            self.transport.close()


def connection_class(options: Options) -> type[asyncio.Protocol]:
    """Returns uvicorn's class of connections with these limits."""
    return type("LimitedConnection", (Connection,), {"most": _most(options)})
