"""Batch jobs (optional): every image has one row, a killed job goes on, several processes share the work."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from shade_model import write_image

from inference.batch import options, parts, writers
from inference.batch.parts import Parts, Row
from inference.sources import ImageSource
from inference.terminal import Matches
from system import optional
from system.errors import UserError

ROOT = Path(__file__).parents[2]
JOB = {"model": "m"}


def _predict(parts: Parts, names: list[str], stop: int | None = None) -> list[int]:
    predicted = []
    for index, source in parts.remaining(map(ImageSource, names)):
        if stop is not None and len(predicted) == stop:
            break
        parts.add([Row(index, source.path, "", (index / 100, 1 - index / 100))])
        predicted.append(index)
    return predicted


def test_a_job_goes_on_without_predicting_twice(tmp_path):
    """Guards against a resumed job that predicts an image twice, skips one, or believes a torn line."""
    names = [f"{i}\t\\ü.png" for i in range(10)]
    with Parts(tmp_path / "o.tsv", JOB, 0, 1) as first:
        assert _predict(first, names, stop=4) == [0, 1, 2, 3]
        first.file.write(b"4\ttorn")
    with Parts(tmp_path / "o.tsv", JOB, 0, 1) as second:
        assert _predict(second, names) == [4, 5, 6, 7, 8, 9]
        assert (second.resumed, second.total) == (4, 10)
        assert second.finish()
        assert [(row.index, row.path) for row in second.rows()] == list(enumerate(names))


def test_a_job_goes_on_with_another_number_of_processes(tmp_path):
    """Guards against losing or repeating images when a job killed on three processes goes on with two."""
    names = [f"{i}.png" for i in range(23)]
    predicted, ends = [], []
    for rank in range(3):
        with Parts(tmp_path / "o.csv", JOB, rank, 3) as part:
            predicted += _predict(part, names, stop=rank + 1)
    for rank in range(2):
        part = Parts(tmp_path / "o.csv", JOB, rank, 2)
        predicted += _predict(part, names)
        ends.append(part.finish())
    assert sorted(predicted) == list(range(23))
    assert ends == [False, True]
    assert [row.index for row in part.rows()] == list(range(23))


def test_only_one_process_merges(tmp_path):
    """Guards against two processes that end at once and both write the file."""
    parts = [Parts(tmp_path / "o.csv", JOB, rank, 2) for rank in range(2)]
    for part in parts:
        _predict(part, ["a", "b"])
    assert [part.finish() for part in (*parts, parts[0])] == [False, True, False]


def test_a_disk_that_is_full_at_the_end_is_said(tmp_path, monkeypatch):
    """Guards against a job that ends well, but without a file, because its last mark could not be written."""

    def full(path, text):
        raise UserError(f"{path}: cannot be written (No space left on device); check the disk")

    with Parts(tmp_path / "o.tsv", JOB, 0, 1) as job:
        _predict(job, ["a.png"])
        monkeypatch.setattr(parts, "write_text", full)
        with pytest.raises(UserError, match="No space left"):
            job.finish()
    monkeypatch.undo()
    with Parts(tmp_path / "o.tsv", JOB, 0, 1) as again:
        assert _predict(again, ["a.png"]) == [] and again.finish()


def test_a_missing_part_is_refused(tmp_path):
    """Guards against merging without the rows of a machine whose part is elsewhere."""
    with Parts(tmp_path / "o.csv", JOB, 0, 2) as part:
        _predict(part, ["a", "b", "c"])
        assert not part.finish()
        with pytest.raises(UserError, match="image 1 of 3 has no prediction"):
            list(part.rows())


def test_another_job_is_not_continued(tmp_path):
    """Guards against mixing predictions of two models, or of a folder that has changed since."""
    with Parts(tmp_path / "o.csv", JOB, 0, 1) as part:
        _predict(part, ["a", "b"], stop=1)
    with pytest.raises(UserError, match="another model"):
        Parts(tmp_path / "o.csv", {"model": "other"}, 0, 1)
    with Parts(tmp_path / "o.csv", JOB, 0, 1) as part, pytest.raises(UserError, match=r"images have\s+changed"):
        _predict(part, ["x", "b"])


def test_two_processes_do_not_share_a_part(tmp_path):
    """Guards against two commands that append to one file at once."""
    with Parts(tmp_path / "o.csv", JOB, 0, 1), pytest.raises(UserError, match="works on it"):
        Parts(tmp_path / "o.csv", JOB, 0, 1)


@pytest.mark.parametrize("suffix", options.SUFFIXES)
def test_every_format_holds_every_row(tmp_path, suffix):
    """Guards against a format that drops failures, mixes columns up or forgets the threshold."""
    rows = [Row(0, "a,\t.png", "", (0.25, 0.75)), Row(1, "b.png", "missing: gone", ()), Row(2, "c.png", "", (0.5, 0.5))]
    path = tmp_path / f"o{suffix}"
    assert writers.write(path, iter(rows), ["x", "path"], 0.6) == (3, 1)
    if suffix == ".parquet":
        table = pyarrow.parquet.read_table(path).to_pylist()
        probabilities = table[0]["probabilities"]
    elif suffix == ".json":
        table = json.loads(path.read_text())
        probabilities = list(table[0]["probabilities"].values())
    else:
        with open(path, newline="") as file:
            lines = list(csv.reader(file, delimiter="\t" if suffix == ".tsv" else ","))
        table = [dict(zip(lines[0][:4], line, strict=False)) for line in lines[1:]]
        probabilities = [float(value) for value in lines[1][4:]]
    assert [row["path"] for row in table] == ["a,\t.png", "b.png", "c.png"]
    assert [row["prediction"] for row in table] == ["path", "", "none of these"]
    assert table[1]["error"] == "missing: gone"
    assert np.allclose(probabilities, [0.25, 0.75])


@pytest.mark.parametrize("suffix", options.SUFFIXES)
def test_every_format_holds_the_labels(tmp_path, suffix):
    """Guards against labels that a format drops, and a count that a rejected or unreadable image changes."""
    rows = [Row(0, "a", "", (0.9, 0.1), 0), Row(1, "b", "", (0.9, 0.1), 1), Row(2, "c", "", (0.5, 0.5), 0),
            Row(3, "d", "missing: gone", (), 1), Row(4, "e", "", (0.1, 0.9))]  # fmt: skip
    path, matches = tmp_path / f"o{suffix}", Matches()
    assert writers.write(path, iter(rows), ["x", "label"], 0.6, matches) == (5, 1)
    assert str(matches) == "1 of 3 predictions matches its label (33.3%)"
    if suffix == ".parquet":
        table = pyarrow.parquet.read_table(path).to_pylist()
    elif suffix == ".json":
        table = json.loads(path.read_text())
    else:
        with open(path, newline="") as file:
            table = list(csv.DictReader(file, delimiter="\t" if suffix == ".tsv" else ","))
        assert list(table[0]) == ["path", "label", "prediction", "probability", "error", "x", "label_"]
    assert [row["label"] or None for row in table] == ["x", "label", "x", "label", None]
    assert [row["prediction"] for row in table] == ["x", "x", "none of these", "", "label"]


def test_a_job_goes_on_with_the_same_labels(tmp_path):
    """Guards against labels that are lost where a job goes on, and against a list that was corrected meanwhile."""
    sources = [ImageSource("a:1", 11), ImageSource("b", None), ImageSource("c", 0)]
    with Parts(tmp_path / "o.csv", JOB, 0, 1) as first:
        for index, source in list(first.remaining(sources))[:2]:
            first.add([Row(index, source.path, "", (1.0,), source.label)])
    with Parts(tmp_path / "o.csv", JOB, 0, 1) as second:
        assert list(second.remaining(sources)) == [(2, sources[2])]
        second.add([Row(2, "c", "broken", (), 0)])
        assert second.finish()
        assert [(row.path, row.label) for row in second.rows()] == sources
    with (
        Parts(tmp_path / "o.csv", JOB, 0, 1) as third,
        pytest.raises(UserError, match="image 0 was 'a:1' with label 11 and is 'a:1' with label 3 now"),
    ):
        list(third.remaining([ImageSource("a:1", 3)]))


def test_parquet_is_written_in_groups_and_knows_its_classes(tmp_path, monkeypatch):
    """Guards against rows lost between two groups, names that no UTF-8 column holds, and lists of unnamed numbers."""
    monkeypatch.setattr(writers, "GROUP_ROWS", 2)
    names = ["a.png", os.fsdecode(b"b\xff.png"), "图.png", "d.png", "e.png"]
    rows = [
        Row(i, name, "broken: torn" if i == 3 else "", () if i == 3 else (0.75, 0.25)) for i, name in enumerate(names)
    ]
    path = tmp_path / "o.parquet"
    assert writers.write(path, iter(rows), ["狗", "path"], None) == (5, 1)
    file = pyarrow.parquet.ParquetFile(path)
    assert file.num_row_groups == 3
    assert json.loads(file.schema_arrow.metadata[b"class_names"]) == ["狗", "path"]
    table = file.read().to_pylist()
    assert [row["path"] for row in table] == ["a.png", "b\\udcff.png", "图.png", "d.png", "e.png"]
    assert [row["prediction"] for row in table] == ["狗", "狗", "狗", "", "狗"]
    assert (table[3]["probability"], table[3]["probabilities"], table[3]["error"]) == (None, [], "broken: torn")


def test_unknown_suffix_and_missing_pyarrow_are_one_line(monkeypatch):
    """Guards against predicting for hours and failing at the write."""
    with pytest.raises(UserError, match=r"\.xlsx"):
        options.check_suffix("a.xlsx")
    monkeypatch.setattr(optional, "is_installed", lambda *names: False)
    with pytest.raises(UserError, match="pip install pyarrow"):
        options.check_suffix("a.parquet")


PREDICT_SLOWLY = """
import sys, time
from types import SimpleNamespace
sys.path[:0] = [{root!r}, {tests!r}]
from shade_model import ShadeModel
from inference.batch.job import write_predictions
class Slow(ShadeModel):
    def predict(self, images):
        with open({log!r}, "a") as log:
            log.write("x" * len(images))
        time.sleep({pause})
        return super().predict(images)
