"""Access log: one JSON object per request, written by a thread of its own, so that a slow disk delays no response."""

import datetime
import ipaddress
import json
import queue
import re
import threading
import time
import uuid
from typing import Any

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers
from starlette.types import Scope

from serving.monitoring import Monitor
from serving.uploads import clean
from system.errors import UserError

STDOUT = "-"
# Lines that may wait for the disk, or for whoever reads stdout; further ones are dropped and counted.
MOST_WAITING = 10_000
# So long the last lines may take at the end, in seconds.
CLOSE_SECONDS = 5.0
REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


class Exchange:
    """One request and its response, as the access log shows them.

    Attributes:
        id: The client's X-Request-Id where it is one, else a new one.
        trace_id: That of the client's traceparent, or of the span that is exported; "": there is none.
        bytes_in: Bytes of the body that were received.
        images: Images that were given to the workers.
    """

    def __init__(self, scope: Scope):
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        self.id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        self.method, self.path, self.client = scope["method"], scope["path"], _address(scope)
        self.trace_id, self.status, self.bytes_in, self.images = "", 500, 0, 0
        self.note_trace(trace.get_current_span(TraceContextTextMapPropagator().extract(headers)))
        self.started = time.perf_counter()

    def note_trace(self, span: trace.Span) -> None:
        """Notes the trace of a span, if it has one."""
        context = span.get_span_context()
        if context.is_valid:
            self.trace_id = trace.format_trace_id(context.trace_id)

    @property
    def seconds(self) -> float:
        """Time since the head of the request."""
        return time.perf_counter() - self.started

    def line(self) -> str:
        """The log's JSON; neither headers nor the query, which may hold secrets."""
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
        content: dict[str, Any] = {
            "time": now,
            "method": clean(self.method),
            "path": clean(self.path),
            "status": self.status,
            "milliseconds": round(1000 * self.seconds, 1),
            "bytes_in": self.bytes_in,
            "images": self.images,
            "request_id": self.id,
            "client": self.client,
        }
        return json.dumps(content | ({"trace_id": self.trace_id} if self.trace_id else {})) + "\n"


def _address(scope: Scope) -> str:
    """The client's address; a proxy on this machine names it in a header, which may hold anything."""
    try:
        return str(ipaddress.ip_address((scope.get("client") or ("",))[0]))
    except ValueError:
        return ""


class AccessLog:
    """The file of lines, opened anew for each write, so that it may be moved away at any time.

    Args:
        target: A path, or "-" for stdout.

    Raises:
        UserError: It cannot be written.
    """

    def __init__(self, target: str, monitor: Monitor):
        self.target, self.monitor, self.is_torn = target, monitor, False
        self.lines: queue.Queue[str] = queue.Queue(MOST_WAITING)
        self.is_closing = threading.Event()
        try:
            self._append("")
        except OSError as error:
            raise UserError(f"{target}: cannot be written ({error.strerror}); name another --access-log") from None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def write(self, line: str) -> None:
        """Queues a line; never waits."""
        try:
            self.lines.put_nowait(line)
        except queue.Full:
            self.monitor.lost_lines.inc()

    def close(self) -> None:
        """Writes what waits, for a limited time."""
        self.is_closing.set()
        self.write("")
        self.thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while not (self.is_closing.is_set() and self.lines.empty()):
            waiting = [self.lines.get()]
            while not self.lines.empty():
                waiting.append(self.lines.get_nowait())
            try:
                self._append("".join(waiting))
            except OSError:
                self.is_torn = True
                self.monitor.lost_lines.inc(sum(map(bool, waiting)))

    def _append(self, text: str) -> None:
        # After half a line, which a full disk leaves, the next one starts anew.
        data = ("\n" if self.is_torn and text else "") + text
        where: str | int = 1 if self.target == STDOUT else self.target
        with open(where, "ab", closefd=where != 1) as file:
            file.write(data.encode())
        self.is_torn = False
