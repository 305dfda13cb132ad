"""Predicting: every image has one row, a killed job goes on, several processes share the work."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imaging.images import ImageError
from imaging.transforms import EvalTransform
from inference.batch import writers
from inference.batch.parts import Parts, Row
from inference.pipeline import answers
from inference.sources import find_images
from system.errors import UserError

ROOT = Path(__file__).parents[2]
JOB = {"model": "m"}


def _write(path: Path, shade: int = 0) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 7), (shade, 0, 0)).save(path)
    return str(path)


class ShadeModel:
    """Answers with the image's own red, so that a swapped row shows."""

    class_names = ("dark", "bright")
    threshold = None
    transform = EvalTransform(4, 4, None)

    def predict(self, images):
        red = images[:, 0].mean(axis=(1, 2)) / 255
        return np.stack([1 - red, red], axis=1).astype("float32")


def _rows(parts: Parts, names: list[str], stop: int | None = None) -> list[int]:
    scored = []
    for index, path in parts.left(names):
        if stop is not None and len(scored) == stop:
            break
        parts.add([Row(index, path, "", (index / 100, 1 - index / 100))])
        scored.append(index)
    return scored


def test_sources_read_lists_folders_and_patterns(tmp_path, monkeypatch):
    """Guards against a list whose paths, tabs or class numbers are taken for something else."""
    names = [_write(tmp_path / "data" / "a" / name) for name in ("1.png", "2.png")]
    text = "﻿data/a/1.png\t0\r\na/2.png\t1\n\nmissing.png\n"
    (tmp_path / "data" / "list.txt").write_text(text, encoding="utf-8", newline="")
    monkeypatch.chdir(tmp_path / "data")
    found = list(find_images([str(tmp_path / "data" / "list.txt")]))
    assert [os.path.realpath(path) for path in found[:2]] == [os.path.realpath(name) for name in names]
    assert found[2:] == ["missing.png"]
    assert list(find_images([str(tmp_path / "data")])) == names
    assert list(find_images([str(tmp_path / "data" / "a" / "?.png")])) == names
    (tmp_path / "bad.tsv").write_text("a.png\tcat\n")
    for argument, words in (("*.nothing", "no file matches"), (str(tmp_path / "bad.tsv"), "PATH<TAB>INDEX")):
        with pytest.raises(UserError, match=words):
            list(find_images([argument]))


@pytest.mark.parametrize("workers", [1, 4])
def test_answers_keep_order_and_failures(tmp_path, workers):
    """Guards against rows that are another image's when decoding runs beside inference, or failures that vanish."""
    names = [_write(tmp_path / f"{i:02}.png", shade=i * 10) for i in range(20)]
    Path(names[3]).write_bytes(b"no image")
    names.insert(11, str(tmp_path / "missing.png"))
    got = [item for batch in answers(enumerate(names), ShadeModel(), 4, 10**6, workers) for item in batch]
    assert [(index, path) for index, path, _ in got] == list(enumerate(names))
    assert [index for index, _, answer in got if isinstance(answer, ImageError)] == [3, 11]
    for _, path, answer in got:
        if not isinstance(answer, ImageError):
            assert abs(answer[1] - int(Path(path).stem) * 10 / 255) < 1e-6


def test_pipeline_reads_no_more_than_it_needs():
    """Guards against memory that grows with the number of images: an endless list must give its first batch."""
    asked = []

    def endless():
        while True:
            asked.append(1)
            yield len(asked), "missing.png"

    stream = answers(endless(), ShadeModel(), 8, 10**6, 2)
    assert len(next(stream)) == 8
    assert len(asked) <= 4 * 8
    stream.close()


def test_parts_go_on_without_scoring_twice(tmp_path):
    """Guards against a resumed job that scores an image twice, skips one, or believes a torn line."""
    names = [f"{i}\t\\ü.png" for i in range(10)]
    out = tmp_path / "o.tsv"
    first = Parts(out, JOB, 0, 1)
    assert _rows(first, names, stop=4) == [0, 1, 2, 3]
    first.file.write(b"4\ttorn")
    first.file.close()
    second = Parts(out, JOB, 0, 1)
    assert _rows(second, names) == [4, 5, 6, 7, 8, 9]
    assert (second.found, second.total) == (4, 10)
    assert second.finish()
    assert [(row.index, row.path) for row in second.rows()] == list(enumerate(names))


def test_parts_go_on_with_another_number_of_processes(tmp_path):
    """Guards against losing or repeating images when a job killed on three processes goes on with two."""
    names = [f"{i}.png" for i in range(23)]
    scored = []
    for rank in range(3):
        part = Parts(tmp_path / "o.csv", JOB, rank, 3)
        scored += _rows(part, names, stop=rank + 1)
        part.file.close()
    ends = []
    for rank in range(2):
        part = Parts(tmp_path / "o.csv", JOB, rank, 2)
        scored += _rows(part, names)
        ends.append(part.finish())
    assert sorted(scored) == list(range(23))
    assert ends == [False, True]
    assert [row.index for row in part.rows()] == list(range(23))


def test_missing_part_is_told(tmp_path):
    """Guards against merging without the rows of a machine whose part is elsewhere."""
    part = Parts(tmp_path / "o.csv", JOB, 0, 2)
    _rows(part, ["a", "b", "c"])
    assert not part.finish()
    with pytest.raises(UserError, match="image 1 of 3 has no answer"):
        list(part.rows())