settings = SimpleNamespace(num_workers=1, batch_size=2, max_pixels=10**6, top_k=1, threads=1)
write_predictions(sys.argv[2], True, [sys.argv[1]], Slow(), settings, lambda source, probabilities: None)
"""


def test_a_killed_job_goes_on(tmp_path):
    """Guards against a job that starts over, or loses rows, after kill -9."""
    for i in range(40):
        write_image(tmp_path / "in" / f"{i:02}.png", shade=i)
    out, log = tmp_path / "out.csv", tmp_path / "log"

    def program(pause: float) -> list[str]:
        text = PREDICT_SLOWLY.format(root=str(ROOT), tests=str(ROOT / "tests" / "inference"), log=str(log), pause=pause)
        return [sys.executable, "-c", text, str(tmp_path / "in"), str(out)]

    process = subprocess.Popen(program(0.2), cwd=tmp_path)
    part = tmp_path / "out.csv.parts" / "part-00000-of-00001.tsv"
    while process.poll() is None and not (part.is_file() and part.read_bytes().count(b"\n") >= 6):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = part.read_bytes().count(b"\n")
    assert 6 <= kept < 40 and not out.exists()
    before = len(log.read_text())
    done = subprocess.run(program(0), cwd=tmp_path, capture_output=True, text=True, check=True)
    assert f"{kept} images had been predicted earlier and were not repeated" in done.stderr
    assert len(log.read_text()) - before == 40 - kept
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["path"]).stem for row in rows] == [f"{i:02}" for i in range(40)]
    assert not (tmp_path / "out.csv.parts").exists()


@pytest.mark.slow
def test_two_launched_processes_share_the_images(drawn, trained, tmp_path):
    """Guards against a launch whose processes predict the same images, or leave the merging to each other."""
    alone = [str(ROOT / "predict.py"), str(drawn / "test"), "--run", str(trained.path), "--quiet", "--out"]
    launched = ["-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", str(tmp_path / "log"), *alone]
    for command in ([*launched, str(tmp_path / "two.tsv")], [*alone, str(tmp_path / "one.tsv")]):
        subprocess.run([sys.executable, *command], cwd=tmp_path, check=True, capture_output=True)
    tables = []
    for name in ("one", "two"):
        with open(tmp_path / f"{name}.tsv", newline="") as file:
            tables.append(list(csv.DictReader(file, delimiter="\t")))
    assert [row["path"] for row in tables[0]] == [row["path"] for row in tables[1]]
    assert [row["prediction"] for row in tables[0]] == [row["prediction"] for row in tables[1]]
    assert len(tables[0]) == 12 and not list(tmp_path.glob("*.parts"))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json"])
def test_names_of_columns_and_bytes_of_names(tmp_path, suffix):
    """Guards against two columns of one name, and against files that are not UTF-8 for a name that is not."""
    file = tmp_path / f"out{suffix}"
    names = ["error", "error_", "ok"]
    writers.write(file, [Row(0, "a\udcff.jpg", "", (0.5, 0.25, 0.25))], names, None)
    text = file.read_bytes().decode("utf-8")
    assert "a\\udcff.jpg" in text
    if suffix == ".json":
        assert json.loads(text)[0]["path"] == "a\udcff.jpg"
        assert list(json.loads(text)[0]["probabilities"]) == names
    else:
        header = next(csv.reader(text.splitlines(), delimiter="," if suffix == ".csv" else "\t"))
        assert header == [*writers.COLUMNS, "error__", "error_", "ok"]
