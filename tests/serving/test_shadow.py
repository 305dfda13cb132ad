"""A model beside the one that is served: it changes no response, and is compared image by image."""

import asyncio
import base64
from types import SimpleNamespace

import numpy as np
import pytest
from serving_process import ServeProcess, eventually
from test_operations import metric

import export
import serve
import train
from imaging.images import read_image
from inference import description
from inference.predictor import ExportedModel
from inference.ranking import is_rejected
from serving import worker
from serving.job_queue import Job
from serving.messages import Prediction, Task
from serving.monitoring import Monitor
from serving.refusal import RefusalError
from serving.shadow import Shadow
from system.errors import UserError


@pytest.fixture(scope="module")
def other(drawn, tmp_path_factory, settings_for):
    """An export of another run on the same data."""
    place = tmp_path_factory.mktemp("other")
    run = train.train(settings_for(drawn, output_dir=str(place), run_name="other", seed=5, epochs=1))
    return export.export(run, settings_for(drawn, export_dir=str(place / "infer")))


def test_a_shadow_is_compared_and_changes_no_response(exported, other, images):
    """Guards against predictions of the wrong model, and differences that are counted wrongly or not at all."""
    server = ServeProcess(exported, "--workers", "1", "--shadow", str(other))
    rows = []
    for folder in (exported, other):
        model = ExportedModel(folder, engine="onednn")
        pixels = np.stack([model.transform(read_image(path, 10**8)) for path in images])
        rows.append((model.predict(pixels), model))
    (old, model), (new, second) = rows
    files = [("files", (path.name, path.read_bytes())) for path in images]
    content = server.http.post("/predict", files=[*files, ("files", ("a.txt", b"text"))]).json()
    for result, row in zip(content["results"], old, strict=False):
        assert result["top"][0]["probability"] == pytest.approx(float(row.max()), abs=1e-5)
    coded = base64.b64encode(images[0].read_bytes()).decode()
    assert server.http.post("/image-classification", json={"image": coded, "topk": 1}).status_code == 200
    count = len(images) + 1
    eventually(lambda: server.http.get("/model").json()["shadow"]["compared"] >= count)
    info = server.http.get("/model").json()["shadow"]
    pairs = [*zip(old, new, strict=True), (old[0], new[0])]
    differ = sum(a.argmax() != b.argmax() for a, b in pairs)
    rejected = sum(is_rejected(a.max(), model.threshold) != is_rejected(b.max(), second.threshold) for a, b in pairs)
    assert differ > 0
    assert info["name"] == other.name and info["digest"] != server.http.get("/model").json()["digest"]
    assert info["class_differences"] == metric(server, "serve_shadow_class_differences_total") == differ
    assert info["rejection_differences"] == metric(server, "serve_shadow_rejection_differences_total") == rejected
    assert info["largest_difference"] == pytest.approx(float(np.abs(old - new).max()), abs=1e-5)
    assert metric(server, "serve_shadow_probability_difference_count") == count
    assert (info["failed"], info["dropped"]) == (0, 0)
    assert metric(server, 'serve_workers_live{pool="shadow"}') == 1
    assert server.end() == 0
    line = server.wait_for("shadow other")
    assert f"{count} images compared, {differ} of another class" in line and "0 not compared" in line


def test_a_shadow_of_other_classes_is_refused(command, exported, tmp_path, monkeypatch):
    """Guards against two models compared whose classes only look alike."""
    command("serve.py", str(exported), "--shadow", "nowhere", cwd=tmp_path).refused("nowhere", "--shadow")
    names = {exported: ["ox", "dog"], tmp_path: ["dog", "ox"]}
    monkeypatch.setattr(description, "read", lambda folder: SimpleNamespace(class_names=names[folder]))
    with pytest.raises(UserError, match="its classes, in their order"):
        serve.refuse_other_classes(exported, tmp_path)
    names[tmp_path] = names[exported]
    serve.refuse_other_classes(exported, tmp_path)


