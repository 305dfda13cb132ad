"""Server lifecycle with real workers: a killed worker is replaced, a new export is loaded, SIGTERM drains."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import httpx
import pytest
from serving_process import ROOT, ServeProcess


class Load(threading.Thread):
    """Sends one request after another; `codes` holds their status codes, or the error that ended it."""

    def __init__(self, address: str, image: bytes):
        super().__init__(daemon=True)
        self.address, self.image, self.codes, self.is_running = address, image, [], True

    def run(self) -> None:
        """Sends requests until `is_running` is cleared or the server is gone."""
        with httpx.Client(base_url=self.address, timeout=60) as client:
            while self.is_running:
                try:
                    self.codes.append(client.post("/predict", files={"files": ("a.png", self.image)}).status_code)
                except httpx.ConnectError:
                    return
                except httpx.HTTPError as error:
                    self.codes.append(type(error).__name__)
                    return


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="signals of POSIX")
def test_no_request_is_lost_over_a_crash_a_reload_and_the_end(exported, drawn, tmp_path):
    """Guards against requests lost with a killed worker, in a reload or at the end, and workers left running."""
    folder = tmp_path / "model"
    shutil.copytree(exported, folder)
    # A long deadline: on a busy machine a new worker takes longer to load than requests may wait by default.
    server = ServeProcess(folder, "--workers", "1", "--watch-seconds", "0.2", "--deadline-seconds", "50")
    image = next(drawn.glob("test/*/*")).read_bytes()
    loads = [Load(server.address, image) for _ in range(3)]
    for load in loads:
        load.start()
    first = server.http.get("/model").json()["digest"]
    (worker,) = server.children()
    os.kill(worker, signal.SIGKILL)
    server.wait_for("starting another")
    while server.http.get("/readyz").status_code != 200:
        time.sleep(0.1)
    # The same model with another digest; a torn description in between must not be loaded.
    good = (folder / "inference.yml").read_bytes()
    (folder / "inference.yml").write_bytes(good[: len(good) // 2])
    server.wait_for("still serving the old export")
    metrics = server.http.get("/metrics").text
    assert "serve_reload_failing 1.0" in metrics and "serve_reload_failures_total 0.0" not in metrics
    (folder / "inference.yml").write_bytes(good + b"# exported anew\n")
    server.wait_for("now serving the new export")
    second = server.http.get("/model").json()["digest"]
    assert second != first
    assert server.http.post("/predict", files={"files": image}).json()["digest"] == second
    assert "serve_reload_failing 0.0" in server.http.get("/metrics").text
    while len(children := server.children()) != 1:
        time.sleep(0.1)
    # Ctrl-C and `timeout` reach the whole process group; workers ignore them.
    for child in children:
        os.kill(child, signal.SIGTERM)
    # The next answer comes from the same worker, after the signal.
    assert server.http.post("/predict", files={"files": image}).status_code == 200
    assert server.children() == children
    assert server.end() == 0
    for load in loads:
        load.is_running = False
        load.join(60)
        assert load.codes.count(200) > 5
        # Only after SIGTERM may requests be refused with a message, or connections be closed.
        end = list(itertools.dropwhile(lambda code: code == 200, load.codes))
        assert set(end[:-1]) <= {503} and set(end[-1:]) <= {503, "ReadError", "RemoteProtocolError"}
    assert not any(os.path.exists(f"/proc/{pid}") for pid in children)


@pytest.mark.slow
def test_chaos(exported, drawn, bad_files, tmp_path):
    """Guards against a request that is neither completed correctly nor refused with a message, under failures."""
    messy = tmp_path / "messy"
    messy.mkdir()
    for name, data in bad_files.items():
        (messy / name).write_bytes(data)
    options = ("--seconds", "24", "--messy", str(messy))
    line = [str(ROOT / "bench" / "chaos.py"), str(exported), str(drawn / "test"), *options]
    ended = subprocess.run([sys.executable, "-W", "ignore", *line], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "exit status 0" in ended.stdout and " correct\n" in ended.stdout
