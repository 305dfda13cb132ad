"""Export: the folder is enough, the gate refuses what answers otherwise, digests catch what was changed later."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import config
from system import machine
from system.errors import UserError

ROOT = Path(__file__).parents[2]
CLASSES = ["red", "green", "blue"]


def _images(folder: Path, count: int) -> None:
    generator = np.random.default_rng(7)
    for split, number in (("train", count), ("valid", count), ("test", 2)):
        for index, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for i in range(number):
                pixels = generator.integers(0, 90, (50, 37 + 20 * i, 3), dtype=np.uint8)
                pixels[..., index] += 120
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run with random weights that answers differently for different images, and its settings."""
    folder = tmp_path_factory.mktemp("export")
    _images(folder / "data", 4)
    overrides = [
        f"data_dir={folder / 'data'}", "network=cnn", "image_shape=[3,40,24]", f"output_dir={folder / 'output'}",
        f"export_dir={folder / 'infer'}", "device=cpu", "threads=1", "batch_size=5", "run_name=tiny",
    ]  # fmt: skip
    settings = config.load(overrides=overrides)
    machine.prepare(settings)
    import paddle

    from annotation.lists import write_list
    from models import networks
    from models.checkpoint import BEST, Run
    from system.files import write_text

    machine.seed_all(3)
    for split in ("train", "valid", "test"):
        files = sorted((folder / "data" / split).rglob("*.png"))
        write_list(folder / "data" / f"{split}.txt", [(str(f), CLASSES.index(f.parent.name)) for f in files])
    write_text(folder / "data" / "labels.txt", "".join(f"{name}\n" for name in CLASSES))
    run = Run.create(settings, CLASSES)
    network, _ = networks.build(settings, len(CLASSES))
    # Logits of about 1: a network that is certain of everything would hide what was changed.
    images = paddle.to_tensor(np.random.default_rng(0).integers(0, 256, (8, 3, 40, 24), dtype=np.uint8))
    network.eval()
    last = network.parameters()[-2]
    last.set_value(last / network(images).std())
    run.save_weights(BEST, network)
    return run, settings


@pytest.fixture(scope="module")
def exported(made):
    import export

    return export.export(*made)


@pytest.fixture
def copy(exported, tmp_path):
    return Path(shutil.copytree(exported, tmp_path / "copy"))


def _load(folder: Path, engine: str = "plain"):
    from inference.predictor import ExportedModel

    return ExportedModel(folder, engine=engine)


def test_folder_alone_answers_like_the_run(made, exported):
    """Guards against an export that differs from its run in weights, pixels, temperature or class order."""
    import paddle

    from imaging.images import read_image
    from imaging.transforms import EvalTransform
    from inference.predictor import ExportedModel

    run, settings = made
    network, transform = run.load_network(), EvalTransform.from_settings(settings)
    for path in sorted(Path(settings.data_dir, "test").rglob("*.png")):
        image = read_image(path, settings.max_pixels)
        expected = paddle.nn.functional.softmax(network(paddle.to_tensor(transform(image)[None]))).numpy()
        for engine in ("plain", "onednn"):
            model = ExportedModel(exported, engine=engine)
            assert model.class_names == CLASSES
            assert np.abs(model.predict(model.transform(image)[None]) - expected).max() < 1e-4


def test_example_lets_a_client_check_its_pixels(made, exported):
    """Guards against digests in example.json that are of other pixels than the graph expects."""
    from imaging.images import read_image

    model = _load(exported)
    content = json.loads((exported / "example.json").read_text())
    assert len(content["examples"]) == 3
    for example in content["examples"]:
        pixels = model.transform(read_image(example["picture"], 10**8))
        assert hashlib.sha256(pixels.tobytes()).hexdigest() == example["pixels_sha256"]
        row = model.predict(pixels[None])[0]
        assert np.allclose(row, list(example["probabilities"].values()), atol=1e-4)


