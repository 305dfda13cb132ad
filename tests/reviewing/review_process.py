"""A real review.py for tests: started on a free port, used over HTTP or with a browser, ended by Ctrl-C."""

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx

# Names with what addresses, tables and spreadsheets give a meaning.
CAT, DOG, OX = "猫", "dog #1?", "-ox%41"
SUSPECTS = "path\tsplit\tlabel\tsuggested\tlabel_probability\tsuggested_probability\n"
ROOT = Path(__file__).resolve().parents[2]


def write(file: Path, text: str) -> None:
    """Writes a file, and the folders above it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


class ReviewProcess:
    """A running review.py; `out` is what it has printed so far, `address` the last address with a token."""

    def __init__(self, folder: Path, *arguments: str):
        # Python would keep what it prints to a pipe until the end.
        self.process = subprocess.Popen(
            [sys.executable, "-u", str(ROOT / "review.py"), "--no-browser", "--port", "0", "--who", "li", *arguments],
            cwd=folder, env=os.environ | {"PYTHONIOENCODING": "utf-8"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8",
        )  # fmt: skip
        self.out = ""
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.next_address("review: ")
        self.origin = self.address.partition("/?")[0]
        self.port = self.origin.rpartition(":")[2]

    def _read(self) -> None:
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def next_address(self, words: str) -> str:
        """Waits for the line with these words, and takes the address from it."""
        line = "\n"
        while words not in line:
            line = self._lines.get(timeout=60)
            self.out += line
            assert line, self.out
        self.address = re.search(r"http://\S+", line).group()
        return self.address

    def client(self) -> httpx.Client:
        """A client that has used the token."""
        client = httpx.Client(base_url=self.origin, timeout=60)
        assert client.get(self.address).status_code == 200
        self.next_address("for another browser: ")
        return client

    def end(self) -> str:
        """Presses Ctrl-C; returns the last line, once the process has ended well."""
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(30) == 0, self.out
        while line := self._lines.get(timeout=30):
            self.out += line
        return self.out.strip().splitlines()[-1]


class Page:
    """What a page of the server does, without a browser: looks at images, and decides on what it saw."""

    def __init__(self, client: httpx.Client, name: str = "page"):
        self.client, self.name = client, name
        self.content = client.get("/review").json()
        self.version = self.content["version"]
        self.seen: dict[str, str] = {}

    def look(self, path: str, side: int = 240) -> httpx.Response:
        """Asks for an image, and remembers what was shown."""
        response = self.client.get("/image", params={"path": path, "side": side})
        self.seen[path] = response.headers.get("X-Digest", "")
        return response

    def decide(self, action: str, *paths: str, class_name: str = "") -> httpx.Response:
        """Decides on images."""
        choices = [
            {"path": path, "digest": self.seen.get(path, ""), "action": action, "class": class_name} for path in paths
        ]
        return self._post("/decide", {"choices": choices})

    def undo(self) -> httpx.Response:
        """Takes back what was decided last."""
        return self._post("/undo", {})

    def _post(self, path: str, body: dict) -> httpx.Response:
        response = self.client.post(path, json={"version": self.version, "page": self.name, **body})
        self.version = response.json().get("version", self.version)
        return response
