"""Evaluation on real files and a real network: what is written, what is refused."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from test_golden import Outline, check, dead_links

import config
import evaluate
from annotation.lists import write_list
from evaluation import metrics, terminal
from evaluation.thumbnails import embed
from models import networks
from models.checkpoint import Run
from models.classifier import Classifier
from models.runs import run_settings
from system.errors import UserError

CLASSES = ["红", "green & <b>", "blue"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Noisy images of three colours, listed in three splits."""
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
    """Creates a run as train.py leaves it, with random weights."""
    import paddle

    overrides = [f"data_dir={data}", "network=cnn", "image_shape=[3,24,24]", f"output_dir={output}", f"run_name={name}"]
    settings = config.load(overrides=[*overrides, "batch_size=7", "threads=1", "num_workers=0"])
    run = Run.create(settings, CLASSES)
    paddle.seed(seed)
    network = Classifier(networks.construct("cnn", 3, settings.image_shape), settings.mean, settings.std)
    run.save({"best": network.network.state_dict()})
    if state:
        run.save(state=state)
    return run


@pytest.fixture(scope="module")
def evaluated(data, tmp_path_factory):
    """A finished run and its report on test, with every option."""
    run = make_run(data, tmp_path_factory.mktemp("output"), "one", epoch=1, finished=True)
    report = evaluate.evaluate(run, run.settings, "test", foreign=str(data), train_suspects=True)
    return run, report


def test_everything_is_written_and_agrees(evaluated):
    """Guards against numbers returned, numbers written and predictions written that differ, or miss an image."""
    run, report = evaluated
    written = json.loads((run.path / "metrics.json").read_text("utf-8"))
    assert {key: value for key, value in report.items() if key != "folder"} == written
    head, *rows = [line.split("\t") for line in (run.path / "predictions.tsv").read_text("utf-8").splitlines()]
    assert len(rows) == report["num_pictures"] == 18 and head[4:] == CLASSES
    assert np.mean([row[1] == row[2] for row in rows]) == pytest.approx(report["accuracy"])
    assert all(CLASSES[int(np.argmax([float(p) for p in row[4:]]))] == row[2] for row in rows)
    threshold = run.calibration["threshold"]
    rejected = [row[3] == "none of these" for row in rows]
    assert rejected == [max(float(p) for p in row[4:]) < threshold for row in rows]
    assert report["foreign"]["num_pictures"] == 78
    assert len((run.path / "suspects.tsv").read_text("utf-8").splitlines()) == report["suspects"] + 1
    (remark,) = report["remarks"]
    assert "skipped: 4 not images" in remark and "labels.txt" in remark


@pytest.mark.golden
def test_page_is_one_file_that_opens_offline(evaluated):
    """Guards against images, styles or scripts from the internet, and class names that become HTML."""
    run, report = evaluated
    page = (run.path / "report.html").read_text("utf-8")
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources and all(source.startswith(("data:", "#")) for source in sources)
    assert "url(" not in page and "@import" not in page
    assert "green &amp; &lt;b&gt;" in page and "<b>blue" not in page and "红" in page
    wrong = report["num_pictures"] - round(report["accuracy"] * report["num_pictures"])
    assert page.count('alt="evidence for') == min(12, wrong)
    assert page.count('href="#') >= 6 and dead_links(page) == []
    check("report", str(Outline(page)))


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium")
def test_page_in_a_browser(evaluated, tmp_path):
    """Guards against a script that throws, numbers sorted as text, broken images, and a page wider than a phone."""
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
    report = json.loads(re.search("<title>(.*?)</title>", done.stdout).group(1))
    down = [float(value) for value in report["down"]]
    assert down == sorted(down, reverse=True)
    assert [float(value) for value in report["up"]] == sorted(down)
    assert report["broken"] == 0
    assert report["wide"] <= 500


def test_calibration_belongs_to_its_weights(data, tmp_path):
    """Guards against a temperature and threshold of earlier weights that are used after more training."""
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
    """Guards against numbers of an interrupted run that look like those of a finished one."""
    run = make_run(data, tmp_path, "run")
    (run.path / "best.pdparams").rename(run.path / "last.pdparams")
    report = evaluate.evaluate(run, run.settings, "valid")
    assert report["weights"] == "last"
    assert "never finished" in report["remarks"][0] and "last weights" in report["remarks"][0]
    assert "fitted on these very images" in report["remarks"][2]


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
def test_bad_lists_are_refused_and_nothing_is_written(data, tmp_path, rows, labels, message):
    """Guards against numbers over the readable rest of a list, or over another label map."""
    run = make_run(data, tmp_path, "run", epoch=1, finished=True)
    override = relisted(data, tmp_path / "lists", rows, labels)
    with pytest.raises(UserError, match=message) as caught:
        evaluate.evaluate(run, run_settings(run, [override]), "test")
    assert "\n" not in str(caught.value)
    assert not (run.path / "metrics.json").exists()


def test_one_class_and_no_valid_list(data, tmp_path):
    """Guards against a failure, or silence, without a second class (no ROC) and without valid.txt (no calibration)."""
    run = make_run(data, tmp_path, "run", epoch=1, finished=True)
    override = relisted(data, tmp_path / "lists", [("test-0-0.png", 0), ("test-0-1.png", 0)])
    report = evaluate.evaluate(run, run_settings(run, [override]), "test")
    assert report["macro"]["roc_auc"] is None and report["absent_classes"] == CLASSES[1:]
    assert any("ROC and precision-recall curves are left out" in remark for remark in report["remarks"])
    assert any("nothing was calibrated" in remark for remark in report["remarks"])
    assert run.calibration == {} and not (run.path / "ranking.png").exists()


