"""serve.py under load, compared with offline prediction, a plain FastAPI handler and LitServe; all predictions checked.

    python bench/serve.py infer/NAME FOLDER [--seconds 6] [--rounds 3]

FOLDER's images are converted to 500x375 JPEGs. Needs wrk (packaged by most systems) and requirements-bench.txt. The
servers take turns, round by round; offline is what predict.py does, with the same images and cores.
"""

import argparse
import asyncio
import http.client
import io
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

CONCURRENCIES = (1, 8, 64)
IMAGES, SIZE, QUALITY = 64, (500, 375), 90
BOUNDARY = "bench-bench-bench"
# Sends the files in ARGS, one per request; this program parses the last line.
LUA = """
local requests, at = {}, 0
function init(args)
  local head = {["Content-Type"] = "multipart/form-data; boundary=BOUNDARY"}
  for i = 1, #args do
    local file = io.open(args[i], "rb")
    requests[i] = wrk.format("POST", "/predict", head, file:read("*a"))
    file:close()
  end
end
function request() at = at % #requests + 1; return requests[at] end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d\\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
""".replace("BOUNDARY", BOUNDARY)


def is_installed(package: str) -> bool:
    """Whether a package is there."""
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def make_images(folder: str, out: Path) -> list[Path]:
    """Writes the JPEGs, and for each one the body of a multipart form that holds it."""
    from PIL import ImageOps

    from imaging.images import read_image
    from inference.sources import find_images

    names = list(find_images([folder]))
    made = []
    for index in range(IMAGES):
        file = out / f"{index:03}.jpg"
        ImageOps.fit(read_image(names[index % len(names)], 10**8), SIZE).save(file, quality=QUALITY)
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="{file.name}"\r\n\r\n'
        file.with_suffix(".body").write_bytes(head.encode() + file.read_bytes() + f"\r\n--{BOUNDARY}--\r\n".encode())
        made.append(file)
    return made


def offline(model: str, folder: str) -> None:
    """Predicts as predict.py does: prints the predictions as JSON, then images/s for each duration on stdin."""
    import config
    from system import machine

    settings = config.load()
    machine.prepare(settings)
    from inference.pipeline import predict_images
    from inference.predictor import ExportedModel
    from inference.sources import ImageSource

    threads = machine.threads(settings)
    loaded = ExportedModel(model, "cpu", threads, "auto")
    files = sorted(map(str, Path(folder).glob("*.jpg")))

    def score(paths: list[str]) -> dict[str, list[float]]:
        items = enumerate(map(ImageSource, paths))
        found = predict_images(items, loaded, settings.batch_size, settings.max_pixels, max(2, threads))
        return {Path(source.path).name: row.tolist() for batch in found for _, source, row in batch}

    print(json.dumps({"classes": loaded.class_names, "rows": score(files)}), flush=True)
    for line in sys.stdin:
        start, done = time.perf_counter(), 0
        while time.perf_counter() - start < float(line):
            score(files * 4)
            done += len(files) * 4
        print(done / (time.perf_counter() - start), flush=True)


def load(port: int, connections: int, seconds: float, script: Path, images: list[Path]) -> dict[str, float]:
    """Puts load on a server with wrk."""
    bodies = [str(file.with_suffix(".body")) for file in images]
    line = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "30s", "-s", str(script)]
    line += [f"http://127.0.0.1:{port}", "--", *bodies]
    output = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    count, micros, p50, p99, errors = map(int, re.search(r"RESULT (.*)", output).group(1).split())
    return {"rate": count / micros * 1e6, "p50": p50 / 1000, "p99": p99 / 1000, "errors": errors}


async def check(port: int, images: list[Path], known: dict, requests: int, connections: int) -> tuple[int, int, float]:
    """Sends images and compares every prediction with the offline one.

    Returns:
        Lost requests, wrong predictions, largest difference of a probability.
    """
    import httpx

    waiting, lost, wrong, gap = list(images) * (requests // len(images)), 0, 0, 0.0
    limits = httpx.Limits(max_connections=connections + 1)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, limits=limits) as client:

        async def send() -> None:
            nonlocal lost, wrong, gap
            while waiting:
                file = waiting.pop()
                response = await client.post("/predict", files={"files": (file.name, file.read_bytes(), "image/jpeg")})
                if response.status_code != 200:
                    lost += 1
                    continue
                row = dict(zip(known["classes"], known["rows"][file.name], strict=True))
                (result,) = response.json()["results"]
                far = max(abs(one["probability"] - row[one["class"]]) for one in result["top"])
                gap = max(gap, far)
                wrong += result["file"] != file.name or far > 1e-5

        await asyncio.gather(*(send() for _ in range(connections)))
    return lost, wrong, gap


class Health(threading.Thread):
    """Requests /healthz twenty times a second in its own thread; `taken` holds the latencies in ms."""

    def __init__(self, port: int):
        super().__init__()
        self.port, self.active, self.taken = port, True, []

    def run(self) -> None:
        """Sends requests while `active`."""
        line = http.client.HTTPConnection("127.0.0.1", self.port)
        while self.active:
            start = time.perf_counter()
            line.request("GET", "/healthz")
            line.getresponse().read()
            self.taken.append(1000 * (time.perf_counter() - start))
            time.sleep(0.05)


