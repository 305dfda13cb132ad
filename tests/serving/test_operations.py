"""What runs a server sees of it: readiness, metrics, the access log, spans, and the messages to systemd."""

import asyncio
import http.server
import json
import os
import queue
import re
import signal
import socket
import threading
import time

import pytest
from serving_process import ServeProcess, eventually

from serving import service_manager
from system import optional

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Collector(http.server.BaseHTTPRequestHandler):
    """Takes spans as an OpenTelemetry collector does; `bodies` are those that came."""

    bodies: list

    def do_POST(self):
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


class Messages(queue.Queue):
    """Messages to systemd, in their order."""

    address = ""


@pytest.fixture(scope="module")
def collector():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    server.bodies = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture(scope="module")
def systemd(tmp_path_factory):
    """What systemd hears of a service, and `address`, where it listens."""
    heard, line = Messages(), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    heard.address = str(tmp_path_factory.mktemp("systemd") / "notify")
    line.bind(heard.address)

    def listen():
        while True:
            heard.put(line.recv(100))

    threading.Thread(target=listen, daemon=True).start()
    return heard


@pytest.fixture(scope="module")
def server(exported, tmp_path_factory, collector, systemd):
    place = tmp_path_factory.mktemp("operations")
    (place / "token").write_text("for-prometheus\n")
    options = ("--workers", "2", "--ready-workers", "1", "--access-log", str(place / "access.log"))
    started = ServeProcess(
        exported, *options, "--metrics-token", str(place / "token"),
        SERVE_TOKEN="secret", NOTIFY_SOCKET=systemd.address, WATCHDOG_USEC="200000",
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{collector.server_port}",
    )  # fmt: skip
    started.log = place / "access.log"
    started.http.headers["Authorization"] = "Bearer secret"
    yield started
    if started.process.poll() is None:
        started.end()


def metric(server, name: str) -> float:
    """A value of /metrics; `name` with its labels, as it stands there."""
    text = server.http.get("/metrics").text
    (value,) = re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(value)


def test_the_metrics_follow_a_batch(server, images):
    """Guards against times that are not measured, or belong to another stage, and workers that nobody counts."""
    files = [("files", (path.name, path.read_bytes())) for path in images]
    start = time.monotonic()
    assert server.http.post("/predict", files=files).status_code == 200
    took = time.monotonic() - start
    batches = metric(server, "serve_batch_pictures_count")
    for stage in ("decode", "inference"):
        assert metric(server, f"serve_{stage}_seconds_count") == batches > 0
        assert 0 < metric(server, f"serve_{stage}_seconds_sum") < 2 * took
    assert metric(server, "serve_queue_seconds_count") == len(images)
    assert metric(server, "serve_queue_seconds_sum") < len(images) * took
    for name in ("live", "configured"):
        assert metric(server, f'serve_workers_{name}{{pool="classify"}}') == 2
    for worker in "01":
        assert metric(server, f'serve_worker_memory_bytes{{pool="classify",worker="{worker}"}}') > 2**25
    assert metric(server, "process_resident_memory_bytes") > 2**24
    info = server.http.get("/model").json()
    assert f'digest="{info["digest"]}"' in server.http.get("/metrics").text
    assert metric(server, "serve_access_log_lost_total") == 0


def test_prometheus_needs_its_own_token_only(server):
    """Guards against a scrape that needs the token of the API, and an API that takes the token of the scrape."""
    for path, token, status in (
        ("/metrics", "for-prometheus", 200),
        ("/metrics", "secret", 200),
        ("/metrics", "x", 401),
        ("/model", "for-prometheus", 401),
    ):
        assert server.http.get(path, headers={"Authorization": f"Bearer {token}"}).status_code == status, (path, token)


def test_a_request_is_found_in_the_log_by_its_id(server, images):
    """Guards against responses without an id, and lines that do not tell how many images a request had."""
    files = [("files", (path.name, path.read_bytes())) for path in images[:3]]
    headers = {"X-Request-Id": "find-me", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    assert server.http.post("/predict", files=files, headers=headers).headers["x-request-id"] == "find-me"
    refused = server.http.get("/nowhere", headers={"X-Request-Id": "find-me-not"})
    assert (refused.status_code, refused.headers["x-request-id"]) == (404, "find-me-not")
    eventually(lambda: "find-me-not" in server.log.read_text())
    lines = {line["request_id"]: line for line in map(json.loads, server.log.read_text().splitlines())}
    found = lines["find-me"]
    assert (found["status"], found["images"], found["client"]) == (200, 3, "127.0.0.1")
    assert found["bytes_in"] > sum(len(file.read_bytes()) for file in images[:3]) and found["trace_id"] == TRACE
    assert lines["find-me-not"]["images"] == 0 and "secret" not in server.log.read_text()


def test_too_few_workers_are_not_ready(server):
    """Guards against a load balancer that goes on sending to a server half of whose workers are gone."""
    assert server.http.get("/readyz").status_code == 200
    os.kill(server.children()[0], signal.SIGKILL)
    server.wait_for("starting another")
    assert server.http.get("/readyz").status_code == 503
    assert metric(server, 'serve_workers_live{pool="classify"}') == 1
    eventually(lambda: server.http.get("/readyz").status_code == 200)
    assert metric(server, "serve_worker_restarts_total") == 1


@pytest.mark.skipif(
    not optional.is_installed("opentelemetry.sdk"),
    reason="OpenTelemetry's SDK is not installed (requirements-tracing.txt)",
)
def test_a_span_belongs_to_the_callers_trace(server, collector):
    """Guards against spans that are sent nowhere, or begin a trace of their own."""
    headers = {"traceparent": f"00-{'ab' * 16}-00f067aa0ba902b7-01"}
    assert server.http.get("/model", headers=headers).status_code == 200
    trace = bytes.fromhex("ab" * 16)
    eventually(lambda: any(trace in body and b"GET /model" in body for body in collector.bodies))


def test_systemd_hears_when_it_is_ready_alive_and_stops(server, systemd):
    """Guards against a service that systemd takes for started too early, or for hung. Ends the server."""
    assert systemd.get(timeout=60) == b"READY=1"
    assert [systemd.get(timeout=60) for _ in range(3)] == [b"WATCHDOG=1"] * 3
    assert server.end() == 0
    rest = [systemd.get(timeout=60)]
    while rest[-1] != b"STOPPING=1":  # or nothing comes any more
        rest.append(systemd.get(timeout=60))
    assert set(rest) == {b"WATCHDOG=1", b"STOPPING=1"}
    assert not [line for line in server.lines if "Traceback" in line]


def test_nobody_who_listens_is_no_error(monkeypatch, tmp_path):
    """Guards against a server that ends because its service manager does not listen, or gave no period."""
    for address in ("", str(tmp_path / "nobody"), "@nobody-listens-here"):
        monkeypatch.setenv(service_manager.SOCKET, address)
        service_manager.notify("READY=1")
    for period in ("", "0", "x"):
        monkeypatch.setenv(service_manager.WATCHDOG, period)
        asyncio.run(asyncio.wait_for(service_manager.keep_alive(), 5))


def test_the_token_for_metrics_is_checked(command, exported, tmp_path):
    """Guards against an empty file that opens /metrics to everybody."""
    (tmp_path / "empty").write_text("\n")
    for name in ("empty", "missing"):
        command("serve.py", str(exported), "--metrics-token", name, cwd=tmp_path).refused(name, "--metrics-token")
    command("serve.py", str(exported), "--access-log", ".", cwd=tmp_path).refused("--access-log")
