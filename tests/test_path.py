"""The whole path through the real command lines, in a folder with a space and Chinese letters, at an odd size.

Promises: a run, its export on every engine and its report agree; the size is written once; user files stay untouched.
"""

import csv
import json
import shutil
from pathlib import Path

import draw
import numpy as np
import pytest
import yaml
from paddle import inference

import annotate
import config
import evaluate
import export
import predict
import train
from annotation.lists import read_list
from imaging.images import read_image
from imaging.transforms import EvalTransform

ROOT = Path(__file__).resolve().parent.parent
SHAPE = (3, 40, 44)
CLASS_NAMES = ["dog", "dragon", "ox"]
DATA, RUN, EXPORT = "图 片", "训 练/一 run", "导 出/一 run"


def read_predictions(file: Path) -> tuple[list[str], list[str], np.ndarray]:
    """Paths, predictions and probabilities float64 [N, C] of predict.py's CSV."""
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
    """The working folder after every command has run in it."""
    place = clone / "工作 place"
    place.mkdir()
    draw.write_images(place / DATA, {"train": 6, "valid": 4, "test": 4}, CLASS_NAMES, (60, 45), 5)
    folders = {"output_dir": str(Path(RUN).parent), "export_dir": str(Path(EXPORT).parent)}
    changes = arguments_for(DATA, image_shape=list(SHAPE), run_name=Path(RUN).name, epochs=3, **folders)
    here = ["threads=1", f"data_dir={DATA}", *(f"{key}={value}" for key, value in folders.items())]
    for line in (
        ["annotate.py", *changes],
        ["train.py", *changes],
        ["evaluate.py", RUN, *here],
        ["predict.py", f"{DATA}/test", "threads=1", "--run", RUN, "--out", "run.csv"],
        ["predict.py", f"{DATA}/test.txt", "threads=1", "--run", RUN, "--out", "list.tsv", "--quiet"],
        ["export.py", *here],
        ["predict.py", f"{DATA}/test", "threads=1", "--model", EXPORT, "--out", "export.csv", "--show", "grid.png"],
        ["predict.py", f"{DATA}/test/ox", "threads=1", "--model", EXPORT, "--out", "export.json"],
    ):
        ended = command(*line, cwd=place, root=clone)
        assert ended.status == 0, (line, ended.out, ended.err)
        assert "Traceback" not in ended.err
    return place


def test_a_run_and_its_export_predict_the_same(walked):
    """Guards against a deployed model that differs from the trained one."""
    paths, predictions, probabilities = read_predictions(walked / "run.csv")
    same_paths, same_predictions, same_probabilities = read_predictions(walked / "export.csv")
    assert len(paths) == 12 and probabilities.shape == (12, 3)
    assert (paths, predictions) == (same_paths, same_predictions)
    assert np.abs(probabilities - same_probabilities).max() < 1e-5
    assert np.abs(probabilities.sum(1) - 1).max() < 1e-5
    assert read_image(walked / "grid.png", 10**8).width > 100
    rows = json.loads((walked / "export.json").read_text("utf-8"))
    assert [row["path"] for row in rows] == [path for path in paths if "/ox/" in path]


def test_paddle_inference_predicts_the_same_with_and_without_onednn(walked, monkeypatch):
    """Guards against a release whose oneDNN kernels compute something else."""
    monkeypatch.chdir(walked)
    samples = read_list(Path(f"{DATA}/test.txt"), 3)
    transform = EvalTransform.from_settings(config.load(base=f"{RUN}/config.yaml"))
    images = np.stack([transform(read_image(sample.file, 10**8)) for sample in samples]).astype("float32")
    found = []
    for onednn in (True, False):
        engine = inference.Config(f"{EXPORT}/inference.json", f"{EXPORT}/inference.pdiparams")
        engine.disable_glog_info()
        engine.enable_mkldnn() if onednn else engine.disable_mkldnn()
        predictor = inference.create_predictor(engine)
        predictor.get_input_handle(predictor.get_input_names()[0]).copy_from_cpu(images)
        predictor.run()
        found.append(predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu())
    assert np.abs(found[0] - found[1]).max() < 1e-5
    _, _, probabilities = read_predictions(walked / "run.csv")
    # The list is sorted like the images of a folder.
    assert np.abs(found[0] - probabilities).max() < 1e-4


