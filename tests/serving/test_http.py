"""The HTTP API: predictions are those of the exported model, and every error is one sentence with a remedy."""

import asyncio
import base64
import io
import json
import re
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields

import httpx
import numpy as np
import pytest
import yaml
from PIL import Image
from serving_process import ROOT, ServeProcess

from imaging.images import read_image
from inference.predictor import ExportedModel
from serving.middleware import Middleware
from serving.monitoring import Monitor
from serving.options import Options, option_name

LIMITS = ("--max-body-mb", "1", "--max-files", "20", "--queue-size", "40", "--max-pixels", "1000000")


@pytest.fixture(scope="module")
def server(exported, trained):
    reports = exported.parent / "relabel.tsv"
    options = ("--workers", "1", "--upload-seconds", "2", "--run", str(trained.path), "--relabel-file", str(reports))
    started = ServeProcess(exported, *options, *LIMITS)
    started.reports = reports
    yield started
    assert started.end() == 0
    assert not [line for line in started.lines if "Traceback" in line]


@pytest.fixture(scope="module")
def expected(exported, images) -> list[dict[str, float]]:
    """Probabilities by class for each image, computed without the server."""
    model = ExportedModel(exported, engine="onednn")
    rows = model.predict(np.stack([model.transform(read_image(path, 10**8)) for path in images]))
    return [dict(zip(model.class_names, row.tolist(), strict=True)) for row in rows]


def _matches(result, row) -> bool:
    best = max(row, key=row.__getitem__)
    return (
        result["top"][0]["class"] == best
        and result["class"] in (best, None)
        and all(abs(one["probability"] - row[one["class"]]) < 1e-5 for one in result["top"])
    )


def assert_refused(response, status, *words):
    """Checks what every error promises: its status, one sentence with a remedy, and no traceback."""
    message = response.json()["error"]
    assert response.status_code == status, response.text
    assert "; " in message or ": " in message
    assert "\n" not in message and "Traceback" not in response.text and 'File "' not in response.text
    for word in words:
        assert word in message


def test_predictions_are_those_of_the_exported_model(server, images, expected):
    """Guards against other preprocessing, another class order, or results that stand at the wrong image."""
    form = [("files", (path.name, path.read_bytes())) for path in images]
    content = server.http.post("/predict", files=form).json()
    assert [one["file"] for one in content["results"]] == [path.name for path in images]
    assert all(map(_matches, content["results"], expected)) and content["milliseconds"] > 0
    raw = server.http.post("/predict", content=images[3].read_bytes(), headers={"Content-Type": "image/png"})
    assert _matches(raw.json()["results"][0], expected[3])

    def is_right(index):
        files = {"file": ("x.png", images[index % len(images)].read_bytes())}
        return _matches(server.http.post("/predict", files=files).json()["results"][0], expected[index % len(images)])

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(is_right, range(100)))


def test_published_paddlex_client_works(server, images, expected):
    """Guards against responses that clients of PaddleX's serving cannot parse."""
    payload = {"image": base64.b64encode(images[0].read_bytes()).decode("ascii")}
    response = server.http.post("/image-classification", json=payload)
    assert response.status_code == 200
    result = response.json()["result"]
    assert Image.open(io.BytesIO(base64.b64decode(result["image"]))).size == (48, 40)
    names = list(expected[0])
    for one in result["categories"]:
        assert names[one["id"]] == one["name"] and abs(one["score"] - expected[0][one["name"]]) < 1e-5
    content = server.http.post("/image-classification", json=payload | {"topk": 1, "visualize": False}).json()
    assert content["errorCode"] == 0 and content["errorMsg"] == "Success" and len(content["result"]["categories"]) == 1
    assert "image" not in content["result"]
    bombs = [b"[" * 200_000, b'{"image": ' * 50_000, b'{"image": 1e999}', b"\xff", b"", b"[]", b'{"image": "x y"}']
    wrong = [{"image": "http://host/a.jpg"}, payload | {"topk": 0}, payload | {"visualize": 3}]
    for body in [*bombs, *(json.dumps(one).encode() for one in wrong)]:
        response = server.http.post("/image-classification", content=body)
        assert response.status_code in (400, 422), response.text
        assert response.json()["errorCode"] == response.status_code and "; " in response.json()["errorMsg"]


