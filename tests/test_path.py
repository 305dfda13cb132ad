"""The whole path through the real command lines, in a folder with a space and Chinese letters, at an odd size."""

import csv
import json
import shutil
from pathlib import Path

import draw
import numpy as np
import pytest
import yaml

import config
from annotation.lists import read_list
from imaging.images import read_image

ROOT = Path(__file__).resolve().parent.parent
SHAPE = (3, 40, 44)
CLASS_NAMES = ["dog", "dragon", "ox"]


def _table(file: Path) -> tuple[list[str], list[str], np.ndarray]:
    """Paths, first answers and probabilities float64 [N, C] of predict.py's CSV."""
    with open(file, encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    probabilities = np.array([[float(row[name]) for name in CLASS_NAMES] for row in rows])
    return [row["path"] for row in rows], [row["prediction"] for row in rows], probabilities


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A copy of the project, without images and outputs, in a folder whose name has a space and Chinese letters."""
    folder = tmp_path_factory.mktemp("clone") / "my 项目"
    folder.mkdir()
    for path in ROOT.iterdir():
        if path.suffix == ".py" or path.name == "config.yaml":
            shutil.copy(path, folder)
        elif (path / "__init__.py").is_file():
            shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def walked(clone, command, arguments_for) -> Path:
    """The folder after every command has run in it."""
    place = clone / "工作 place"
    place.mkdir()
    draw.write_images(place / "图 片", {"train": 6, "valid": 4, "test": 4}, CLASS_NAMES, (60, 45), 5)
    changes = arguments_for(
        "图 片", image_shape=list(SHAPE), output_dir="训 练", run_name="一 run", export_dir="导 出", epochs=3
    )
    here = [
        f"{key}={value}" for key, value in (("data_dir", "图 片"), ("output_dir", "训 练"), ("export_dir", "导 出"))
    ]
    asked = ["图 片/test", "threads=1"]
    for line in (
        ["annotate.py", *changes],
        ["train.py", *changes],
        ["evaluate.py", "训 练/一 run", *here, "threads=1"],
        ["predict.py", *asked, "--run", "训 练/一 run", "--out", "run.csv"],
        ["export.py", *here, "threads=1"],
        ["predict.py", *asked, "--model", "导 出/一 run", "--out", "export.csv", "--show", "grid.png"],
        ["predict.py", "图 片/test/ox", "threads=1", "--model", "导 出/一 run", "--out", "export.json"],
    ):
        ended = command(*line, cwd=place, root=clone)
        assert ended.status == 0, (line, ended.out, ended.err)
        assert "Traceback" not in ended.err
    return place


def test_the_run_and_its_export_give_the_same_answers(walked):
    """Guards against a deployed model that does not answer like the trained one."""
    paths, answers, probabilities = _table(walked / "run.csv")
    same_paths, same_answers, same_probabilities = _table(walked / "export.csv")
    assert len(paths) == 12 and probabilities.shape == (12, 3)
    assert (paths, answers) == (same_paths, same_answers)
    assert np.abs(probabilities - same_probabilities).max() < 1e-5
    assert np.abs(probabilities.sum(1) - 1).max() < 1e-5
    assert read_image(walked / "grid.png", 10**8).width > 100
    rows = json.loads((walked / "export.json").read_text("utf-8"))
    assert [row["path"] for row in rows] == [path for path in paths if "/ox/" in path]


def test_onednn_on_and_off_give_the_same_answers(walked, monkeypatch):
    """Guards against a release whose oneDNN kernels answer differently."""
    from paddle import inference

    from imaging.transforms import EvalTransform

    monkeypatch.chdir(walked)
    samples = read_list(Path("图 片/test.txt"), 3)
    transform = EvalTransform.from_settings(config.load(base="训 练/一 run/config.yaml"))
    images = np.stack([transform(read_image(sample.file, 10**8)) for sample in samples]).astype("float32")
    found = []
    for onednn in (True, False):
        engine = inference.Config("导 出/一 run/inference.json", "导 出/一 run/inference.pdiparams")
        engine.disable_glog_info()
        engine.enable_mkldnn() if onednn else engine.disable_mkldnn()
        predictor = inference.create_predictor(engine)
        predictor.get_input_handle(predictor.get_input_names()[0]).copy_from_cpu(images)
        predictor.run()
        found.append(predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu())
    assert np.abs(found[0] - found[1]).max() < 1e-5
    _, _, probabilities = _table(walked / "run.csv")
    # The list is sorted like the answers of a folder.
    assert np.abs(found[0] - probabilities).max() < 1e-4


def test_no_size_is_written_down_twice(walked):
    """Guards against a literal 224 or 64 on the way from the settings to the exported graph."""
    settings = config.load(base=walked / "训 练/一 run/config.yaml")
    assert settings.image_shape == SHAPE
    graph = json.dumps(json.loads((walked / "导 出/一 run/inference.json").read_text("utf-8")), separators=(",", ":"))
    assert "[-1,3,40,44]" in graph
    described = yaml.safe_load((walked / "导 出/一 run/inference.yml").read_text("utf-8"))["PreProcess"][
        "transform_ops"
    ]
    sizes = [
        op[name]["size"] for op in described for name in ("ResizeImage", "CropImage") if "size" in (op.get(name) or {})
    ]
    assert sizes == [[SHAPE[2], SHAPE[1]]]


def test_the_scores_are_those_of_the_answers(walked):
    """Guards against an evaluation that sees other pixels, images or weights than a prediction."""
    metrics = json.loads((walked / "训 练/一 run/metrics.json").read_text("utf-8"))
    paths, answers, _ = _table(walked / "run.csv")
    right = [answer == Path(path).parent.name for path, answer in zip(paths, answers, strict=True)]
    # An answer may also be "none of these": what counts for accuracy is the likeliest class.
    _, _, probabilities = _table(walked / "run.csv")
    assert (walked / "图 片/labels.txt").read_text().split() == CLASS_NAMES
    likeliest = [
        CLASS_NAMES[i] == Path(path).parent.name for path, i in zip(paths, probabilities.argmax(1), strict=True)
    ]
    assert metrics["accuracy"] == pytest.approx(np.mean(likeliest))
    assert np.mean(right) <= np.mean(likeliest)


def test_the_images_are_as_they_were(walked):
    """Guards against a command that writes into the user's images."""
    for split in ("train", "valid", "test"):
        for class_name in CLASS_NAMES:
            files = sorted((walked / "图 片" / split / class_name).iterdir())
            for number, file in enumerate(files, 1):
                assert file.read_bytes() == draw.jpeg_bytes(class_name, split, number, (60, 45), 5)


def test_nothing_is_left_behind(walked, clone):
    """Guards against temporary files that pile up, and against outputs written beside the code."""
    left = [path for path in walked.rglob(".*") if path.is_file() and path.name != ".annotate.db"]
    assert left == []
    beside = {path.name for path in clone.iterdir()} - {path.name for path in ROOT.iterdir()}
    assert beside == {"工作 place"}