def test_card_and_description_hold_what_was_checked(exported):
    """Guards against a card without the figures of the gate, or a PaddleX pipeline that normalises twice."""
    content = yaml.safe_load((exported / "inference.yml").read_text(encoding="utf-8"))
    assert content["Checks"]["pictures"] == 12
    assert {"plain", "onednn"} <= set(content["Checks"]["engines"])
    operators = {name: value for step in content["PreProcess"]["transform_ops"] for name, value in step.items()}
    assert operators["CropImage"]["size"] == [24, 40]
    assert (operators["NormalizeImage"]["mean"], operators["NormalizeImage"]["std"]) == ([0.0] * 3, [1.0] * 3)
    card = (exported / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert content["Digests"]["inference.pdiparams"] in card and "valid accuracy" in card


def test_temperature_is_inside_the_graph(made, tmp_path, monkeypatch):
    """Guards against a temperature that inference.yml tells of and nobody applies."""
    import export

    run, settings = made
    monkeypatch.setattr(type(run), "calibration", {"temperature": 2.5, "threshold": 0.4})
    hot = _load(export.export(run, settings.model_copy(update={"export_dir": str(tmp_path)})))
    monkeypatch.undo()
    cold = _load(export.export(run, settings.model_copy(update={"export_dir": str(tmp_path / "b")})))
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 40, 24), dtype=np.uint8)
    flat = cold.predict(images) ** (1 / 2.5)
    assert np.allclose(hot.predict(images), flat / flat.sum(axis=1, keepdims=True), atol=1e-5)
    assert (hot.temperature, hot.threshold, cold.threshold) == (2.5, 0.4, None)


def _change_weight(monkeypatch):
    from inference import graphs

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
    from inference import graphs

    save = graphs._save

    def changed(classifier, *rest):
        classifier.shift.set_value(classifier.shift + 0.05)
        save(classifier, *rest)
        classifier.shift.set_value(classifier.shift - 0.05)

    monkeypatch.setattr(graphs, "_save", changed)


def _change_description(monkeypatch, change):
    from inference import description

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
        content["PreProcess"]["transform_ops"][0]["ResizeImage"]["resize_short"] += 2

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
def test_gate_refuses_sabotage_and_leaves_nothing(made, tmp_path, monkeypatch, sabotage, words):
    """Guards against an exporter that ships a graph, mean, label map or resize that is not the run's."""
    import export
    from inference import predictor

    run, settings = made
    sabotage(monkeypatch)
    # The load-time example would catch most of these too; here the gate has to.
    monkeypatch.setattr(predictor, "FOREIGN_TOLERANCE", 10.0)
    with pytest.raises(UserError) as refusal:
        export.export(run, settings.model_copy(update={"export_dir": str(tmp_path / "infer")}))
    assert all(word in str(refusal.value) for word in words), refusal.value
    if "probabilities" in words[1]:
        assert "/valid/" in str(refusal.value).partition(":")[0]
    assert list((tmp_path / "infer").iterdir()) == []


def _edit(copy: Path, change) -> None:
    content = yaml.safe_load((copy / "inference.yml").read_text(encoding="utf-8"))
    change(content)
    (copy / "inference.yml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["PostProcess"]["Topk"]["label_list"].reverse(),
        lambda content: content["PostProcess"]["Topk"]["label_list"].append("more"),
        lambda content: content["PreProcess"]["transform_ops"][0]["ResizeImage"].update(resize_short=41),
        lambda content: content["PreProcess"]["transform_ops"][2]["NormalizeImage"].update(mean=[0.5] * 3),
        lambda content: content["Calibration"].update(threshold=0.9),
    ],
    ids=["class order", "class count", "resize", "mean", "threshold"],
)
def test_description_changed_later_is_refused(copy, change):
    """Guards against serving images or names otherwise than the gate saw them."""
    _edit(copy, change)
    with pytest.raises(UserError, match=r"inference\.yml.*export the run anew"):
        _load(copy)