def test_bad_files_get_errors_of_their_own(server, images, bad_files):
    """Guards against a bad file that fails the others of its request, or passes as an image."""
    for name, data in bad_files.items():
        assert_refused(server.http.post("/predict", files={"files": (name, data)}), 400, name if data else "no image")
    form = [("files", item) for item in bad_files.items()]
    response = server.http.post("/predict", files=[*form, ("files", ("good.png", images[0].read_bytes()))])
    results = {one["file"]: one for one in response.json()["results"]}
    assert response.status_code == 200 and "class" in results["good.png"]
    assert all(results[name]["error"].startswith(f"{name}: ") for name in bad_files)
    assert "1000000 pixels" in results["bomb.png"]["error"]
    assert_refused(server.http.post("/predict", files=form), 400, "no image among these")
    odd = server.http.post("/predict", files={"files": ("a\tb\x01 \u2028 名.png", images[0].read_bytes())})
    assert odd.json()["results"][0]["file"].isprintable()


def test_bad_requests_are_refused(server, images):
    """Guards against malformed bodies that end in 500, and limits that are not enforced."""
    good = images[0].read_bytes()
    post = server.http.post
    assert_refused(post("/predict"), 415)
    assert_refused(post("/predict", content=b"", headers={"Content-Type": "image/png"}), 400, "no image")
    assert_refused(post("/predict", json={"a": 1}), 415)
    assert_refused(post("/predict", files={"picture": ("a.png", good)}), 400, "'picture'")
    assert_refused(post("/predict", data={"files": "text"}, files={"x": ("", b"")}), 400)
    assert_refused(post("/predict", files=[("files", ("a.png", b"x"))] * 3000), 413, "Too many files")
    assert_refused(post("/predict", content=b"no form", headers={"Content-Type": "multipart/form-data"}), 400)
    assert_refused(
        post("/predict", content=b"x" * 99, headers={"Content-Type": "multipart/form-data; boundary=b"}), 400
    )
    assert_refused(post("/predict", content=b"x" * 2**21, headers={"Content-Type": "image/png"}), 413, "1 MB")
    assert_refused(server.http.get("/predict"), 405)
    assert_refused(server.http.get("/../../etc/passwd"), 404)
    assert post("/predict", files={"files": ("a.png", good)}).status_code == 200


def _raw(server, text: bytes, wait: float = 8) -> bytes:
    """Sends bytes as they are and reads until the server closes."""
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=wait) as line:
        line.sendall(text)
        received = b""
        while chunk := line.recv(65536):
            received += chunk
        return received


def test_slow_partial_and_huge_uploads_end(server):
    """Guards against connections that wait for ever for bytes that never arrive, and bodies that stay in memory."""
    head = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n"
    slow = _raw(server, head % 1000 + b"half")
    assert slow.startswith(b"HTTP/1.1 408") and b'"error"' in slow
    huge = _raw(server, head % 10**15 + b"x" * 1000)
    assert huge.startswith(b"HTTP/1.1 413") and b'"error"' in huge
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as line:
        line.sendall(head % 1000 + b"half")
    assert server.http.get("/healthz").status_code == 200
    end = time.monotonic() + 10
    while "serve_upload_bytes 0.0" not in server.http.get("/metrics").text:
        assert time.monotonic() < end, "an abandoned body is still held"


def test_state_and_headers(server, exported, images):
    """Guards against wrong model info, and pages that other sites may frame or script."""
    info = server.http.get("/model").json()
    assert info["classes"] == ["ox", "dragon", "dog"]
    assert info["image_shape"] == [3, 24, 24] and info["engine"] == "onednn" and info["gradcam"] and info["relabel"]
    assert info["limits"] == {"body_mb": 1.0, "files": 20, "pixels": 1_000_000}
    assert server.http.get("/readyz").status_code == 200
    headers = server.http.get("/healthz").headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert headers["x-frame-options"] == "DENY" and headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in server.http.get("/model", headers={"Origin": "http://evil"}).headers
    page = server.http.get("/docs")
    assert page.status_code == 200 and "https://" not in page.text
    metrics = server.http.get("/metrics").text
    assert 'serve_requests_total{code="200",path="/model"}' in metrics and "serve_batch_pictures_bucket" in metrics


