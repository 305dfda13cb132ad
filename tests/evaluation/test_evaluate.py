"""Evaluation on real files and a real network: what is written, what is refused."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

import config
import evaluate
from annotation.lists import write_list
from models import networks
from models.checkpoint import Run, run_settings
from system.errors import UserError

CLASSES = ["红", "green & <b>", "blue"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Images of three colours with noise, listed in three splits."""
    folder = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in CLASSES), "utf-8")
    for split, each in (("train", 12), ("valid", 8), ("test", 6)):
        rows = []
        for label in range(3):
            for number in range(each):
                pixels = generator.integers(0, 200, (24, 28, 3))
                pixels[..., label] += 40
                path = folder / f"{split}-{label}-{number}.png"
                Image.fromarray(pixels.astype(np.uint8)).save(path)
                rows.append((str(path), label))
        write_list(folder / f"{split}.txt", rows)
    return folder


def make_run(data, output, name, seed=1, **state):
    """A run as train.py leaves it, with weights that were drawn, not learned."""
    import paddle

    overrides = [f"data_dir={data}", "network=cnn", "image_shape=[3,24,24]", f"output_dir={output}", f"run_name={name}"]
    settings = config.load(overrides=[*overrides, "batch_size=7", "threads=1", "num_workers=0"])
    run = Run.create(settings, CLASSES)
    paddle.seed(seed)
    network = networks.Classifier(networks.construct("cnn", 3, settings.image_shape), settings.mean, settings.std)
    run.save_weights("best", network)
    if state:
        run.save_state(**state)
    return run


@pytest.fixture(scope="module")
def evaluated(data, tmp_path_factory):
    """A finished run and its report on test, with everything that can be asked for."""
    run = make_run(data, tmp_path_factory.mktemp("output"), "one", epoch=1, finished=True)
    told = evaluate.evaluate(run, run.settings, "test", foreign=str(data), train_suspects=True)
    return run, told


def test_everything_is_written_and_agrees(evaluated):
    """Numbers told, numbers written and the answers they are made of must be the same, for every listed image."""
    run, told = evaluated
    written = json.loads((run.path / "metrics.json").read_text("utf-8"))
    assert {key: value for key, value in told.items() if key != "folder"} == written
    head, *rows = [line.split("\t") for line in (run.path / "predictions.tsv").read_text("utf-8").splitlines()]
    assert len(rows) == told["num_pictures"] == 18 and head[4:] == CLASSES
    assert np.mean([row[1] == row[2] for row in rows]) == pytest.approx(told["accuracy"])
    assert all(CLASSES[int(np.argmax([float(p) for p in row[4:]]))] == row[2] for row in rows)
    threshold = run.calibration["threshold"]
    told_none = [row[3] == "none of these" for row in rows]
    assert told_none == [max(float(p) for p in row[4:]) < threshold for row in rows]
    assert told["foreign"]["num_pictures"] == 78
    assert len((run.path / "suspects.tsv").read_text("utf-8").splitlines()) == told["suspects"] + 1
    assert told["remarks"] == []


def test_page_is_one_file_that_needs_no_network(evaluated):
    """An image, style or script from elsewhere is missing where there is no network; a name must not become HTML."""
    run, told = evaluated
    page = (run.path / "report.html").read_text("utf-8")
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources and all(source.startswith(("data:", "#")) for source in sources)
    assert "url(" not in page and "@import" not in page
    assert "green &amp; &lt;b&gt;" in page and "<b>blue" not in page and "红" in page
    wrong = told["num_pictures"] - round(told["accuracy"] * told["num_pictures"])
    assert page.count("what spoke for") == min(12, wrong)


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium")
def test_page_in_a_browser(evaluated, tmp_path):
    """A script that throws, or a sort that orders numbers as texts, is only seen in a browser."""
    run, _ = evaluated
    page = (run.path / "report.html").read_text("utf-8")
    probe = """<script>
    const button = [...document.querySelectorAll("th button")].find((one) => one.textContent === "recall");
    const column = () => [...button.closest("table").tBodies[0].rows].map((row) => row.cells[2].dataset.value);
    button.click(); const down = column(); button.click();
    document.title = JSON.stringify({down, up: column(), broken: [...document.images].filter(
        (image) => image.complete && !image.naturalWidth).length, wide: document.documentElement.scrollWidth});
    </script></body>"""
    file = tmp_path / "probe.html"
    file.write_text(page.replace("</body>", probe), "utf-8")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--window-size=500,900", "--enable-logging=stderr", "--dump-dom", "--virtual-time-budget=3000"]
    done = subprocess.run([*command, file.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr
    told = json.loads(re.search("<title>(.*?)</title>", done.stdout).group(1))
    down = [float(value) for value in told["down"]]
    assert down == sorted(down, reverse=True)
    assert [float(value) for value in told["up"]] == sorted(down)
    assert told["broken"] == 0
    assert told["wide"] <= 500


def test_calibration_belongs_to_its_weights(data, tmp_path):
    """After more training an old temperature and threshold would be silently wrong."""
    run = make_run(data, tmp_path, "run", epoch=1, finished=True)
    assert run.calibration == {}
    run.calibration = {"temperature": 2.0, "threshold": None}
    assert run.calibration["temperature"] == 2.0
    other = make_run(data, tmp_path, "other", seed=2)
    shutil.copy(other.path / "best.pdparams", run.path / "best.pdparams")
    assert run.calibration == {}
    (run.path / "calibration.json").write_text('{"temperature": -1, "threshold": null, "weights": ""}')
    with pytest.raises(UserError, match=r"calibration.json: this is no calibration"):
        _ = run.calibration


def test_run_that_never_finished_says_so(data, tmp_path):
    """Numbers of a run that was stopped half way must not be taken for those of the whole one."""
    run = make_run(data, tmp_path, "run")
    (run.path / "best.pdparams").rename(run.path / "last.pdparams")
    told = evaluate.evaluate(run, run.settings, "valid")
    assert told["weights"] == "last"
    assert "never finished" in told["remarks"][0] and "last weights" in told["remarks"][0]
    assert "fitted on these very images" in told["remarks"][1]


def relisted(data, folder, rows, labels=CLASSES):
    folder.mkdir(exist_ok=True)
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in labels), "utf-8")
    (folder / "test.txt").write_text("".join(f"{data / name}\t{label}\n" for name, label in rows), "utf-8")
    return f"lists_dir={folder}"


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        ([("test-0-0.png", 0)], ["红", "blue", "green & <b>"], "class 1 is blue, but"),
        ([], CLASSES, "no image is listed"),
        (
            [("test-0-0.png", 0), ("gone-1.png", 1), ("gone-2.png", 2)],
            CLASSES,
            "gone-1.png is missing; .*gone-2.png is",
        ),
        ([("labels.txt", 0)], CLASSES, "labels.txt: no image format"),
    ],
)
def test_bad_lists_are_refused_without_a_score(data, tmp_path, rows, labels, message):
    """A score over what is left, or over another label map, would be believed."""
    run = make_run(data, tmp_path, "run", epoch=1, finished=True)
    override = relisted(data, tmp_path / "lists", rows, labels)
    with pytest.raises(UserError, match=message) as caught:
        evaluate.evaluate(run, run_settings(run, [override]), "test")
    assert "\n" not in str(caught.value)
    assert not (run.path / "metrics.json").exists()


