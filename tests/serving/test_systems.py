"""The server on Windows and macOS, emulated as tests/test_other_systems.py does."""

import socket
from pathlib import Path
from types import SimpleNamespace

from serving_process import ServeProcess
from test_other_systems import WITHOUT_POSIX

from serving import connections, options, server


def test_the_server_runs_without_what_windows_lacks(exported, images, tmp_path):
    """Guards against a server that waits for SIGHUP or asks for limits where there are none (emulated)."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_POSIX)
    served = ServeProcess(exported, "--workers", "1", PYTHONPATH=str(tmp_path))
    try:
        assert served.http.post("/predict", files={"files": images[0].read_bytes()}).status_code == 200
        assert "serve_workers" in served.http.get("/metrics").text
    finally:
        assert served.end() == 0


def test_a_port_is_not_shared(monkeypatch):
    """Guards against two servers on one port of Windows, where SO_REUSEADDR allows it (emulated)."""
    noted = []

    class Noting(socket.socket):
        def setsockopt(self, *values: int) -> None:
            noted.append(values)

    monkeypatch.setattr(socket, "SO_EXCLUSIVEADDRUSE", -5, raising=False)
    monkeypatch.setattr(socket, "socket", Noting)
    monkeypatch.setattr(server.asyncio, "run", lambda coroutine: coroutine.close())
    server.run(options.Options(folder=Path("nowhere"), port=0))
    assert (socket.SOL_SOCKET, -5, 1) in noted and socket.SO_REUSEADDR not in [values[1] for values in noted]


def test_the_limit_of_files_follows_macos(monkeypatch):
    """Guards against a server that does not start on macOS, which names no limit and sets none (emulated)."""
    limits = [256, 2**63 - 1]

    def set_limit(_: int, wanted: tuple[int, int]) -> None:
        if wanted[0] > 10240:
            raise ValueError("current limit exceeds maximum limit")
        limits[0] = wanted[0]

    fake = SimpleNamespace(RLIMIT_NOFILE=8, getrlimit=lambda _: tuple(limits), setrlimit=set_limit)
    monkeypatch.setattr(connections, "resource", fake)
    connections.raise_file_limit()
    assert limits[0] == 10240