def test_gradcam_and_relabel(server, images):
    """Guards against heat maps that fail or take unknown classes, and reports that break the TSV."""
    form = {"file": ("a.png", images[0].read_bytes())}
    for data in ({}, {"class": "ox"}):
        response = server.http.post("/gradcam", files=form, data=data)
        assert response.status_code == 200 and Image.open(io.BytesIO(response.content)).format == "PNG"
    assert_refused(server.http.post("/gradcam", files=form, data={"class": "unicorn"}), 400, "unicorn")
    assert_refused(server.http.post("/gradcam", files={"file": ("a.txt", b"x")}), 400, "not an image")
    assert_refused(server.http.post("/gradcam", files=[("file", ("a", b"x"))] * 2), 400)
    report = {"file": "a\tb\n.png", "digest": "ab12", "class": "ox", "note": "=cmd\r\nnext \ud800"}
    assert server.http.post("/relabel", content=json.dumps(report)).status_code == 200
    rows = server.reports.read_text("utf-8").split("\n")
    assert len(rows) == 3 and [len(row.split("\t")) for row in rows[:2]] == [6, 6]
    for body in (
        b"[" * 9000,
        b"{}",
        b'{"class": "unicorn"}',
        b'{"class": 3}',
        b'{"class": "ox", "path": "x"}',
        b"x" * 20_000,
    ):
        response = server.http.post("/relabel", content=body)
        assert response.status_code in (400, 413) and "error" in response.json()


def test_images_of_disconnected_clients_are_dropped(server, images):
    """Guards against a queue that processes images nobody waits for any more."""
    good = images[0].read_bytes()

    def processed() -> float:
        text = server.http.get("/metrics").text
        return float(text.partition("serve_batch_pictures_sum ")[2].split()[0])

    before, host, port = processed(), *server.address.removeprefix("http://").split(":")
    head = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(good)

    def send_and_leave() -> None:
        with socket.create_connection((host, int(port))) as line:
            line.sendall(head + good)

    threads = [threading.Thread(target=send_and_leave) for _ in range(300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.http.post("/predict", files={"files": ("a.png", good)}).status_code in (200, 503)
    assert processed() - before < 301
    assert server.http.get("/readyz").status_code == 200


def test_every_path_but_the_public_needs_the_token():
    """Guards against a route that responds without the token, and a health check that needs it."""

    async def inner(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"in"})

    app = Middleware(inner, "secret", {"/healthz"}, set(), Monitor())

    async def status_of(path, headers):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as client:
            return (await client.get(path, headers=headers)).status_code

    cases = [
        ("/predict", {}, 401), ("/predict", {"Authorization": "Bearer secreT"}, 401), ("/metrics", {}, 401),
        ("/predict", {"Authorization": "Basic secret"}, 401), ("/predict", {"Authorization": "Bearer é"}, 401),
        ("/predict", {"Authorization": "Bearer secret"}, 200), ("/healthz", {}, 200),
    ]  # fmt: skip
    for path, headers, status in cases:
        encoded = {name: value.encode() for name, value in headers.items()}
        assert asyncio.run(status_of(path, encoded)) == status, (path, headers)


def test_command_line_is_checked(command, exported, tmp_path):
    """Guards against a server that starts with options out of range, or fails with a traceback."""
    command("serve.py", cwd=tmp_path).refused("no exported model")
    command("serve.py", "nowhere", cwd=tmp_path).refused("nowhere")
    command("serve.py", str(exported), "--max-batch", "0", cwd=tmp_path).refused("--max-batch")
    command("serve.py", str(exported), "--max-files", "999", cwd=tmp_path).refused("--queue-size")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command("serve.py", str(exported), "--port", str(taken.getsockname()[1]), cwd=tmp_path).refused("--port")


def test_the_server_process_never_imports_paddle(tmp_path):
    """Guards against a server process that loads a gigabyte of framework to speak HTTP."""
    (tmp_path / "paddle.py").write_text("raise ImportError('paddle must not be imported here')\n")
    line = [sys.executable, "-W", "ignore", "-c", "import serving.server"]
    ended = subprocess.run(line, cwd=ROOT, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_the_documentation_lists_the_options_as_they_are():
    """Guards against options, defaults or metrics in docs/serve.md that serve.py does not have."""
    text = (ROOT / "docs" / "serve.md").read_text("utf-8")
    for one in fields(Options):
        if one.metadata:
            assert f"| `{option_name(one.name)}` | `{one.default}` | {one.metadata['help']} |" in text
    known = {option_name(one.name) for one in fields(Options)} | {
        "--no-install-recommends",
        "--no-cache-dir",
    }
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - known <= {"--system", "--rm", "--read-only", "--tmpfs"}
    metrics = Monitor().exposition().decode()
    for name in re.findall(r"`(serve_[a-z_]+?)(?:_total)?(?:\{|`)", text):
        assert name in metrics, name
    yaml.safe_load_all(text.partition("```yaml")[2].partition("```")[0])
