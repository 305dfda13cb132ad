"""serve.py under faults: clients that disconnect, a killed worker, a new export, SIGTERM under load.

    python bench/chaos.py infer/NAME FOLDER [--seconds 60] [--messy FOLDER]

Every request must get correct predictions, a one-line error, or be one that the client cut off. Memory of all processes
is printed. The files of --messy, a folder of broken, huge and unusual images, are sent in between.
"""

import argparse
import asyncio
import collections
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from serve import ROOT, make_images, start

PORT, CLIENTS, CUT_SHARE, MESSY_SHARE = 8105, 24, 0.1, 0.05
TOLERANCE = 1e-5


class Chaos:
    """The clients, and the outcomes of their requests."""

    def __init__(self, images: list[Path], known: dict, messy: list[Path]):
        self.images, self.known = images, known
        self.messy = itertools.cycle(messy) if messy else None
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.ended = self.stopping = False
        self.random = random.Random(5)

    async def client(self, http) -> None:
        """Sends one request after another until the server has ended."""
        import httpx

        while not self.ended:
            draw = self.random.random()
            if draw < CUT_SHARE:
                await self._cut()
                continue
            messy = self.messy is not None and draw < CUT_SHARE + MESSY_SHARE
            files = [next(self.messy)] if messy else self.random.choices(self.images, k=self.random.randint(1, 3))
            form = [("files", (file.name, file.read_bytes())) for file in files]
            try:
                response = await http.post("/predict", files=form)
                self.outcomes[self._check(response, files, messy)] += 1
            except httpx.HTTPError as error:
                when = "after SIGTERM: connection refused" if self.stopping else "LOST"
                self.outcomes[f"{when} ({type(error).__name__})"] += 1
                await asyncio.sleep(0.05)

    def _check(self, response, files: list[Path], messy: bool) -> str:
        body, status = response.json(), response.status_code
        if status != 200:
            one_line = isinstance(body.get("error"), str) and "\n" not in body["error"]
            expected = status == 503 or (messy and status in (400, 413))
            return f"error response ({status})" if one_line and expected else f"WRONG {response.text[:80]}"
        if messy:
            return "messy file predicted"
        for file, one in zip(files, body["results"], strict=True):
            row = dict(zip(self.known["classes"], self.known["rows"][file.name], strict=True))
            if max(abs(best["probability"] - row[best["class"]]) for best in one["top"]) > TOLERANCE:
                return "WRONG prediction"
        return "correct"

    async def _cut(self) -> None:
        """Sends part of a request, or all of it, and disconnects."""
        body = self.random.choice(self.images).read_bytes()
        head = f"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", PORT)
            writer.write((head.encode() + body)[: self.random.randint(1, len(body) + len(head))])
            await asyncio.sleep(self.random.random() / 10)
            writer.close()
            self.outcomes["cut off by the client"] += 1
        except OSError:
            await asyncio.sleep(0.05)


def memory(server: int) -> tuple[int, int]:
    """Resident memory in MiB: of the server, and of all its workers."""

    def resident(pid: int) -> int:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS"))
        except (OSError, StopIteration):
            return 0

    return resident(server), sum(map(resident, workers(server)))


def workers(server: int) -> list[int]:
    """Process ids of the workers."""
    return [
        int(pid) for pid in subprocess.run(["pgrep", "-P", str(server)], capture_output=True, text=True).stdout.split()
    ]


async def trouble(chaos: Chaos, process: subprocess.Popen, folder: Path, seconds: float) -> list[tuple[int, int]]:
    """Kills a worker, changes the export and ends the server under load; returns the memory once per second."""
    import httpx

    limits = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
    found = []
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{PORT}", timeout=60, limits=limits) as http:
        clients = [asyncio.create_task(chaos.client(http)) for _ in range(CLIENTS)]
        for second in range(int(seconds)):
            await asyncio.sleep(1)
            found.append(memory(process.pid))
            if second == int(seconds / 4):
                os.kill(workers(process.pid)[0], signal.SIGKILL)
            if second == int(seconds / 2):
                with open(folder / "inference.yml", "a", encoding="utf-8") as file:
                    file.write("# exported again\n")
        print((await http.get("/metrics")).text.split("# HELP serve_worker_restarts_total")[1].splitlines()[2])
        chaos.stopping = True
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        status = await asyncio.to_thread(process.wait, 60)
        print(f"SIGTERM: exit status {status} after {time.monotonic() - began:.1f} s")
        chaos.ended = True
        await asyncio.gather(*clients)
    return found


def main() -> None:
    """Prints the outcomes of all requests, and the memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a folder that export.py made")
    parser.add_argument("images", help="a folder of images")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--messy", help="a folder of files to send in between")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(shutil.copytree(arguments.model, Path(place) / Path(arguments.model).name))
        images = make_images(arguments.images, Path(place))
        line = [sys.executable, "-W", "ignore", str(ROOT / "bench" / "serve.py"), str(folder), place, "--offline"]
        offline = subprocess.run(line, input="", capture_output=True, text=True, check=True).stdout
        messy = [file for file in sorted(Path(arguments.messy).rglob("*")) if file.is_file()] if arguments.messy else []
        chaos = Chaos(images, json.loads(offline.splitlines()[0]), messy)
        process = start([str(ROOT / "serve.py"), str(folder), "--port", str(PORT)], PORT)
        found = asyncio.run(trouble(chaos, process, folder, arguments.seconds))
    for outcome, count in chaos.outcomes.most_common():
        print(f"{count:6} {outcome}")
    for second in sorted({0, len(found) // 4, len(found) // 2 - 1, len(found) * 3 // 4, len(found) - 1}):
        print(f"after {second + 1} s: server {found[second][0]} MiB, workers {found[second][1]} MiB")
    sys.exit(any(outcome.startswith(("LOST", "WRONG")) for outcome in chaos.outcomes))


if __name__ == "__main__":
    main()