@pytest.mark.golden
def test_comparison_of_two_and_of_three_runs(data, tmp_path):
    """Guards against counts that do not add up, an old disagreements.tsv, and runs compared on different images."""
    runs = [make_run(data, tmp_path, f"seed{seed}", seed, epoch=1, finished=True) for seed in (1, 2, 3)]
    comparison = evaluate.compare(runs[:2], [])
    folder = tmp_path / "comparison"
    pair = comparison["pair"]
    assert sum(pair[key] for key in ("both_right", "only_first_right", "only_second_right", "both_wrong")) == 18
    lines = (folder / "disagreements.tsv").read_text("utf-8").splitlines()
    assert len(lines) == 1 + pair["only_first_right"] + pair["only_second_right"]
    page = (folder / "comparison.html").read_text("utf-8")
    assert page.count('href="#') == 5 and dead_links(page) == []
    check("comparison", str(Outline(page)))
    comparison = evaluate.compare(runs, [])
    values = [row["accuracy"] for row in comparison["runs"]]
    assert comparison["summary"]["accuracy"]["mean"] == pytest.approx(np.mean(values)) and comparison["pair"] is None
    gaps = [row["minus_first"] for row in comparison["runs"]]
    assert gaps[0] is None and gaps[1] == pair["difference"]["accuracy"]
    assert gaps[2]["value"] == pytest.approx(values[2] - values[0])
    assert gaps[2]["low"] <= gaps[2]["value"] <= gaps[2]["high"]
    assert not (folder / "disagreements.tsv").exists()
    other = relisted(data, tmp_path / "lists", [("test-0-0.png", 0)]).partition("=")[2]
    text = (runs[1].path / "config.yaml").read_text("utf-8")
    (runs[1].path / "config.yaml").write_text(re.sub("lists_dir: .*", f"lists_dir: {other}", text), "utf-8")
    with pytest.raises(UserError, match="its test list is not that of"):
        evaluate.compare(runs, [])


def test_exported_model_has_the_metrics_of_its_run(evaluated, tmp_path):
    """Guards against an exported graph whose metrics are not the run's."""
    import export
    from inference.predictor import ExportedModel

    run, report = evaluated
    folder = export.export(run, run_settings(run, [f"export_dir={tmp_path}"]))
    got = evaluate.evaluate(ExportedModel(folder), run.settings, "test")
    assert got["weights"] == "exported" and got["num_pictures"] == report["num_pictures"]
    for key in ("accuracy", "balanced_accuracy", "macro_f1", "confusion_matrix"):
        assert got[key] == report[key]
    assert got["loss"] == pytest.approx(report["loss"], abs=1e-4)
    assert got["macro"]["roc_auc"] == pytest.approx(report["macro"]["roc_auc"], abs=1e-6)
    after, expected = got["confidence"]["after"], report["confidence"]["after"]
    assert after["log_loss"] == pytest.approx(expected["log_loss"], abs=1e-4)
    assert got["confidence"]["threshold"] == pytest.approx(report["confidence"]["threshold"])
    assert (folder / "evaluation" / "report.html").is_file()


def test_a_registered_metric_is_reported_everywhere(data, tmp_path, monkeypatch):
    """Guards against a metric that has to be repeated for the terminal, a file, a page or the model card."""
    first_class = metrics.Metric("first_class", "first class", lambda outputs: (outputs.predicted == 0).mean())
    monkeypatch.setitem(metrics.METRICS, "first_class", first_class)
    runs = [make_run(data, tmp_path, f"seed{seed}", seed, epoch=1, finished=True) for seed in (1, 2)]
    report = evaluate.evaluate(runs[0], runs[0].settings, "test")
    value = report["first_class"]
    low, high = report["intervals"]["first_class"]
    assert low <= value <= high
    assert f", first class {value:.4f} on 18 images" in terminal.report_text(report)
    assert metrics.headline(report)[-1] == ("first class", f"{value:.4f}")
    tile = f'<b>{value:.3f}</b><span>first class</span><span class="soft">{low:.3f} to {high:.3f}</span>'
    assert tile in (runs[0].path / "report.html").read_text("utf-8")
    comparison = evaluate.compare(runs, [])
    assert comparison["runs"][0]["first_class"] == value and "first_class" in comparison["summary"]
    assert "first_class" in comparison["pair"]["difference"]
    assert "first class" in terminal.comparison_text(comparison).splitlines()[0]
    assert (tmp_path / "comparison" / "comparison.html").read_text("utf-8").count("first class") == 2


def test_command_line_refuses_options_that_contradict(call, tmp_path):
    """Guards against options that are ignored: --model with runs, --foreign with several runs, a missing folder."""
    for line in (["--model", "m", "run"], ["a", "b", "--foreign", "f"], ["--model", "m", "--train-suspects"]):
        assert call(evaluate, *line).status == 2, line
    call(evaluate, "none", f"output_dir={tmp_path}").refused("none")


def test_missing_folder_of_out_of_distribution_images_is_refused_first(data, tmp_path):
    """Guards against minutes of evaluation before a mistyped folder is noticed."""
    run = make_run(data, tmp_path, "run", epoch=1, finished=True)
    with pytest.raises(UserError, match="gone: no such folder"):
        evaluate.evaluate(run, run.settings, foreign="gone")
    assert run.calibration == {}


def test_the_report_of_a_trained_run_shows_its_curves(evaluated, trained, tmp_path):
    """Guards against curves that lie beside the report unseen, and a broken image where there are none."""
    run, _ = evaluated
    assert 'id="training"' not in (run.path / "report.html").read_text("utf-8")
    evaluate.evaluate(trained, trained.settings, folder=tmp_path)
    page = (tmp_path / "report.html").read_text("utf-8")
    assert embed((trained.path / "curves.png").read_bytes()) in page and page.count('id="training"') == 1
