"""The HTTP API: predictions are those of the exported model, and every error is one sentence with a remedy."""

import argparse
import asyncio
import base64
import io
import json
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import yaml
from PIL import Image
from serving_process import ROOT, ServeProcess

from imaging.images import read_image
from inference.predictor import ExportedModel
from serving import options
from serving.label_reports import LabelReports
from serving.middleware import Middleware, Names
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
    assert content["digest"] == server.http.get("/model").json()["digest"]
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
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n"
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


def test_who_holds_most_gives_way(exported, images):
    """Guards against one client whose slow bodies use up the memory for all, so that everybody else is refused."""
    started = ServeProcess(exported, "--workers", "1", "--max-body-mb", "1", "--max-upload-mb", "2")
    host, port = started.address.removeprefix("http://").split(":")
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 900000\r\n\r\n"
    held = lambda: started.http.get("/metrics").text.partition("\nserve_upload_bytes ")[2].split()[0]  # noqa: E731
    try:
        lines = [socket.create_connection((host, int(port)), 20, ("127.0.0.2", 0)) for _ in range(2)]
        for line in lines:
            line.sendall(head + b"x" * 880_000)
        while float(held()) < 1_760_000:
            time.sleep(0.01)
        padded = images[0].read_bytes() + b"\0" * 700_000
        form = {"files": ("a.jpg", padded)}
        assert [started.http.post("/predict", files=form).status_code for _ in range(3)] == [200, 200, 200]
        (ended,), *_ = select.select(lines, [], [], 20)
        answer = ended.recv(65536)
        assert answer.startswith(b"HTTP/1.1 503") and b"too many uploads" in answer
        (other,) = set(lines) - {ended}
        other.sendall(b"x" * 20_000)
        assert other.recv(65536).startswith(b"HTTP/1.1 400")
    finally:
        for line in lines:
            line.close()
        assert started.end() == 0


def test_state_and_headers(server, exported, images):
    """Guards against wrong model info, and pages that other sites may frame or script."""
    info = server.http.get("/model").json()
    assert info["classes"] == ["ox", "dragon", "dog"]
    assert info["cover"] == [24, 24] and info["fill"] is None
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
    kind = {"Content-Type": "application/json"}
    assert server.http.post("/relabel", content=json.dumps(report), headers=kind).status_code == 200
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
        response = server.http.post("/relabel", content=body, headers=kind)
        assert response.status_code in (400, 413) and "error" in response.json()


def test_a_heavy_image_comes_alone(exported, images):
    """Guards against an image that takes seconds to decode and holds up all others of its batch."""
    huge = io.BytesIO()
    Image.new("1", (5000, 4000)).save(huge, "PNG")
    started = ServeProcess(exported, "--workers", "1")
    try:
        form = [("files", (path.name, path.read_bytes())) for path in images[:3]]
        mixed = started.http.post("/predict", files=[*form, ("files", ("huge.png", huge.getvalue()))]).json()["results"]
        alone = started.http.post("/predict", files={"files": ("huge.png", huge.getvalue())}).json()["results"]
        assert [one["file"] for one in mixed] == [*(path.name for path in images[:3]), "huge.png"]
        assert mixed[3]["top"] == alone[0]["top"]
        # The mixed batch, its heavy image, and the other one twice: found heavy, then processed.
        assert 'serve_batch_pictures_bucket{le="1.0"} 3.0' in started.http.get("/metrics").text
    finally:
        assert started.end() == 0