class FakePool:
    """Takes up to `room` jobs, and leaves them to the test."""

    def __init__(self, room=100):
        self.room, self.jobs, self.lines, self.is_draining = room, [], [], False
        self.model_info = {"name": "new", "digest": "d", "classes": ["ox", "dog"]}

    def submit(self, tasks, files, deadline):
        if len(self.jobs) >= self.room:
            raise RefusalError(503, "full")
        self.jobs += (jobs := [Job(task, data, deadline) for task, data in zip(tasks, files, strict=True)])
        return jobs

    def log(self, line):
        self.lines.append(line)


OX = Prediction([(0, "ox", 0.75), (1, "dog", 0.25)], False)
DOG = Prediction([(1, "dog", 0.625), (0, "ox", 0.375)], True)


def with_shadow(test, room=100, most_bytes=10):
    async def run():
        first, second = FakePool(), FakePool(room)
        await test(Shadow(first, second, Monitor(), most_bytes), first, second)

    asyncio.run(asyncio.wait_for(run(), 20))


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


def test_what_finds_no_room_is_dropped_and_counted():
    """Guards against a slow second model that fills the memory, or fails the response of the first."""

    async def test(shadow, first, second):
        shadow.offer([Task("a")] * 4, [b"123"] * 4, [OX, OX, RefusalError(400, "no image"), OX])
        assert len(second.jobs) == 2 and shadow.counts.dropped == 1
        second.room = 100
        shadow.offer([Task("b")] * 2, [b"4567", b"8"], [OX, OX])
        assert [job.data for job in second.jobs] == [b"123", b"123", b"4567"] and shadow.counts.dropped == 2
        assert all(job.task.is_comparison for job in second.jobs)
        for job, result in zip(second.jobs, (DOG, OX, RefusalError(503, "two workers died")), strict=True):
            job.result.set_result(result)
        await settle()
        counts = shadow.counts
        assert (counts.compared, counts.class_differences, counts.rejection_differences, counts.failed) == (2, 1, 1, 1)
        assert counts.largest_difference == 0.375 and shadow.bytes == 0
        first.is_draining = True
        shadow.offer([Task("c")], [b"9"], [OX])
        assert counts.dropped == 3

    with_shadow(test, room=2)


def test_a_new_export_begins_a_comparison_of_its_own():
    """Guards against counts that mix two models, and images lost from the sums at the end."""

    async def test(shadow, first, second):
        shadow.offer([Task("a")] * 2, [b"1", b"2"], [OX, OX])
        second.jobs[0].result.set_result(DOG)
        await settle()
        first.model_info = first.model_info | {"digest": "anew"}
        shadow.offer([Task("b")], [b"3"], [OX])
        assert "1 images compared, 1 of another class (100.0%)" in first.lines[0] and shadow.counts.compared == 0
        second.jobs[1].result.set_exception(RefusalError(503, "two workers died"))
        second.jobs[2].result.set_result(OX)
        await settle()
        assert (shadow.counts.compared, shadow.counts.failed) == (1, 0)
        shadow.offer([Task("c")], [b"4"], [OX])
        await settle()
        first.model_info = first.model_info | {"classes": ["ox", "cat"]}
        shadow.offer([Task("d")], [b"5"], [OX])
        await shadow.stop()
        assert shadow.counts.dropped == 2 and "2 not compared" in first.lines[-1] and shadow.bytes == 0

    with_shadow(test)


def test_a_background_worker_yields_the_processor(monkeypatch):
    """Guards against a second model that takes the processor from the first."""
    niced = []
    monkeypatch.setattr(worker.os, "nice", niced.append)
    machine = SimpleNamespace(bind=lambda cores: None, share_one_heap=lambda: None, prepare=_stop)
    monkeypatch.setattr(worker, "machine", machine)
    monkeypatch.setattr(worker.config, "load", lambda *_: SimpleNamespace(model_copy=lambda **_: None))
    plan = worker.WorkerPlan("folder", None, (), 1, "auto", 1, False)
    for one in (plan, worker.WorkerPlan(**vars(plan) | {"is_background": True})):
        with pytest.raises(StopIteration):
            worker._load(one)
    assert niced == [worker.BACKGROUND_NICENESS]


def _stop(settings):
    raise StopIteration
