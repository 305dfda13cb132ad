"""The server over real HTTP: answers equal predict.py's, mistakes of clients are told in one sentence."""

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

import httpx
import numpy as np
import pytest
import yaml
from PIL import Image
from serving_process import ROOT, ServeProcess

LIMITS = ("--max-body-mb", "1", "--max-files", "20", "--queue-size", "40", "--max-pixels", "1000000")


@pytest.fixture(scope="session")
def exported(trained, tmp_path_factory, settings_for, drawn):
    import export

    return export.export(trained, settings_for(drawn, export_dir=str(tmp_path_factory.mktemp("served"))))


@pytest.fixture(scope="module")
def server(exported, trained):
    notes = exported.parent / "relabel.tsv"
    options = ("--workers", "1", "--upload-seconds", "2", "--run", str(trained.path), "--relabel-file", str(notes))
    started = ServeProcess(exported, *options, *LIMITS)
    started.notes = notes
    yield started
    assert started.end() == 0
    assert not [line for line in started.lines if "Traceback" in line]


@pytest.fixture(scope="module")
def images(drawn):
    return sorted(drawn.glob("test/*/*"))


@pytest.fixture(scope="module")
def expected(exported, images):
    """What predict.py computes for each image."""
    from inference.pipeline import answers
    from inference.predictor import ExportedModel

    model = ExportedModel(exported, engine="onednn")
    rows = [row for batch in answers(enumerate(map(str, images)), model, 5, 10**8, 1) for _, _, row in batch]
    return [dict(zip(model.class_names, row.tolist(), strict=True)) for row in rows]


def _same(told, row) -> bool:
    best = max(row, key=row.__getitem__)
    return (
        told["top"][0]["class"] == best
        and told["class"] in (best, None)
        and all(abs(one["probability"] - row[one["class"]]) < 1e-5 for one in told["top"])
    )


def refused(answer, status, *words):
    """Checks what every refusal promises: a 4xx, one sentence with a remedy, and no trace."""
    told = answer.json()["error"]
    assert answer.status_code == status, answer.text
    assert "; " in told or ": " in told
    assert "\n" not in told and "Traceback" not in answer.text and 'File "' not in answer.text
    for word in words:
        assert word in told


def test_answers_are_those_of_predict(server, images, expected):
    """Guards against other pixels, another class order or a swapped answer than predict.py's, in any request."""
    form = [("files", (path.name, path.read_bytes())) for path in images]
    answer = server.http.post("/predict", files=form).json()
    assert [one["file"] for one in answer["results"]] == [path.name for path in images]
    assert all(map(_same, answer["results"], expected)) and answer["milliseconds"] > 0
    raw = server.http.post("/predict", content=images[3].read_bytes(), headers={"Content-Type": "image/png"})
    assert _same(raw.json()["results"][0], expected[3])

    def ask(index):
        files = {"file": ("x.png", images[index % len(images)].read_bytes())}
        return _same(server.http.post("/predict", files=files).json()["results"][0], expected[index % len(images)])

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(ask, range(100)))


def test_published_paddlex_client_works(server, images, expected):
    """Guards against a form that clients of PaddleX's serving cannot read."""
    payload = {"image": base64.b64encode(images[0].read_bytes()).decode("ascii")}
    response = server.http.post("/image-classification", json=payload)
    assert response.status_code == 200
    result = response.json()["result"]
    assert Image.open(io.BytesIO(base64.b64decode(result["image"]))).size == (48, 40)
    names = list(expected[0])
    for one in result["categories"]:
        assert names[one["id"]] == one["name"] and abs(one["score"] - expected[0][one["name"]]) < 1e-5
    told = server.http.post("/image-classification", json=payload | {"topk": 1, "visualize": False}).json()
    assert told["errorCode"] == 0 and told["errorMsg"] == "Success" and len(told["result"]["categories"]) == 1
    assert "image" not in told["result"]
    bombs = [b"[" * 200_000, b'{"image": ' * 50_000, b'{"image": 1e999}', b"\xff", b"", b"[]", b'{"image": "x y"}']
    wrong = [{"image": "http://host/a.jpg"}, payload | {"topk": 0}, payload | {"visualize": 3}]
    for body in [*bombs, *(json.dumps(one).encode() for one in wrong)]:
        answer = server.http.post("/image-classification", content=body)
        assert answer.status_code in (400, 422), answer.text
        assert answer.json()["errorCode"] == answer.status_code and "; " in answer.json()["errorMsg"]


