"""The Ray Serve deployment, with a stand-in for Ray: the same responses as serve.py's /predict."""

import asyncio
import functools
import json
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest
from starlette.requests import Request

from serving import ray_app


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


def _post(app, body: bytes, content_type: str) -> tuple[int, dict]:
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/predict",
        "headers": [(b"content-type", content_type.encode())],
    }

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    response = asyncio.run(app(Request(scope, receive)))
    return response.status_code, json.loads(response.body)


def test_predict_of_a_deployment(ray, exported, images):
    """Guards against a deployment that drifts away from the classes it shares with serve.py."""
    app = ray_app.build({"folder": str(exported), "engine": "onednn"})
    status, content = _post(app, images[0].read_bytes(), "image/png")
    assert status == 200 and content["model"] == exported.name
    (result,) = content["results"]
    assert result["class"] in ("ox", "dragon", "dog", None)
    assert sum(one["probability"] for one in result["top"]) == pytest.approx(1, abs=1e-5)
    status, content = _post(app, b"no image", "image/png")
    assert status == 400 and "not an image" in content["error"]
    status, content = _post(app, b"{}", "application/json")
    assert status == 415 and "multipart/form-data" in content["error"]
