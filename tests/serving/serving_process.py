"""A real serve.py for tests: started on a free port, used over HTTP, ended with SIGTERM."""

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]


def eventually(holds: Callable[[], bool], seconds: float = 60) -> None:
    """Waits until a condition holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds:g} s"
        time.sleep(0.02)


class ServeProcess:
    """A running serve.py; `http` is a client of it, `lines` its log so far."""

    def __init__(self, folder: Path, *options: str, **environment: str):
        line = [sys.executable, str(ROOT / "serve.py"), str(folder), "--port", "0", "threads=1", "engine=onednn"]
        self.process = subprocess.Popen(
            [*line, *options], cwd=folder.parent, env=os.environ | environment,
            stderr=subprocess.PIPE, text=True, encoding="utf-8",
        )  # fmt: skip
        self.lines: list[str] = []
        self._unread: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.address = re.search(r"http://\S+:\d+", self.wait_for("on http://")).group()
        self.http = httpx.Client(base_url=self.address, timeout=60)

    def _read(self) -> None:
        for line in self.process.stderr:
            self.lines.append(line)
            self._unread.put(line)

    def wait_for(self, words: str, seconds: float = 120) -> str:
        """Waits until the server logs a line with these words; returns the line."""
        end = time.monotonic() + seconds
        line = ""
        while words not in line:
            try:
                line = self._unread.get(timeout=max(0.1, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no line with {words!r} within {seconds:g} s: {self.lines}") from None
        return line

    def children(self) -> list[int]:
        """Process ids of the workers."""
        found = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True)
        return [int(pid) for pid in found.stdout.split()]

    def end(self) -> int:
        """Ends it as a service manager does; returns the exit status."""
        self.http.close()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)