def test_images_of_disconnected_clients_are_dropped(server, images):
    """Guards against a queue that processes images nobody waits for any more."""
    good = images[0].read_bytes()

    def processed() -> float:
        text = server.http.get("/metrics").text
        return float(text.partition("serve_batch_pictures_sum ")[2].split()[0])

    before, host, port = processed(), *server.address.removeprefix("http://").split(":")
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(
        good
    )

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

    app = Middleware(inner, "secret", Names("127.0.0.1", ()), {"/healthz"}, set(), Monitor())

    async def status_of(path, headers):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
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
    monitor = Monitor()
    monitor.watch({"classify": SimpleNamespace(pids=[], count=1, model_info={"name": "a"})})
    exposed = set(re.findall(r"# TYPE (serve_\w+) ", monitor.exposition().decode()))
    named = set(re.findall(r"`(serve_[a-z_]+)(?:\{[a-z,]+\})?`", text))
    assert named == {name for name in exposed if not name.endswith("_created")}
    yaml.safe_load_all(text.partition("```yaml")[2].partition("```")[0])


def test_a_page_of_another_site_is_refused(server):
    """Guards against a site that a user happens to visit, and that talks to the server in the user's browser."""
    report = {"file": "a", "digest": "", "class": "ox", "note": ""}
    for headers in (
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:8000"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
    ):
        assert_refused(server.http.post("/relabel", json=report, headers=headers), 403, "this server")
    assert_refused(server.http.get("/model", headers={"Host": "evil.example"}), 403, "--allowed-host")
    for path in ("/healthz", "/readyz", "/metrics"):
        assert server.http.get(path, headers={"Host": "10.0.0.7:8000"}).status_code == 200
    host = server.http.base_url.netloc.decode()
    same = {"Sec-Fetch-Site": "same-origin", "Origin": f"http://{host}"}
    assert server.http.post("/relabel", json=report, headers=same).status_code == 200
    response = server.http.post("/relabel", content=json.dumps(report), headers={"Content-Type": "text/plain"})
    assert_refused(response, 415, "application/json")


@pytest.mark.parametrize(
    ("bound", "given", "right", "wrong"),
    [
        ("127.0.0.1", (), ["127.0.0.1:8000", "LOCALHOST", "[::1]:80"], ["a.example", "", "127.0.0.2"]),
        ("192.168.0.7", ("cats.example",), ["192.168.0.7:1", "Cats.Example.", "cats.example:443"], ["localhost", "x"]),
        ("0.0.0.0", (), ["anything", "10.1.2.3:8000"], []),
        ("0.0.0.0", ("cats.example",), ["cats.example", "localhost:8000"], ["10.1.2.3", "evil.example"]),
        ("::", ("cats.example",), ["cats.example", "[::1]:8000"], ["[fe80::1]:8000"]),
    ],
)
def test_names_of_the_server(bound, given, right, wrong):
    """Guards against a server that nobody can reach, and one that answers to every name."""
    names = Names(bound, given)
    assert all(map(names.has, right)) and not any(map(names.has, wrong))


def test_reports_hold_nothing_that_a_spreadsheet_computes(server):
    """Guards against a stranger's formula in the file of whoever opens it, and a digest that is none."""
    for text in ("=1+1", "+1", "-1", "@SUM(1)"):
        report = {"file": text, "digest": "AB12", "class": "ox", "note": text}
        assert server.http.post("/relabel", json=report).status_code == 200
    cells = [cell for line in server.reports.read_text("utf-8").splitlines() for cell in line.split("\t")]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))] and "'=1+1" in cells
    for digest in ("=1", "xyz", "a b", "0" * 129):
        assert_refused(server.http.post("/relabel", json=report | {"digest": digest}), 400, "hexadecimal")


def test_a_full_disk_leaves_no_torn_row(tmp_path):
    """Guards against half a row that the next one is glued to."""
    program = """
import resource, sys
from pathlib import Path
from serving.label_reports import LabelReports
from serving.refusal import RefusalError
reports, refused = LabelReports(Path(sys.argv[1])), 0
report = {"file": "f" * 150, "digest": "", "class": "ox", "note": "n" * 150}
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))
for _ in range(20):
    try:
        reports.append(report, "m")
    except RefusalError as error:
        assert error.status == 503
        refused += 1
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
reports.append(report | {"file": "after"}, "m")
print(refused)
"""
    line = [sys.executable, "-c", program, str(tmp_path / "r.tsv")]
    ended = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    rows = (tmp_path / "r.tsv").read_text().splitlines()
    assert int(ended.stdout) > 0 and len(rows) == 1 + 20 - int(ended.stdout) + 1
    assert all(row.count("\t") == 5 for row in rows) and "after" in rows[-1]