def _meaning(folder: Path):
    from inference import description

    described = description.read(folder)
    return described.class_names, described.transform, described.temperature, described.threshold


def test_description_cut_off_anywhere_is_refused_or_means_the_same(copy):
    """Guards against half an inference.yml that is good YAML and says nothing of threshold, digests or last classes."""
    data, whole = (copy / "inference.yml").read_bytes(), _meaning(copy)
    refused = 0
    for end in range(0, len(data), 23):
        (copy / "inference.yml").write_bytes(data[:end])
        try:
            assert _meaning(copy) == whole, data[:end][-60:]
        except UserError as error:
            refused += str(error).startswith(f"{copy / 'inference.yml'}: ")
    assert refused > 20


def test_description_with_any_other_value_is_refused_in_one_line_or_means_the_same(copy):
    """Guards against a traceback where a hand has been at inference.yml."""
    whole = _meaning(copy)
    content = yaml.safe_load((copy / "inference.yml").read_text(encoding="utf-8"))

    def groups(node):
        yield node
        for child in node.values() if isinstance(node, dict) else node:
            if isinstance(child, (dict, list)):
                yield from groups(child)

    for group in groups(content):
        for key in list(group) if isinstance(group, dict) else range(len(group)):
            before = group[key]
            for value in (None, [], {"x": 1}, "x", -1):
                group[key] = value
                (copy / "inference.yml").write_text(json.dumps(content), encoding="utf-8")
                try:
                    assert _meaning(copy) == whole, (key, value)
                except UserError as error:
                    assert "\n" not in str(error)
            group[key] = before


@pytest.mark.parametrize("name", ["inference.json", "inference.pdmodel", "inference.pdiparams", "example.json"])
@pytest.mark.parametrize("fault", ["missing", "torn", "one bit"])
def test_damaged_file_is_named(copy, name, fault):
    """Guards against running a graph with the weights of another run, or half a file."""
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    if fault == "missing":
        (copy / name).unlink()
    else:
        (copy / name).write_bytes(data if fault == "one bit" else data[: len(data) // 2])
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        _load(copy)


def test_another_number_of_classes_is_told_without_digests(copy):
    """Guards against a label list of another length in a folder that has no digests."""

    def change(content):
        del content["Digests"]
        content["PostProcess"]["Topk"]["label_list"].append("more")

    _edit(copy, change)
    (copy / "example.json").unlink()
    with pytest.raises(UserError, match=r"answers for 3 classes, inference\.yml lists 4"):
        _load(copy)


def test_old_form_alone_is_accepted(copy, exported):
    """Guards against refusing a .pdmodel export, such as older releases of paddle wrote."""
    _edit(
        copy, lambda content: [content.pop(key) for key in ("Digests", "Versions", "Calibration", "Checks", "Engines")]
    )
    (copy / "inference.json").unlink()
    (copy / "example.json").unlink()
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 40, 24), dtype=np.uint8)
    assert np.allclose(_load(copy).predict(images), _load(exported).predict(images), atol=1e-5)


def test_another_paddle_is_named(copy, monkeypatch):
    """Guards against a crash, or a riddle, where the file needs another release of paddle."""
    import paddle

    monkeypatch.setattr(paddle, "__version__", "2.6.2")
    with pytest.raises(UserError, match=r"paddle 2\.6\.2 is too old for this file"):
        _load(copy)
    monkeypatch.setattr(paddle, "__version__", "4.0.0")
    with pytest.raises(UserError, match=r"written by paddle 3.*this is 4\.0\.0"):
        _load(copy)


@pytest.mark.parametrize("engine", ["int8", "onnxruntime", "gpu", "tensorrt"])
def test_engine_that_is_not_here_is_one_line(exported, engine):
    """Guards against a traceback, or a silent fall-back, when an engine cannot run."""
    with pytest.raises(UserError, match=f"engine={engine}: .*; (use|run|export)|is missing; export"):
        _load(exported, engine)


