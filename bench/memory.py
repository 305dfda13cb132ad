"""Memory of serve.py under the worst that its limits allow, beside the formula of docs/serve.md.

    python bench/memory.py infer/NAME [--seconds 40]

Slow bodies fill the memory for uploads, images of the most pixels and of the costliest kind come in between, each
padded to the largest body. Peaks are those that the system has counted (VmHWM).
"""

import argparse
import io
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from serve import ROOT, start

PORT, UPLOAD_MB, BODY_MB, PIXELS, WORKERS = 8107, 256, 16, 30_000_000, 2
# Bytes per pixel of the costliest kind of image: WebP with transparency and an orientation.
BYTES_PER_PIXEL = 24
MIB = 2**20
HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/webp\r\nContent-Length: %d\r\n\r\n"


def costly_image(pixels: int) -> bytes:
    """A WebP of so many pixels, with transparency and an orientation, padded to the largest body."""
    from PIL import Image

    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.new("RGBA", (5000, pixels // 5000), (200, 100, 50, 128)).save(file, "WEBP", exif=exif)
    return file.getvalue().ljust(BODY_MB * MIB - 1024, b"\0")


def peak(pid: int) -> float:
    """Highest resident memory of a process so far, in MiB."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text()).group(1)) / 1024


def send(body: bytes, until: float, slowly: bool) -> None:
    """Sends bodies one after another; slowly: all but the end at once, and the end after 10 s."""
    while time.monotonic() < until:
        try:
            with socket.create_connection(("127.0.0.1", PORT), 60) as line:
                line.sendall(HEAD % len(body) + body[:-1])
                if slowly:
                    time.sleep(10)
                line.sendall(body[-1:])
                line.recv(1000)
        except OSError:
            time.sleep(0.05)


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a folder that export.py made")
    parser.add_argument("--seconds", type=float, default=40)
    arguments = parser.parse_args()
    options = {
        "--port": PORT, "--workers": WORKERS, "--max-upload-mb": UPLOAD_MB, "--max-body-mb": BODY_MB,
        "--max-pixels": PIXELS,
    }  # fmt: skip
    line = [
        str(ROOT / "serve.py"),
        arguments.model,
        "threads=1",
        *(str(one) for pair in options.items() for one in pair),
    ]
    server = start(line, PORT)
    try:
        found = subprocess.run(["pgrep", "-P", str(server.pid)], capture_output=True, text=True).stdout
        workers = [int(pid) for pid in found.split()]
        names = {server.pid: "front", **{pid: f"worker {number}" for number, pid in enumerate(workers, 1)}}
        before = {pid: peak(pid) for pid in names}
        heavy, light, until = costly_image(PIXELS), costly_image(15_900_000), time.monotonic() + arguments.seconds
        bodies = [(heavy, True)] * (UPLOAD_MB // BODY_MB) + [(heavy, False)] * 3 + [(light, False)] * 3
        threads = [threading.Thread(target=send, args=(body, until, slowly)) for body, slowly in bodies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        after = {pid: peak(pid) for pid in names}
    finally:
        os.killpg(server.pid, 15)
        server.wait()
    pixels = PIXELS * BYTES_PER_PIXEL / MIB
    print(
        f"{os.cpu_count()} cores; --max-upload-mb {UPLOAD_MB} --max-body-mb {BODY_MB} --max-pixels {PIXELS} threads=1"
    )
    print("| process | idle MiB | peak MiB | formula MiB | peak / formula |")
    print("| --- | --- | --- | --- | --- |")
    for pid, name in names.items():
        formula = before[pid] + (1.2 * UPLOAD_MB if name == "front" else BODY_MB + pixels)
        print(f"| {name} | {before[pid]:.0f} | {after[pid]:.0f} | {formula:.0f} | {after[pid] / formula:.2f} |")


if __name__ == "__main__":
    main()