def test_one_class_and_no_valid_list(data, tmp_path):
    """Without a second class there is no ROC, without valid no calibration: both are told, the rest is computed."""
    run = make_run(data, tmp_path, "run", epoch=1, finished=True)
    override = relisted(data, tmp_path / "lists", [("test-0-0.png", 0), ("test-0-1.png", 0)])
    told = evaluate.evaluate(run, run_settings(run, [override]), "test")
    assert told["macro"]["roc_auc"] is None and told["absent_classes"] == CLASSES[1:]
    assert any("ROC and precision-recall curves are left out" in remark for remark in told["remarks"])
    assert any("nothing was calibrated" in remark for remark in told["remarks"])
    assert run.calibration == {} and not (run.path / "ranking.png").exists()


def test_comparison_of_two_and_of_three_runs(data, tmp_path):
    """Two runs are compared image by image, more only summed up; other images must not be compared at all."""
    runs = [make_run(data, tmp_path, f"seed{seed}", seed, epoch=1, finished=True) for seed in (1, 2, 3)]
    told = evaluate.compare(runs[:2], [], "test", None, "python evaluate.py")
    folder = tmp_path / "comparison"
    pair = told["pair"]
    assert sum(pair[key] for key in ("both_right", "only_first_right", "only_second_right", "both_wrong")) == 18
    lines = (folder / "disagreements.tsv").read_text("utf-8").splitlines()
    assert len(lines) == 1 + pair["only_first_right"] + pair["only_second_right"]
    assert "McNemar" in (folder / "comparison.html").read_text("utf-8")
    told = evaluate.compare(runs, [], "test", None, "python evaluate.py")
    values = [row["accuracy"] for row in told["runs"]]
    assert told["summary"]["accuracy"]["mean"] == pytest.approx(np.mean(values)) and told["pair"] is None
    assert not (folder / "disagreements.tsv").exists()
    other = relisted(data, tmp_path / "lists", [("test-0-0.png", 0)]).partition("=")[2]
    text = (runs[1].path / "config.yaml").read_text("utf-8")
    (runs[1].path / "config.yaml").write_text(re.sub("lists_dir: .*", f"lists_dir: {other}", text), "utf-8")
    with pytest.raises(UserError, match="its test list is not that of"):
        evaluate.compare(runs, [], "test", None, "python evaluate.py")


def test_exported_model_scores_like_its_run(evaluated, tmp_path):
    """The report users show must be true of what they deploy: same metrics, same answers, from the exported graph."""
    import export
    from inference.predictor import ExportedModel

    run, told = evaluated
    folder = export.export(run, run_settings(run, [f"export_dir={tmp_path}"]))
    got = evaluate.evaluate(ExportedModel(folder), run.settings, "test")
    assert got["weights"] == "exported" and got["num_pictures"] == told["num_pictures"]
    for key in ("accuracy", "balanced_accuracy", "macro_f1", "confusion_matrix"):
        assert got[key] == told[key]
    assert got["loss"] == pytest.approx(told["loss"], abs=1e-4)
    assert got["macro"]["roc_auc"] == pytest.approx(told["macro"]["roc_auc"], abs=1e-6)
    after, expected = got["confidence"]["after"], told["confidence"]["after"]
    assert after["log_loss"] == pytest.approx(expected["log_loss"], abs=1e-4)
    assert got["confidence"]["threshold"] == pytest.approx(told["confidence"]["threshold"])
    assert (folder / "evaluation" / "report.html").is_file()