def test_openvino_really_runs(exported):
    """Guards against Paddle's silence when it ignores the OpenVINO switch, as it does for a .json graph."""
    from inference import engines

    if engines.lacks(exported, "openvino", "cpu"):
        pytest.skip(engines.lacks(exported, "openvino", "cpu"))
    program = (
        "import sys; import config; from system import machine; machine.prepare(config.load());"
        "from inference.predictor import ExportedModel; ExportedModel(sys.argv[1], engine=sys.argv[2]);"
        "print('openvino_intel_cpu_plugin' in open('/proc/self/maps').read())"
    )
    for engine, expected in (("openvino", "True"), ("onednn", "False")):
        done = subprocess.run(
            [sys.executable, "-c", program, str(exported), engine], cwd=ROOT, capture_output=True, text=True
        )
        assert done.stdout.strip().endswith(expected), (engine, done.stdout, done.stderr)
    assert not (ROOT / "__cache__").exists()


def test_auto_takes_the_fastest_and_says_why(copy):
    """Guards against `auto` that ignores the measurement, or believes one of another processor."""
    from inference.predictor import ExportedModel

    model = ExportedModel(copy, engine="auto")
    times = yaml.safe_load((copy / "inference.yml").read_text())["Engines"]["milliseconds"]
    assert model.engine == min(times, key=times.get) and "measured by export.py" in model.reason
    _edit(copy, lambda content: content["Engines"].update(processor="another"))
    model = ExportedModel(copy, engine="auto")
    assert model.engine in times and "measured now" in model.reason


def test_foreign_folder_is_not_replaced(made, tmp_path):
    """Guards against deleting a folder that export.py did not make."""
    import export

    run, settings = made
    (tmp_path / run.name).mkdir()
    (tmp_path / run.name / "thesis.txt").write_text("years")
    with pytest.raises(UserError, match="is no export"):
        export.export(run, settings.model_copy(update={"export_dir": str(tmp_path)}))
    assert os.listdir(tmp_path / run.name) == ["thesis.txt"]