def test_another_job_is_not_continued(tmp_path):
    """Guards against mixing answers of two models, or of a folder that has changed since."""
    part = Parts(tmp_path / "o.csv", JOB, 0, 1)
    _rows(part, ["a", "b"], stop=1)
    part.file.close()
    with pytest.raises(UserError, match="another model"):
        Parts(tmp_path / "o.csv", {"model": "other"}, 0, 1)
    with pytest.raises(UserError, match=r"images have\s+changed"):
        _rows(Parts(tmp_path / "o.csv", JOB, 0, 1), ["x", "b"])


def test_two_processes_do_not_share_a_part(tmp_path):
    """Guards against two commands that append to one file at once."""
    part = Parts(tmp_path / "o.csv", JOB, 0, 1)
    with pytest.raises(UserError, match="works on it"):
        Parts(tmp_path / "o.csv", JOB, 0, 1)
    part.file.close()


@pytest.mark.parametrize("suffix", writers.SUFFIXES)
def test_every_format_holds_every_row(tmp_path, suffix):
    """Guards against a format that drops failures, mixes columns up or forgets the threshold."""
    rows = [Row(0, "a,\t.png", "", (0.25, 0.75)), Row(1, "b.png", "missing: gone", ()), Row(2, "c.png", "", (0.5, 0.5))]
    path = tmp_path / f"o{suffix}"
    assert writers.write(path, iter(rows), ["x", "path"], 0.6, "none of these") == (3, 1)
    if suffix == ".parquet":
        import pyarrow.parquet

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


def test_parquet_is_written_in_groups_and_knows_its_classes(tmp_path, monkeypatch):
    """Guards against rows lost between two groups, names that no UTF-8 column holds, and lists of unnamed numbers."""
    import pyarrow.parquet

    monkeypatch.setattr(writers, "GROUP_ROWS", 2)
    names = ["a.png", os.fsdecode(b"b\xff.png"), "图.png", "d.png", "e.png"]
    rows = [
        Row(i, name, "broken: torn" if i == 3 else "", () if i == 3 else (0.75, 0.25)) for i, name in enumerate(names)
    ]
    path = tmp_path / "o.parquet"
    assert writers.write(path, iter(rows), ["狗", "path"], None, "none of these") == (5, 1)
    file = pyarrow.parquet.ParquetFile(path)
    assert file.num_row_groups == 3
    assert json.loads(file.schema_arrow.metadata[b"class_names"]) == ["狗", "path"]
    table = file.read().to_pylist()
    assert [row["path"] for row in table] == ["a.png", "b\\udcff.png", "图.png", "d.png", "e.png"]
    assert [row["prediction"] for row in table] == ["狗", "狗", "狗", "", "狗"]
    assert (table[3]["probability"], table[3]["probabilities"], table[3]["error"]) == (None, [], "broken: torn")


def test_unknown_suffix_and_missing_pyarrow_are_one_line(monkeypatch):
    """Guards against scoring for hours and failing at the write."""
    with pytest.raises(UserError, match=r"\.xlsx"):
        writers.check_suffix("a.xlsx")
    monkeypatch.setattr(writers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install pyarrow"):
        writers.check_suffix("a.parquet")


SCORE_SLOWLY = """
import sys, time
from types import SimpleNamespace
sys.path[:0] = [{root!r}, {tests!r}]
import predict, test_predict
class Slow(test_predict.ShadeModel):
    identity = "slow"
    def predict(self, images):
        with open({log!r}, "a") as log:
            log.write("x" * len(images))
        time.sleep({pause})
        return super().predict(images)
settings = SimpleNamespace(num_workers=1, batch_size=2, max_pixels=10**6, top_k=1, threads=1)
predict.write_answers([sys.argv[1]], Slow(), settings, sys.argv[2], predict.Gallery(None, None), quiet=True)
"""


def test_kill_and_go_on(tmp_path):
    """Guards against a job that starts over, or loses rows, after kill -9."""
    for i in range(40):
        _write(tmp_path / "in" / f"{i:02}.png", shade=i)
    out, log = tmp_path / "out.csv", tmp_path / "log"

    def program(pause: float) -> list[str]:
        text = SCORE_SLOWLY.format(root=str(ROOT), tests=str(ROOT / "tests" / "inference"), log=str(log), pause=pause)
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
    assert f"{kept} images had been scored earlier" in done.stderr
    assert len(log.read_text()) - before == 40 - kept
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["path"]).stem for row in rows] == [f"{i:02}" for i in range(40)]
    assert not (tmp_path / "out.csv.parts").exists()


def test_explain_draws_a_heat_map_and_refuses_an_export(drawn, trained, tmp_path):
    """Guards against an overlay that is only the image, and a traceback where an export has no gradients."""
    image = next((drawn / "test").rglob("*.jpg"))
    plain, heated = tmp_path / "plain.png", tmp_path / "heated.png"
    command = [sys.executable, str(ROOT / "predict.py"), str(image)]
    done = subprocess.run([*command, "--run", str(trained.path), "--show", str(plain), "--explain", str(heated)])
    assert done.returncode == 0
    drawings = [np.asarray(Image.open(file).convert("RGB"), np.int32) for file in (plain, heated)]
    assert np.abs(drawings[0] - drawings[1]).max() > 40
    refused = subprocess.run(
        [*command, "--model", str(trained.path), "--explain", str(heated)], capture_output=True, text=True
    )
    assert refused.returncode == 2
    assert "an exported graph has no gradients" in refused.stderr


@pytest.mark.slow
def test_two_launched_processes_share_the_images(drawn, trained, tmp_path):
    """Guards against a launch whose processes score the same images, or leave the merging to each other."""
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