def test_two_servers_write_one_file(tmp_path):
    """Guards against rows of two servers, or of two threads, that are mixed."""
    both = [LabelReports(tmp_path / "r.tsv") for _ in range(2)]
    with ThreadPoolExecutor(8) as pool:
        for number in range(200):
            pool.submit(both[number % 2].append, {"file": str(number), "class": "ox"}, "m")
    rows = (tmp_path / "r.tsv").read_text().splitlines()
    assert len(rows) == 201 and all(row.count("\t") == 5 for row in rows)
    assert sorted(int(row.split("\t")[2]) for row in rows[1:]) == list(range(200))


def test_base64_may_have_line_ends(server, images, expected):
    """Guards against the output of `base64`, which breaks lines, refused as if it were damaged."""
    text = base64.encodebytes(images[0].read_bytes()).decode()
    assert text.count("\n") > 1
    response = server.http.post("/image-classification", json={"image": text, "visualize": False})
    assert response.status_code == 200
    best = max(expected[0], key=expected[0].get)
    assert response.json()["result"]["categories"][0]["name"] == best


def test_a_token_of_a_file_is_its_text(monkeypatch, exported):
    """Guards against a secret whose last line end nobody sees, and which therefore never fits."""
    monkeypatch.setenv(options.TOKEN_VARIABLE, " abc\n")
    parser = argparse.ArgumentParser()
    parser.add_argument("--config")
    options.add_arguments(parser)
    assert options.read(parser.parse_args([str(exported)])).token == "abc"


def test_a_form_that_is_cut_off_is_refused(server, images):
    """Guards against an answer for the first of two files whose second was lost on the way."""
    data = images[0].read_bytes()
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\n%s\r\n'
    whole = part % (b"a.png", data) + part % (b"b.png", data) + b"--b--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    response = server.http.post("/predict", content=whole, headers=kind)
    assert response.status_code == 200 and len(response.json()["results"]) == 2
    quoted = {"Content-Type": 'multipart/form-data; boundary="b"; charset=utf-8'}
    assert server.http.post("/predict", content=whole + b"\r\n", headers=quoted).status_code == 200
    for end in (len(whole) - 3, len(whole) - 9, len(whole) - 200, len(part % (b"a.png", data)) + 5):
        assert_refused(server.http.post("/predict", content=whole[:end], headers=kind), 400, "malformed form")


def test_head_is_get_without_a_body(server):
    """Guards against monitors that ask with HEAD and get an error, and redirects that repeat a stranger's Host."""
    for path in ("/healthz", "/model", "/", "/metrics"):
        head, get = server.http.head(path), server.http.get(path)
        assert head.status_code == get.status_code == 200 and head.content == b""
    response = server.http.get("/model/", follow_redirects=False)
    assert response.status_code == 404 and "location" not in response.headers
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]+\+00:00", server.http.get("/model").json()["loaded"])


def test_half_a_body_does_not_hold_the_end(exported):
    """Guards against a shutdown that waits half a minute for a client that sends nothing more."""
    started = ServeProcess(exported, "--workers", "1", "--upload-seconds", "60")
    host, port = started.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\n"
        connection.sendall(head + b"half")
        time.sleep(0.3)
        before = time.monotonic()
        started.process.send_signal(signal.SIGTERM)
        answer = b""
        while chunk := connection.recv(4096):
            answer += chunk
        assert started.process.wait(30) == 0
        assert (
            answer.startswith(b"HTTP/1.1 503") and b"shutting down" in answer and b"connection: close" in answer.lower()
        )
        # What is waited for is DRAIN_SECONDS; the limit is that of a machine under load.
        assert time.monotonic() - before < 25
    started.end()