def start(line: list[str], port: int) -> subprocess.Popen:
    """Starts a server and waits until it classifies an image."""
    import httpx

    # A process group of its own: LitServe's workers outlive their server unless the group is ended.
    command = [sys.executable, "-W", "ignore", *line]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    image = io.BytesIO()
    from PIL import Image

    Image.new("RGB", SIZE).save(image, "JPEG")
    for _ in range(240):
        try:
            form = {"files": ("a.jpg", image.getvalue(), "image/jpeg")}
            if httpx.post(f"http://127.0.0.1:{port}/predict", files=form, timeout=30).status_code == 200:
                return process
        except httpx.HTTPError:
            pass
        if process.poll() is not None:
            break
        time.sleep(0.5)
    raise SystemExit(f"{line[0]} does not respond")


def choose_ways(known: list[str], asked: str) -> list[str]:
    """Returns the servers that are asked for and installed."""
    ways = [way for way in known if way in asked.split(",")]
    if "LitServe" in ways and not is_installed("litserve"):
        print("LitServe is not installed (requirements-bench.txt), and left out")
        ways.remove("LitServe")
    return ways


def measure(arguments: argparse.Namespace, folder: Path) -> None:
    """Prints one table."""
    images = make_images(arguments.images, folder)
    script = folder / "load.lua"
    script.write_text(LUA)
    bench, model = Path(__file__).parent, arguments.model
    lines = {
        "serve.py": [str(ROOT / "serve.py"), model, "--port", "8101"],
        "serve.py --workers 1": [str(ROOT / "serve.py"), model, "--port", "8104", "--workers", "1"],
        "plain FastAPI": [str(bench / "serve_plain.py"), model, "8102"],
        "LitServe": [str(bench / "serve_litserve.py"), model, "8103"],
    }
    ports = {way: int(re.search(r"81\d\d", " ".join(line)).group()) for way, line in lines.items()}
    ways = choose_ways(list(lines), arguments.ways)
    line = [sys.executable, "-W", "ignore", __file__, model, str(folder), "--offline"]
    baseline = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    servers = []
    try:
        known = json.loads(baseline.stdout.readline())
        servers = [start(lines[way], ports[way]) for way in ways]
        rates: list[float] = []
        healthy: list[float] = []
        found: dict[tuple[str, int], list[dict[str, float]]] = {}
        for _ in range(arguments.rounds):
            baseline.stdin.write(f"{arguments.seconds}\n")
            baseline.stdin.flush()
            rates.append(float(baseline.stdout.readline()))
            for connections in CONCURRENCIES:
                for way in ways:
                    health = Health(ports[way]) if way == "serve.py" and connections == max(CONCURRENCIES) else None
                    if health:
                        health.start()
                    result = load(ports[way], connections, arguments.seconds, script, images)
                    if health:
                        health.active = False
                        health.join()
                        healthy += health.taken
                    found.setdefault((way, connections), []).append(result)
        report(rates, found)
        lost, wrong, gap = asyncio.run(check(ports["serve.py"], images, known, arguments.checked, 64))
        outcome = f"{lost} lost, {wrong} wrong, largest difference {gap:.1e}"
        print(f"{arguments.checked} predictions of serve.py at concurrency 64 checked: {outcome}")
        p99 = sorted(healthy)[len(healthy) * 99 // 100]
        print(f"/healthz meanwhile, {len(healthy)} times: p99 {p99:.1f} ms, slowest {max(healthy):.1f} ms")
    finally:
        baseline.terminate()
        for process in servers:
            os.killpg(process.pid, signal.SIGTERM)
        for process in [*servers, baseline]:
            process.wait()


def report(rates: list[float], found: dict[tuple[str, int], list[dict[str, float]]]) -> None:
    """Prints medians over the rounds, and throughput as a share of the offline one."""
    from system import processor

    names = ("paddlepaddle", "fastapi", "uvicorn", "litserve")
    packages = ", ".join(f"{name} {version(name)}" for name in names if is_installed(name))
    print(f"{processor.name()}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}; {packages}")
    print("| way | concurrency | requests/s | p50 ms | p99 ms | errors | share of offline |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    base = statistics.median(rates)
    print(f"| offline (predict.py) | | {base:.1f} | | | | 1 |")
    for (way, connections), rounds in sorted(found.items(), key=lambda item: item[0][1]):
        rate, p50, p99 = (statistics.median(one[key] for one in rounds) for key in ("rate", "p50", "p99"))
        errors = sum(one["errors"] for one in rounds)
        share = statistics.median(one["rate"] / own for one, own in zip(rounds, rates, strict=True))
        print(f"| {way} | {connections} | {rate:.1f} | {p50:.1f} | {p99:.1f} | {errors:.0f} | {share:.2f} |")


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a folder that export.py made")
    parser.add_argument("images", help="a folder of images")
    parser.add_argument("--seconds", type=float, default=6, help="of each measurement (6)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--checked", type=int, default=1024, help="predictions that are compared (1024)")
    parser.add_argument(
        "--ways", default="serve.py,serve.py --workers 1,plain FastAPI,LitServe", help="which servers (all)"
    )
    parser.add_argument("--offline", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.offline:
        offline(arguments.model, arguments.images)
        return
    with tempfile.TemporaryDirectory() as folder:
        measure(arguments, Path(folder))


if __name__ == "__main__":
    main()
