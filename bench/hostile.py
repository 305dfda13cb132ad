"""serve.py beside hostile clients: what honest ones get, with and without them.

    python bench/hostile.py infer/NAME FOLDER [--seconds 8] [--rounds 3]

Honest clients send one photo after another. In every second phase two connections send images that take long to decode
or break decoders, 300 connections say nothing, and 16 bodies arrive slowly, all of them from another address. Every
honest request must be answered, and rightly.
"""

import argparse
import asyncio
import contextlib
import io
import itertools
import json
import multiprocessing
import os
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from serve import ROOT, make_images, start

PORT, CLIENTS, IDLE, SLOW, SENDERS = 8106, 8, 300, 16, 2
ELSEWHERE = ("127.0.0.2", 0)
TOLERANCE = 1e-5
JPEG = {"Content-Type": "image/jpeg"}
HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n"


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def hostile_images() -> list[bytes]:
    """Images that take long, need much memory, or break decoders."""
    from PIL import Image

    def encode(image: Image.Image, form: str, **options) -> bytes:
        file = io.BytesIO()
        image.save(file, form, **options)
        return file.getvalue()

    exif = Image.Exif()
    exif[0x0112] = 6

    def png(width: int, height: int, colour: int, rows: bytes) -> bytes:
        head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))
        return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")

    return [
        encode(Image.new("RGB", (10_000, 5_000)), "PNG"),
        encode(Image.new("RGBA", (7_000, 7_000)), "WEBP", exif=exif),
        encode(Image.new("RGB", (1, 65_000)), "PNG"),
        encode(Image.new("RGB", (16_000_000, 1)), "PNG"),
        encode(Image.new("L", (4_000, 3_900)), "PNG"),
        png(60_000, 60_000, 2, bytes(1000)),  # more pixels than are allowed
        png(64, 64, 3, bytes(65 * 64)),  # a palette image without a palette
        encode(Image.effect_noise((2_000, 2_000), 90), "JPEG")[:-2000],
        os.urandom(500_000),
        b"",
    ]


class Trouble:
    """Hostile connections, in a process of their own, for so many seconds."""

    def __init__(self, images: list[bytes], seconds: float):
        self.images, self.seconds = images, seconds
        self.outcomes: Counter[str] = Counter()

    def run(self, found: multiprocessing.Queue) -> None:
        """Opens them, and tells in the end how many answers of each status they got."""
        asyncio.run(self._run())
        found.put(self.outcomes)

    async def _run(self) -> None:
        tasks = [asyncio.create_task(self._send(start)) for start in range(SENDERS)]
        tasks += [asyncio.create_task(self._idle()) for _ in range(IDLE)]
        tasks += [asyncio.create_task(self._slow()) for _ in range(SLOW)]
        await asyncio.sleep(self.seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, first: int) -> None:
        for image in itertools.islice(itertools.cycle(self.images), first, None):
            reader, writer = await asyncio.open_connection("127.0.0.1", PORT, local_addr=ELSEWHERE)
            writer.write(HEAD % len(image) + image)
            self.outcomes[(await reader.read(100))[9:12].decode() or "closed"] += 1
            writer.close()

    async def _idle(self) -> None:
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", PORT, local_addr=ELSEWHERE)
            await reader.read(1)
            writer.close()

    async def _slow(self) -> None:
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", PORT, local_addr=ELSEWHERE)
            writer.write(HEAD % (31 << 20) + bytes(30 << 20))
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(reader.read(1), 20)
            writer.close()


async def honest(images: list[Path], known: dict, seconds: float) -> tuple[list[float], int, int]:
    """Sends photos for a while; returns the latencies in ms, and how many were lost or wrong."""
    import httpx

    taken, lost, wrong = [], 0, 0
    until, waiting = time.monotonic() + seconds, itertools.cycle(images)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{PORT}", timeout=60) as client:

        async def send() -> None:
            nonlocal lost, wrong
            while time.monotonic() < until:
                file, began = next(waiting), time.perf_counter()
                try:
                    response = await client.post("/predict", content=file.read_bytes(), headers=JPEG)
                except httpx.HTTPError:
                    lost += 1
                    continue
                taken.append(1000 * (time.perf_counter() - began))
                if response.status_code != 200:
                    lost += 1
                    continue
                row = dict(zip(known["classes"], known["rows"][file.name], strict=True))
                top = response.json()["results"][0]["top"]
                wrong += max(abs(one["probability"] - row[one["class"]]) for one in top) > TOLERANCE

        await asyncio.gather(*(send() for _ in range(CLIENTS)))
    return taken, lost, wrong


async def measure(arguments: argparse.Namespace, images: list[Path], known: dict) -> None:
    """Prints one table."""
    trouble, answers = Trouble(hostile_images(), arguments.seconds + 2), Counter()
    found: multiprocessing.Queue = multiprocessing.Queue()
    rates: dict[str, list[float]] = {"undisturbed": [], "hostile": []}
    slowest: dict[str, list[float]] = {"undisturbed": [], "hostile": []}
    lost = wrong = 0
    for _ in range(arguments.rounds):
        for phase in rates:
            other = multiprocessing.Process(target=trouble.run, args=(found,))
            if phase == "hostile":
                other.start()
                await asyncio.sleep(1)
            taken, *faults = await honest(images, known, arguments.seconds)
            if phase == "hostile":
                answers += await asyncio.to_thread(found.get)
                other.join()
            rates[phase].append(len(taken) / arguments.seconds)
            slowest[phase].append(sorted(taken)[len(taken) * 99 // 100])
            lost, wrong = lost + faults[0], wrong + faults[1]
    print("| honest clients | requests/s | p99 ms |")
    print("| --- | --- | --- |")
    for phase in rates:
        print(f"| {phase} | {statistics.median(rates[phase]):.1f} | {statistics.median(slowest[phase]):.1f} |")
    ratios = [
        statistics.median(b / a for a, b in zip(kind["undisturbed"], kind["hostile"], strict=True))
        for kind in (rates, slowest)
    ]
    print(f"| hostile / undisturbed | {ratios[0]:.2f} | {ratios[1]:.2f} |")
    print(f"honest requests lost: {lost}, wrong: {wrong}; answers to the others: {dict(answers)}")


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a folder that export.py made")
    parser.add_argument("images", help="a folder of images")
    parser.add_argument("--seconds", type=float, default=8, help="of each phase (8)")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        images = make_images(arguments.images, Path(place))
        line = [sys.executable, "-W", "ignore", str(ROOT / "bench" / "serve.py"), arguments.model, place, "--offline"]
        offline = subprocess.run(line, input="", capture_output=True, text=True, check=True).stdout
        server = start([str(ROOT / "serve.py"), arguments.model, "--port", str(PORT)], PORT)
        try:
            asyncio.run(measure(arguments, images, json.loads(offline.splitlines()[0])))
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait()
    from system import processor

    print(f"{processor.name()}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