def bad_files() -> dict[str, bytes]:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = io.BytesIO()
    Image.fromarray(noise).save(whole, "JPEG")
    large = io.BytesIO()
    Image.new("1", (2000, 2000)).save(large, "PNG")
    return {
        "empty.png": b"",
        "text.txt": b"hello",
        "page.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "cut.jpg": whole.getvalue()[:900],
        "header.png": b"\x89PNG\r\n\x1a\n" + b"\0" * 40,
        "bomb.png": large.getvalue(),
        "pointer.jpg": b"version https://git-lfs.github.com/spec/v1\n",
    }


def test_bad_images_are_told_by_name(server, images):
    """Guards against a bad file that takes others along, passes as an image, or is told in a trace."""
    bad = bad_files()
    for name, data in bad.items():
        refused(server.http.post("/predict", files={"files": (name, data)}), 400, name if data else "no image")
    form = [("files", item) for item in bad.items()]
    answer = server.http.post("/predict", files=[*form, ("files", ("good.png", images[0].read_bytes()))])
    told = {one["file"]: one for one in answer.json()["results"]}
    assert answer.status_code == 200 and "class" in told["good.png"]
    assert all(told[name]["error"].startswith(f"{name}: ") for name in bad)
    assert "1000000 pixels" in told["bomb.png"]["error"]
    refused(server.http.post("/predict", files=form), 400, "no image among these")
    odd = server.http.post("/predict", files={"files": ("a\tb\x01 \u2028 名.png", images[0].read_bytes())})
    assert odd.json()["results"][0]["file"].isprintable()


def test_bad_requests_are_refused(server, images):
    """Guards against a wrong body that ends in 500, is held in memory, or keeps its connection for ever."""
    good = images[0].read_bytes()
    post = server.http.post
    refused(post("/predict"), 415)
    refused(post("/predict", content=b"", headers={"Content-Type": "image/png"}), 400, "no image")
    refused(post("/predict", json={"a": 1}), 415)
    refused(post("/predict", files={"picture": ("a.png", good)}), 400, "'picture'")
    refused(post("/predict", data={"files": "text"}, files={"x": ("", b"")}), 400)
    refused(post("/predict", files=[("files", ("a.png", b"x"))] * 3000), 413, "Too many files")
    refused(post("/predict", content=b"no form", headers={"Content-Type": "multipart/form-data"}), 400)
    refused(post("/predict", content=b"x" * 99, headers={"Content-Type": "multipart/form-data; boundary=b"}), 400)
    refused(post("/predict", content=b"x" * 2**21, headers={"Content-Type": "image/png"}), 413, "1 MB")
    refused(server.http.get("/predict"), 405)
    refused(server.http.get("/../../etc/passwd"), 404)
    assert post("/predict", files={"files": ("a.png", good)}).status_code == 200


def _raw(server, text: bytes, wait: float = 8) -> bytes:
    """Sends bytes as they are and reads until the server closes."""
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=wait) as line:
        line.sendall(text)
        told = b""
        while piece := line.recv(65536):
            told += piece
        return told


def test_slow_half_and_huge_uploads_end(server):
    """Guards against connections that wait for ever for bytes that never come."""
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
        assert time.monotonic() < end, "a body that nobody waits for is still held"


def test_state_and_headers(server, exported, images):
    """Guards against a server that lies about its model or sends pages that others may frame or script."""
    told = server.http.get("/model").json()
    assert told["classes"] == ["ox", "dragon", "dog"] or sorted(told["classes"]) == ["dog", "dragon", "ox"]
    assert told["image_shape"] == [3, 24, 24] and told["engine"] == "onednn" and told["gradcam"] and told["relabel"]
    assert told["limits"] == {"body_mb": 1.0, "files": 20, "pixels": 1_000_000}
    assert server.http.get("/readyz").status_code == 200
    answer = server.http.get("/healthz")
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["x-frame-options"] == "DENY" and answer.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in server.http.get("/model", headers={"Origin": "http://evil"}).headers
    page = server.http.get("/docs")
    assert page.status_code == 200 and "https://" not in page.text
    figures = server.http.get("/metrics").text
    assert 'serve_requests_total{code="200",path="/model"}' in figures and "serve_batch_pictures_bucket" in figures