EXPORT_SLOWLY = """
import sys, time
from pathlib import Path
from inference.export_folder import appearing
with appearing(Path(sys.argv[1])) as folder:
    (folder / "inference.json").write_text("half")
    print("begun", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_killed_export_leaves_nothing_for_long(tmp_path, number):
    """Guards against hidden half exports that pile up, and against sweeping away one that is still being written."""
    from inference.export_folder import sweep

    command = [sys.executable, "-c", EXPORT_SLOWLY, str(tmp_path / "net")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "begun\n"
        sweep(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [f".net.exporting.{process.pid}"]
        process.send_signal(number)
        told = process.communicate()[1]
    if number == signal.SIGTERM:
        assert (process.returncode, told) == (128 + number, "stopped by SIGTERM\n")
        assert list(tmp_path.iterdir()) == []
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_export_killed_while_it_is_replaced_is_not_lost(exported, tmp_path):
    """Guards against losing the older export to a kill between the two renames."""
    from inference.export_folder import sweep

    shutil.copytree(exported, tmp_path / ".net.replaced.123")
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["net"]
    shutil.copytree(exported, tmp_path / ".net.replaced.123")
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["net"]
    _load(tmp_path / "net")


def test_int8_is_judged_by_accuracy():
    """Guards against an 8-bit graph that loses more than half a point, or is refused for what it may change."""
    from inference.verification import Tally, judge

    judge(0.900, {"int8": Tally(images=1000, largest_difference=0.2, worst="a.png", right=895)})
    with pytest.raises(UserError, match=r"a\.png: engine int8 .*0\.60 points lost"):
        judge(0.900, {"int8": Tally(images=1000, largest_difference=0.2, worst="a.png", right=894)})


def test_answers_that_are_no_numbers_do_not_pass():
    """Guards against NaN slipping through every comparison."""
    from annotation.lists import Sample
    from inference.verification import Tally, judge

    tally = Tally()
    tally.add([Sample("a.png", Path("a.png"), 0)], np.array([[0.5, 0.5]]), np.array([[np.nan, 0.5]]), ["x", "y"])
    with pytest.raises(UserError, match=r"a\.png"):
        judge(1.0, {"plain": tally})


def test_onnx_without_its_packages_names_the_pip_line(made, monkeypatch):
    """Guards against a traceback, or a package installed behind the user's back, when the extra is missing."""
    import export
    from inference import onnx

    monkeypatch.setattr(onnx.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install paddle2onnx"):
        export.export(*made, onnx=True)


@pytest.mark.slow
def test_onnx_passes_the_gate(made, tmp_path):
    """Guards against an ONNX file that answers otherwise than the run; needs requirements-bench.txt."""
    import export
    from inference.onnx import PACKAGES

    for package in PACKAGES:
        pytest.importorskip(package)
    run, settings = made
    folder = export.export(run, settings.model_copy(update={"export_dir": str(tmp_path)}), onnx=True)
    seen = yaml.safe_load((folder / "inference.yml").read_text(encoding="utf-8"))["Checks"]["engines"]["onnxruntime"]
    assert seen["largest_difference"] < 1e-4 and seen["same_class"] == 12
    assert _load(folder, "onnxruntime").engine == "onnxruntime"


def test_int8_keeps_the_range_that_is_closest(tmp_path, monkeypatch):
    """Guards against keeping an 8-bit graph that answers worse than another, or not in numbers."""
    from inference import engines, quantisation

    off_by = dict(zip(quantisation.RANGES, (np.nan, 0.1, 0.2), strict=True))

    def quantised(options, folder, target, images):
        target.mkdir()
        for name in ("int8.pdmodel", "int8.pdiparams"):
            (target / name).write_text(target.name)

    def loaded(folder, *_):
        return lambda images: np.full((len(images), 2), 0.5) + off_by.get(folder.name, 0)

    monkeypatch.setattr(quantisation, "_quantise_by", quantised)
    monkeypatch.setattr(engines, "load", loaded)
    quantisation._quantise_here(tmp_path, np.zeros((8, 3, 4, 4), np.uint8))
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == dict.fromkeys(
        ("int8.pdmodel", "int8.pdiparams"), "less_1e-5"
    )


def test_int8_refusal_leaves_nothing(made, tmp_path, monkeypatch):
    """Guards against an export that stays when its 8-bit graph has lost too much."""
    import export
    from inference import quantisation, verification

    def copied(folder, images):
        shutil.copy(folder / "inference.pdmodel", folder / "int8.pdmodel")
        shutil.copy(folder / "inference.pdiparams", folder / "int8.pdiparams")

    monkeypatch.setattr(quantisation, "quantise", copied)
    monkeypatch.setattr(verification, "MAX_POINTS_LOST", -1)
    run, settings = made
    with pytest.raises(UserError, match=r"engine int8 .* points lost, at most -1 are allowed"):
        export.export(run, settings.model_copy(update={"export_dir": str(tmp_path / "infer")}), int8=True)
    assert list((tmp_path / "infer").iterdir()) == []


def test_int8_graph_runs(made, tmp_path, monkeypatch):
    """Guards against an 8-bit graph that cannot be written or loaded."""
    import export
    from inference import verification

    monkeypatch.setattr(verification, "MAX_POINTS_LOST", 100)
    run, settings = made
    folder = export.export(run, settings.model_copy(update={"export_dir": str(tmp_path)}), int8=True)
    assert (folder / "int8.pdiparams").stat().st_size < (folder / "inference.pdiparams").stat().st_size / 2
    seen = yaml.safe_load((folder / "inference.yml").read_text(encoding="utf-8"))["Checks"]
    assert 0 <= seen["engines"]["int8"]["accuracy"] <= 1 and 0 <= seen["accuracy"] <= 1
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 40, 24), dtype=np.uint8)
    assert np.allclose(_load(folder, "int8").predict(images), _load(folder).predict(images), atol=0.1)
