"""Export: the folder alone predicts like the run, appears whole or not at all, and is refused where it differs."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
import yaml

import export
from annotation.lists import Sample
from evaluation import metrics
from imaging.images import read_image
from imaging.transforms import EvalTransform
from inference import description, graphs, predictor
from inference.export_folder import remove_leftovers
from inference.extras import EXTRAS
from inference.model_card import write_card
from inference.predictor import ExportedModel
from inference.verification import Tally, Verification
from models.checkpoint import Run
from models.weights_files import read_weights
from system.errors import UserError

ROOT = Path(__file__).parents[2]
CLASS_NAMES = ["red", "green", "blue"]


def _load(folder: Path, engine: str = "plain") -> ExportedModel:
    return ExportedModel(folder, engine=engine)


def test_the_folder_alone_predicts_like_the_run(made, exported):
    """Guards against an export that differs from its run in weights, pixels, temperature or class order."""
    run, settings = made
    network, transform = run.load_network(), EvalTransform.from_settings(settings)
    for path in sorted(Path(settings.data_dir, "test").rglob("*.png")):
        image = read_image(path, settings.max_pixels)
        expected = paddle.nn.functional.softmax(network(paddle.to_tensor(transform(image)[None]))).numpy()
        for engine in ("plain", "onednn"):
            model = ExportedModel(exported, engine=engine)
            assert model.class_names == CLASS_NAMES
            assert np.abs(model.predict(model.transform(image)[None]) - expected).max() < 1e-4


def test_the_example_verifies_the_pixels_of_a_client(exported):
    """Guards against digests in example.json that are of other pixels than the graph expects."""
    model = _load(exported)
    content = json.loads((exported / "example.json").read_text())
    assert len(content["examples"]) == 3
    for example in content["examples"]:
        pixels = model.transform(read_image(example["picture"], 10**8))
        assert hashlib.sha256(pixels.tobytes()).hexdigest() == example["pixels_sha256"]
        row = model.predict(pixels[None])[0]
        assert np.allclose(row, list(example["probabilities"].values()), atol=1e-4)


def test_inference_yml_and_the_card_hold_what_was_verified(exported):
    """Guards against a card without the figures of the verification, or a PaddleX pipeline that normalises twice."""
    content = yaml.safe_load((exported / "inference.yml").read_text(encoding="utf-8"))
    assert content["Checks"]["pictures"] == 12
    assert content["Versions"]["format"] == description.FORMAT
    assert {"plain", "onednn"} <= set(content["Checks"]["engines"])
    operators = {name: value for step in content["PreProcess"]["transform_ops"] for name, value in step.items()}
    assert operators["CropImage"]["size"] == [24, 40]
    assert (operators["NormalizeImage"]["mean"], operators["NormalizeImage"]["std"]) == ([0.0] * 3, [1.0] * 3)
    card = (exported / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert content["Digests"]["inference.pdiparams"] in card and "valid accuracy" in card


def test_the_temperature_is_inside_the_graph(exported, export_to, tmp_path, monkeypatch):
    """Guards against a temperature that inference.yml names and nobody applies."""
    monkeypatch.setattr(Run, "calibration", {"temperature": 2.5, "threshold": 0.4})
    hot, cold = _load(export_to(tmp_path)), _load(exported)
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 40, 24), dtype=np.uint8)
    flat = cold.predict(images) ** (1 / 2.5)
    assert np.allclose(hot.predict(images), flat / flat.sum(axis=1, keepdims=True), atol=1e-5)
    assert (hot.temperature, hot.threshold, cold.threshold) == (2.5, 0.4, None)


def _change_weight(monkeypatch):
    save = graphs._save

    def changed(classifier, *rest):
        weight = classifier.network.parameters()[0]
        before = weight.numpy()
        after = before.copy()
        after[0, 0, 0, 0] += 0.5
        weight.set_value(after)
        save(classifier, *rest)
        weight.set_value(before)

    monkeypatch.setattr(graphs, "_save", changed)


def _change_mean(monkeypatch):
    save = graphs._save

    def changed(classifier, *rest):
        classifier.shift.set_value(classifier.shift + 0.05)
        save(classifier, *rest)
        classifier.shift.set_value(classifier.shift - 0.05)

    monkeypatch.setattr(graphs, "_save", changed)


def _change_description(monkeypatch, change):
    compose = description.compose

    def changed(*arguments):
        content = compose(*arguments)
        change(content)
        return content

    monkeypatch.setattr(description, "compose", changed)


def _swap_classes(monkeypatch):
    _change_description(monkeypatch, lambda content: content["PostProcess"]["Topk"]["label_list"].reverse())


def _change_resize(monkeypatch):
    def change(content):
        resize = content["PreProcess"]["transform_ops"][0]["ResizeImage"]
        resize["cover"] = [side + 4 for side in resize["cover"]]

    _change_description(monkeypatch, change)


@pytest.mark.parametrize(
    ("sabotage", "words"),
    [
        (_change_weight, ("engine ", "probabilities differ by")),
        (_change_mean, ("engine ", "probabilities differ by")),
        (_swap_classes, ("engine ", "class 0 is blue in the export and red in the run")),
        (_change_resize, ("engine ", "probabilities differ by")),
    ],
    ids=["one weight", "mean", "class order", "resize"],
)
def test_a_difference_from_the_run_is_refused_and_leaves_nothing(export_to, tmp_path, monkeypatch, sabotage, words):
    """Guards against an exporter that ships a graph, mean, label map or resize that is not the run's."""
    sabotage(monkeypatch)
    # The example would catch most of these when the folder is loaded; here the verification has to.
    monkeypatch.setattr(predictor, "EXAMPLE_TOLERANCE", 10.0)
    with pytest.raises(UserError) as refusal:
        export_to(tmp_path / "infer")
    assert all(word in str(refusal.value) for word in words), refusal.value
    if "probabilities" in words[1]:
        assert "/valid/" in str(refusal.value).partition(":")[0]
    assert list((tmp_path / "infer").iterdir()) == []