def test_gradcam_and_relabel(server, images):
    """Guards against overlays of another class or file, and reports that break the TSV or keep what nobody sent."""
    form = {"file": ("a.png", images[0].read_bytes())}
    for data in ({}, {"class": "ox"}):
        answer = server.http.post("/gradcam", files=form, data=data)
        assert answer.status_code == 200 and Image.open(io.BytesIO(answer.content)).format == "PNG"
    refused(server.http.post("/gradcam", files=form, data={"class": "unicorn"}), 400, "unicorn")
    refused(server.http.post("/gradcam", files={"file": ("a.txt", b"x")}), 400, "not an image")
    refused(server.http.post("/gradcam", files=[("file", ("a", b"x"))] * 2), 400)
    note = {"file": "a\tb\n.png", "digest": "ab12", "class": "ox", "note": "=cmd\r\nnext \ud800"}
    assert server.http.post("/relabel", content=json.dumps(note)).status_code == 200
    rows = server.notes.read_text("utf-8").split("\n")
    assert len(rows) == 3 and [len(row.split("\t")) for row in rows[:2]] == [6, 6]
    for body in (
        b"[" * 9000,
        b"{}",
        b'{"class": "unicorn"}',
        b'{"class": 3}',
        b'{"class": "ox", "path": "x"}',
        b"x" * 20_000,
    ):
        answer = server.http.post("/relabel", content=body)
        assert answer.status_code in (400, 413) and "error" in answer.json()


def test_clients_that_hang_up_are_not_worked_for(server, images):
    """Guards against a queue that decodes images nobody waits for any more."""
    good = images[0].read_bytes()

    def batches() -> float:
        text = server.http.get("/metrics").text
        return float(text.partition("serve_batch_pictures_sum ")[2].split()[0])

    before, host, port = batches(), *server.address.removeprefix("http://").split(":")
    head = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(good)

    def leave() -> None:
        with socket.create_connection((host, int(port))) as line:
            line.sendall(head + good)

    threads = [threading.Thread(target=leave) for _ in range(300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.http.post("/predict", files={"files": ("a.png", good)}).status_code in (200, 503)
    assert batches() - before < 301
    assert server.http.get("/readyz").status_code == 200


def test_token_keeps_strangers_out():
    """Guards against a route that answers without the token, or a page that cannot be opened with it."""
    import asyncio

    from serving.access import Access
    from serving.monitoring import Monitor

    async def inner(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"in"})

    app = Access(inner, "secret", {"/healthz"}, set(), Monitor())

    async def ask(path, headers):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as client:
            return (await client.get(path, headers=headers)).status_code

    cases = [
        ("/predict", {}, 401), ("/predict", {"Authorization": "Bearer secreT"}, 401), ("/metrics", {}, 401),
        ("/predict", {"Authorization": "Basic secret"}, 401), ("/predict", {"Authorization": "Bearer é"}, 401),
        ("/predict", {"Authorization": "Bearer secret"}, 200), ("/healthz", {}, 200),
    ]  # fmt: skip
    for path, headers, status in cases:
        encoded = {name: value.encode() for name, value in headers.items()}
        assert asyncio.run(ask(path, encoded)) == status, (path, headers)


def test_command_line_is_checked(command, exported, tmp_path):
    """Guards against a server that starts with nonsense, or tells of it in a trace."""
    command("serve.py", cwd=tmp_path).refused("no exported model")
    command("serve.py", "nowhere", cwd=tmp_path).refused("nowhere")
    command("serve.py", str(exported), "--max-batch", "0", cwd=tmp_path).refused("--max-batch")
    command("serve.py", str(exported), "--max-files", "999", cwd=tmp_path).refused("--queue-size")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command("serve.py", str(exported), "--port", str(taken.getsockname()[1]), cwd=tmp_path).refused("--port")


def test_server_side_never_imports_paddle(tmp_path):
    """Guards against a front process that needs a gigabyte of framework to speak HTTP."""
    (tmp_path / "paddle.py").write_text("raise ImportError('paddle must not be imported here')\n")
    line = [sys.executable, "-W", "ignore", "-c", "import serving.server"]
    ended = subprocess.run(line, cwd=ROOT, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_the_page_about_serving_tells_the_options_as_they_are():
    """Guards against options, defaults or figures in docs/deploy.md that serve.py does not have."""
    from dataclasses import fields

    from serving.monitoring import Monitor
    from serving.options import Options

    text = (ROOT / "docs" / "deploy.md").read_text("utf-8")
    for one in fields(Options):
        if one.metadata:
            assert f"| `--{one.name.replace('_', '-')}` | `{one.default}` | {one.metadata['help']} |" in text
    known = {f"--{one.name.replace('_', '-')}" for one in fields(Options)} | {
        "--no-install-recommends",
        "--no-cache-dir",
    }
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - known <= {"--system", "--rm", "--read-only", "--tmpfs"}
    figures = Monitor().page().decode()
    for name in re.findall(r"`(serve_[a-z_]+?)(?:_total)?(?:\{|`)", text):
        assert name in figures, name
    yaml.safe_load_all(text.partition("```yaml")[2].partition("```")[0])
