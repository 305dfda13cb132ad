"""The Ray Serve deployment, with a stand-in for Ray: the same responses as serve.py's /predict."""

import asyncio
import base64
import functools
import json
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest
from starlette.requests import Request

from serving import options, ray_app
from serving.job_queue import Job
from serving.messages import HeatMap, Task
from serving.options import Options
from serving.refusal import RefusalError
from system.errors import UserError


def _batch(max_batch_size, batch_wait_timeout_s):
    def wrap(method):
        @functools.wraps(method)
        async def one(item):
            (result,) = await method([item])
            return result

        return one

    return wrap


def _deployment(target, **options):
    return SimpleNamespace(bind=lambda *arguments: target(*arguments), options=options)


@pytest.fixture
def ray(monkeypatch):
    """A package called ray whose `serve` runs a deployment in this process."""
    package, serve = ModuleType("ray"), ModuleType("ray.serve")
    package.__spec__, package.serve = ModuleSpec("ray", None), serve
    serve.batch, serve.deployment = _batch, _deployment
    monkeypatch.setitem(sys.modules, "ray", package)
    monkeypatch.setitem(sys.modules, "ray.serve", serve)


class Client:
    """Sends requests to a deployment, as Ray's proxy does."""

    def __init__(self, app):
        self.app, self.loop = app, asyncio.new_event_loop()

    def send(self, path="/predict", body=b"", method="POST", **headers):
        """Returns the response, and its JSON."""
        encoded = [(name.replace("_", "-").lower().encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": method, "path": path, "headers": encoded, "query_string": b""}
        sent = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive():
            return next(sent, None) or await asyncio.Event().wait()

        response = self.loop.run_until_complete(asyncio.wait_for(self.app(Request(scope, receive)), 60))
        is_json = response.headers["content-type"] == "application/json" and response.body
        return response, json.loads(response.body) if is_json else None


@pytest.fixture
def client(ray, exported, monkeypatch):
    """Builds a deployment with arguments; returns its client."""
    clients = []

    def build(**arguments):
        clients.append(Client(ray_app.build({"folder": str(exported), "engine": "onednn"} | arguments)))
        return clients[-1]

    monkeypatch.setenv(options.TOKEN_VARIABLE, "")
    yield build
    for one in clients:
        one.loop.close()


def test_predict_of_a_deployment(client, exported, images):
    """Guards against a deployment that drifts away from the application it shares with serve.py."""
    ray = client(max_body_mb="1", max_files="3")
    response, content = ray.send(body=images[0].read_bytes(), content_type="image/png")
    assert response.status_code == 200 and content["model"] == exported.name
    # Ray's proxy adds one.
    assert "x-request-id" not in response.headers and response.headers["x-frame-options"] == "DENY"
    (result,) = content["results"]
    assert result["class"] in ("ox", "dragon", "dog", None)
    assert sum(one["probability"] for one in result["top"]) == pytest.approx(1, abs=1e-5)
    response, content = ray.send(body=b"no image", content_type="image/png")
    assert response.status_code == 400 and "not an image" in content["error"]
    response, content = ray.send(body=b"{}", content_type="application/json")
    assert response.status_code == 415 and "multipart/form-data" in content["error"]
    response, content = ray.send(body=b"x" * 2**21, content_type="image/png")
    assert response.status_code == 413 and "1 MB" in content["error"]
    coded = json.dumps({"image": base64.b64encode(images[0].read_bytes()).decode(), "visualize": False})
    response, content = ray.send("/image-classification", coded.encode())
    assert response.status_code == 200 and content["result"]["categories"][0]["score"] > 0


def test_other_routes_answer_or_say_why_not(client, exported):
    """Guards against health checks that fail, and routes that end in an error that tells nothing."""
    ray = client()
    for path, status in (("/healthz", 200), ("/readyz", 200), ("/model", 200), ("/", 200), ("/nowhere", 404)):
        assert ray.send(path, method="GET")[0].status_code == status, path
    head, _ = ray.send("/model", method="HEAD")
    assert head.status_code == 200 and head.body == b""
    assert ray.send("/model", method="GET")[1]["name"] == exported.name
    assert "metrics of Ray" in ray.send("/metrics", method="GET")[1]["error"]
    for path, words in (("/gradcam", "--run"), ("/relabel", "--relabel-file")):
        response, content = ray.send(path, b"{}", content_type="application/json")
        assert response.status_code == 404 and words in content["error"]
    response, content = ray.send("/predict", method="GET")
    assert response.status_code == 405 and "not allowed" in content["error"]


def test_a_deployment_needs_the_token(client, images, monkeypatch):
    """Guards against a cluster that answers everybody, though a token was set."""
    monkeypatch.setenv(options.TOKEN_VARIABLE, "secret\n")
    ray = client()
    image = images[0].read_bytes()
    assert ray.send(body=image, content_type="image/png")[0].status_code == 401
    assert ray.send("/healthz", method="GET")[0].status_code == 200
    right = {"content_type": "image/png", "authorization": "Bearer secret"}
    assert ray.send(body=image, **right)[0].status_code == 200
    assert ray.send(body=image, **right, sec_fetch_site="cross-site")[0].status_code == 403


class Fragile:
    """A model that fails on some images, as a decoder may on one that nobody foresaw."""

    def model_info(self):
        return {"name": "a"}

    def run(self, tasks, files):
        if b"odd" in files:
            raise ZeroDivisionError
        return [HeatMap(data) for data in files]


def test_an_image_that_fails_costs_no_other_its_result(ray, tmp_path, capfd):
    """Guards against one odd file by which a whole batch ends in 500, and a queue without an end."""

    async def run():
        replica = ray_app.Replica(Fragile(), Options(tmp_path, queue_size=3, max_files=3))
        replica.classify = None
        results = await replica._batch([Job(Task(data.decode()), data, 0.0) for data in (b"a", b"odd", b"b")])
        assert [results[0].image, results[2].image] == [b"a", b"b"]
        assert results[1].status == 503 and results[1].message.startswith("odd: ")
        waiting = asyncio.Event()

        async def wait(job):
            await waiting.wait()
            return HeatMap(job.data)

        replica.classify = wait
        jobs = replica.submit([Task("a")] * 3, [b"1", b"2", b"3"], 0.0)
        with pytest.raises(RefusalError, match="queue is full"):
            replica.submit([Task("a")], [b"4"], 0.0)
        jobs[0].result.cancel()
        waiting.set()
        assert [(await job.result).image for job in jobs[1:]] == [b"2", b"3"]
        await asyncio.gather(*replica.running)
        assert replica.waiting == 0

    asyncio.run(run())
    assert "ZeroDivisionError" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ({"port": "80"}, "Ray does this"),
        ({"shadow": "x"}, "unknown; give folder"),
        ({"max_pixels": "x"}, "not a number"),
        ({"max_pixels": "0"}, "out of range"),
        ({"queue_size": "8"}, "--queue-size"),
        ({"folder": "nowhere"}, "no inference.yml"),
    ],
)
def test_arguments_are_checked(client, argument, words):
    """Guards against limits of serve.py that are passed to Ray, and have no effect there."""
    with pytest.raises(UserError, match=words):
        client(**argument)