def test_one_line_per_engine_is_printed():
    """Guards against a table whose columns drift, and an 8-bit engine whose loss of accuracy is hidden."""
    result = Verification("valid", Tally(images=12, correct=11), {"onednn": Tally(12, 2.34e-7, top_1_agrees=12)})
    result.engines["int8"] = Tally(12, 0.0213, top_1_agrees=11, correct=10)
    result.milliseconds = {"onednn": 11.104, "int8": 7.6}
    lines = [
        "onednn  top-1 agrees on 12 of 12 valid images, probabilities differ by at most 2.3e-07, 11.10 ms per image",
        "int8    top-1 agrees on 11 of 12 valid images, probabilities differ by at most 2.1e-02, 7.60 ms per image",
    ]
    if "int8" in EXTRAS:
        lines[1] += "; accuracy 0.8333, the run's 0.9167 (+8.33 points lost)"
    assert result.table().splitlines() == lines


def test_the_card_shows_every_metric_and_setting(made, exported, tmp_path):
    """Guards against a card that loses a score or a setting because it asks for a key that is not there."""
    run, settings = made
    shutil.copy(exported / "inference.yml", tmp_path)
    rows = [("accuracy", "0.9500"), ("top-2 accuracy", "1.0000")]
    write_card(tmp_path, run.name, settings, {"split": "test", "num_pictures": 40}, rows)
    card = (tmp_path / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "On the test list, 40 images." in card
    assert "| accuracy | 0.9500 |\n| top-2 accuracy | 1.0000 |" in card
    assert "| train | 12 |\n| valid | 12 |\n| test | 6 |" in card
    assert '| loss | "cross_entropy" |' in card


def test_the_card_takes_the_scores_of_the_report(made, export_to, tmp_path):
    """Guards against an evaluated run whose card says that it was not."""
    run, _ = made
    report = {"split": "test", "num_pictures": 6, "top_k": 5, "num_classes": 6}
    report |= {name: index / 10 for index, name in enumerate(metrics.METRICS)}
    (run.path / "metrics.json").write_text(json.dumps(report))
    try:
        card = (export_to(tmp_path) / "MODEL_CARD.md").read_text(encoding="utf-8")
    finally:
        (run.path / "metrics.json").unlink()
    assert "On the test list, 6 images." in card
    assert all(f"| {label} | {value} |" in card for label, value in metrics.headline(report))
    assert "| top-5 accuracy | 0.1000 |" in card


def test_safetensors_are_written_on_demand_only(made, exported, tmp_path):
    """Guards against weights for sharing that are another run's, or a folder that holds the weights twice unasked."""
    run, settings = made
    assert not (exported / export.SHARED).exists()
    folder = export.export(run, settings.model_copy(update={"export_dir": str(tmp_path)}), safetensors=True)
    shared = read_weights(folder / export.SHARED)
    trained = run.load_network().network.state_dict()
    assert shared.keys() == trained.keys()
    assert all((shared[name].numpy() == trained[name].numpy()).all() for name in trained)
    (folder / export.SHARED).write_bytes(b"another")
    with pytest.raises(UserError, match=r"model\.safetensors: torn"):
        ExportedModel(folder, engine="plain")


def test_a_folder_of_another_kind_is_not_replaced(made, export_to, tmp_path):
    """Guards against deleting a folder that export.py did not make."""
    run, _ = made
    (tmp_path / run.name).mkdir()
    (tmp_path / run.name / "thesis.txt").write_text("years")
    with pytest.raises(UserError, match="is no export"):
        export_to(tmp_path)
    assert os.listdir(tmp_path / run.name) == ["thesis.txt"]


EXPORT_SLOWLY = """
import sys, time
from pathlib import Path
from inference.export_folder import new_export
with new_export(Path(sys.argv[1])) as folder:
    (folder / "inference.json").write_text("half")
    print("started", flush=True)
    # As libraries do, which take any exception for their own.
    try:
        time.sleep(60)
    except BaseException:
        time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_killed_export_leaves_nothing_for_long(tmp_path, number):
    """Guards against hidden half exports that pile up, and against sweeping away one that is still being written."""
    command = [sys.executable, "-c", EXPORT_SLOWLY, str(tmp_path / "net")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "started\n"
        remove_leftovers(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [f".net.exporting.{process.pid}"]
        process.send_signal(number)
        message = process.communicate()[1]
    if number == signal.SIGTERM:
        assert (process.returncode, message) == (128 + number, "stopped by SIGTERM\n")
        assert list(tmp_path.iterdir()) == []
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_export_killed_while_it_is_replaced_is_not_lost(exported, tmp_path):
    """Guards against losing the older export to a kill between the two renames."""
    shutil.copytree(exported, tmp_path / ".net.replaced.123")
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["net"]
    shutil.copytree(exported, tmp_path / ".net.replaced.123")
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["net"]
    _load(tmp_path / "net")


def test_probabilities_that_are_nan_are_refused():
    """Guards against NaN slipping through every comparison."""
    tally = Tally()
    tally.add([Sample("a.png", Path("a.png"), 0)], np.array([[0.5, 0.5]]), np.array([[np.nan, 0.5]]), ["x", "y"])
    with pytest.raises(UserError, match=r"a\.png"):
        Verification("valid", Tally(), {"plain": tally}).check()


def test_a_tally_counts_from_zero():
    """Guards against an agreement of more images than there are."""
    samples = [Sample(f"{number}.png", Path(), number % 2) for number in range(3)]
    expected = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])
    found = np.array([[0.9, 0.1], [0.3, 0.7], [np.nan, 0.7]])
    tally = Tally()
    tally.add(samples[:2], expected[:2], found[:2], ["a", "b"])
    assert (tally.images, tally.top_1_agrees, tally.correct, tally.out_of_tolerance) == (2, 1, 2, 1)
    assert (tally.worst_image, tally.worst_classes) == ("1.png", ("b", "a"))
    assert tally.largest_difference == pytest.approx(0.3)
    tally.add(samples[2:], expected[2:], found[2:], ["a", "b"])
    assert (tally.images, tally.worst_image, tally.largest_difference) == (3, "2.png", np.inf)
