"""The access log and request ids: one line of JSON per request, and nothing in it that a client could forge."""

import asyncio
import json
import os
import re
import threading

import httpx
import pytest
from serving_process import eventually

from serving import access_log
from serving.access_log import AccessLog
from serving.middleware import Middleware, Names
from serving.monitoring import Monitor
from system.errors import UserError

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Lines(list):
    """Stands for an AccessLog."""

    def write(self, line: str) -> None:
        """Keeps the content of a line."""
        assert line.endswith("\n") and line.count("\n") == 1 and line.isascii()
        self.append(json.loads(line))


@pytest.fixture
def ask():
    """Sends a request through the middleware; returns its response and what was logged."""

    async def inner(scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        if scope["path"] == "/fails":
            raise ZeroDivisionError
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"in"})

    def run(path="/predict", content=b"", client=("10.0.0.9", 1), **headers):
        lines = Lines()
        app = Middleware(inner, "secret", Names("127.0.0.1", ()), set(), set(), Monitor(), access_log=lines)
        encoded = {"Authorization": b"Bearer secret"} | {
            name.replace("_", "-"): value.encode() for name, value in headers.items()
        }

        async def send():
            transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=client)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
                return await http.post(path, content=content, headers=encoded)

        response = asyncio.run(send())
        (line,) = lines
        return response, line

    return run


def test_a_line_says_what_was_asked_and_holds_no_secret(ask):
    """Guards against lines without status or size, and tokens or queries that end up in a file."""
    response, line = ask("/predict?key=hidden", b"x" * 5000, User_Agent="spy", X_Request_Id="a-1.b:2")
    assert response.headers["x-request-id"] == line["request_id"] == "a-1.b:2"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line.pop("time"))
    assert line.pop("milliseconds") > 0
    assert line == {
        "method": "POST", "path": "/predict", "status": 200, "bytes_in": 5000, "images": 0, "request_id": "a-1.b:2",
        "client": "10.0.0.9",
    }  # fmt: skip
    assert ask("/fails")[1]["status"] == 500
    refused, line = ask(Authorization="Bearer wrong")
    assert refused.status_code == line["status"] == 401 and "wrong" not in json.dumps(line)
    refused, line = ask(Host="evil.example")
    assert refused.status_code == line["status"] == 403 and refused.headers["x-request-id"] == line["request_id"]


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, 'a"},{"b', "名", "<script>", "a\tb"])
def test_an_id_that_is_none_is_replaced(ask, given):
    """Guards against a header of a stranger that is repeated in the response and in the log."""
    response, line = ask(X_Request_Id=given)
    assert re.fullmatch("[0-9a-f]{32}", line["request_id"]) and response.headers["x-request-id"] == line["request_id"]


def test_what_a_client_sends_forges_no_line(ask):
    """Guards against line ends in paths, and addresses that a proxy's header makes up."""
    _, line = ask('/a%0a{"status": 200}%1b[2J%e2%80%a8\u540d')
    assert line["path"] == '/a {"status": 200} [2J \u540d'
    assert len(ask("/" + "a" * 5000)[1]["path"]) == 200
    assert ask(client=('1.2.3.4"\n', 0))[1]["client"] == "" and ask(client=None)[1]["client"] == ""


def test_a_trace_of_the_caller_is_logged(ask):
    """Guards against a request that cannot be found in the caller's trace, and a trace that is none."""
    assert ask(traceparent=f"00-{TRACE}-00f067aa0ba902b7-01")[1]["trace_id"] == TRACE
    for wrong in ("", "00-xyz-00f067aa0ba902b7-01", f"00-{'0' * 32}-00f067aa0ba902b7-01", TRACE):
        assert "trace_id" not in ask(traceparent=wrong)[1]


def test_the_file_may_be_moved_away_and_survives_a_full_disk(tmp_path, monkeypatch):
    """Guards against lines that go to a file nobody sees after a rotation, and a line glued to half of another."""
    file, monitor = tmp_path / "access.log", Monitor()
    log = AccessLog(str(file), monitor)
    log.write("one\n")
    eventually(lambda: file.read_text() == "one\n")
    file.rename(tmp_path / "access.log.1")
    append, failed = AccessLog._append, threading.Event()

    def tear(self, text):
        append(self, text[:2])
        failed.set()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(AccessLog, "_append", tear)
    log.write("two\n")
    assert failed.wait(10)
    monkeypatch.setattr(AccessLog, "_append", append)
    log.write("three\n")
    log.close()
    assert file.read_text() == "tw\nthree\n" and not log.thread.is_alive()
    assert monitor.lost_lines._value.get() == 1
    with pytest.raises(UserError, match="--access-log"):
        AccessLog(str(tmp_path), monitor)


def test_a_reader_that_hangs_delays_nothing(tmp_path, monkeypatch):
    """Guards against a server that waits for whoever reads its log, and against lines that are lost uncounted."""
    monkeypatch.setattr(access_log, "MOST_WAITING", 3)
    monkeypatch.setattr(access_log, "CLOSE_SECONDS", 0.05)
    pipe, monitor = tmp_path / "pipe", Monitor()
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    log = AccessLog(str(pipe), monitor)
    for _ in range(50):
        log.write("x" * 2**20 + "\n")
    log.close()
    assert log.thread.is_alive() and monitor.lost_lines._value.get() >= 40
    os.close(reader)
    log.thread.join(10)
    assert not log.thread.is_alive()