def test_no_size_is_written_down_twice(walked):
    """Guards against a literal 224 or 64 on the way from the settings to the exported graph."""
    assert config.load(base=walked / RUN / "config.yaml").image_shape == SHAPE
    graph = json.dumps(json.loads((walked / EXPORT / "inference.json").read_text("utf-8")), separators=(",", ":"))
    assert "[-1,3,40,44]" in graph
    described = yaml.safe_load((walked / EXPORT / "inference.yml").read_text("utf-8"))["PreProcess"]["transform_ops"]
    operations = [op[name] for op in described for name in ("ResizeImage", "CropImage") if op.get(name)]
    assert [values["size"] for values in operations if "size" in values] == [[SHAPE[2], SHAPE[1]]]


def test_the_accuracy_is_that_of_the_predictions(walked):
    """Guards against an evaluation that sees other pixels, images or weights than a prediction."""
    metrics = json.loads((walked / RUN / "metrics.json").read_text("utf-8"))
    paths, predictions, probabilities = read_predictions(walked / "run.csv")
    assert (walked / DATA / "labels.txt").read_text().split() == CLASS_NAMES
    labels = np.array([Path(path).parent.name for path in paths])
    # A prediction may also be "none of these"; accuracy counts the likeliest class.
    accuracy = np.mean(np.array(CLASS_NAMES)[probabilities.argmax(1)] == labels)
    assert metrics["accuracy"] == pytest.approx(accuracy)
    assert np.mean(np.array(predictions) == labels) <= accuracy


def test_labels_of_a_list_are_kept(walked):
    """Guards against a table of predictions without the labels of its list."""
    with open(walked / "list.tsv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert list(rows[0]) == ["path", "label", "prediction", "probability", "error", *CLASS_NAMES]
    assert [row["label"] for row in rows] == [Path(row["path"]).parent.name for row in rows]
    assert [row["path"] for row in rows] == read_predictions(walked / "run.csv")[0]


def test_the_images_are_unchanged(walked):
    """Guards against a command that writes into the user's images."""
    for split in ("train", "valid", "test"):
        for class_name in CLASS_NAMES:
            files = sorted((walked / DATA / split / class_name).iterdir())
            for number, file in enumerate(files, 1):
                assert file.read_bytes() == draw.jpeg_bytes(class_name, split, number, (60, 45), 5)


def test_padded_images_are_the_same_to_every_command(tmp_path, monkeypatch, draw_data, call, arguments_for):
    """Guards against a command or an engine that crops or stretches the long images of a run that pads them."""
    monkeypatch.chdir(tmp_path)
    draw_data(tmp_path / "data", CLASS_NAMES, {"train": 4, "valid": 2, "test": 2}, size=(120, 30))
    changes = arguments_for("data", resize="pad", image_shape=[3, 24, 28], mean=[0.2, 0.4, 0.6], reject="off")
    here = ["data_dir=data", "threads=1"]
    assert call(annotate, *changes).status == call(train, *changes).status == 0
    assert call(evaluate, "output/short", *here).status == 0
    ended = call(export, "output/short", *here)
    refusal = "PaddleX refuses this export: it has no operator that pads; train with resize=stretch for one it reads"
    assert ended.status == 0 and refusal in ended.out, ended
    with open("output/short/predictions.tsv", encoding="utf-8", newline="") as file:
        expected = np.array(
            [[float(row[name]) for name in CLASS_NAMES] for row in csv.DictReader(file, delimiter="\t")]
        )
    shown = ["--run=output/short", *(f"--model=infer/short engine={name}" for name in ("plain", "onednn"))]
    for number, options in enumerate(shown):
        ended = call(predict, "data/test", *options.split(), *here, "--out", f"{number}.csv")
        assert ended.status == 0, ended
        _, _, probabilities = read_predictions(tmp_path / f"{number}.csv")
        assert np.abs(probabilities - expected).max() < 1e-5
    resize = yaml.safe_load(Path("infer/short/inference.yml").read_text("utf-8"))["PreProcess"]["transform_ops"][0]
    assert (resize["ResizeImage"]["pad"], resize["ResizeImage"]["fill"]) == ([28, 24], [51, 102, 153])


def test_nothing_is_left_behind(walked, clone):
    """Guards against temporary files that pile up, and against outputs written beside the code."""
    left = [path for path in walked.rglob(".*") if path.is_file() and path.name != ".annotate.db"]
    assert left == []
    beside = {path.name for path in clone.iterdir()} - {path.name for path in ROOT.iterdir()}
    assert beside == {walked.name}
