"""Runs and exports of every earlier format give, for ever, the numbers that the code which wrote them gave."""

import csv
import json
import tarfile
from pathlib import Path

import pytest

ARCHIVE = Path(__file__).parent / "fixtures" / "format_1.tar.xz"
CLASS_NAMES = ["dog", "dragon", "ox"]
MACHINE = ["threads=1", "device=cpu"]
# Settings of the run called square, as a command line of that time gave them: some have other names today.
SQUARE = """network=cnn image_shape=[3,18,18] batch_size=6 warmup_epochs=0 learning_rate=4e-3 schedule=constant
    augment.hue=0 augment.invert=0 label_smoothing=0 augment.rand_operations=1 augment.erase=0.2
    data_dir=data num_workers=0 scan_workers=1 cache=none run_name=square""".split()
# Rounding differs between processors, and steps of training multiply it.
EXACT, TRAINED = 1e-5, 2e-3


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """A folder with data/, output/{square,wide}, infer/{square,wide} and expected.json of format 1."""
    folder = tmp_path_factory.mktemp("format 1")
    with tarfile.open(ARCHIVE) as file:
        file.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def expected(archive) -> dict:
    """What the code of that time answered."""
    return json.loads((archive / "expected.json").read_text("utf-8"))


def _probabilities(file: Path) -> dict[str, list[float]]:
    with open(file, encoding="utf-8", newline="") as handle:
        return {row["path"]: [float(row[name]) for name in CLASS_NAMES] for row in csv.DictReader(handle)}


def _last_epoch(run: Path) -> dict[str, float]:
    with open(run / "history.csv", encoding="utf-8", newline="") as handle:
        return {key: float(value) for key, value in list(csv.DictReader(handle))[-1].items()}


def _assert_equal(found: dict[str, list[float]], expected: dict[str, list[float]]) -> None:
    assert found.keys() == expected.keys()
    for path, probabilities in expected.items():
        assert found[path] == pytest.approx(probabilities, abs=EXACT), path


@pytest.mark.parametrize("name", ["square", "wide"])
@pytest.mark.parametrize("kind, option", [("run", "--run=output"), ("export", "--model=infer")])
def test_predict_answers_as_it_did(archive, expected, command, name, kind, option):
    """Guards against a change of preprocessing, calibration or network that reaches old runs and exports."""
    out = f"{kind}-{name}.csv"
    ended = command("predict.py", "data/test", f"{option}/{name}", "--out", out, "engine=onednn", *MACHINE, cwd=archive)
    assert ended.status == 0, ended.err
    _assert_equal(_probabilities(archive / out), expected[name][kind])


@pytest.mark.parametrize("name", ["square", "wide"])
def test_evaluate_reports_what_it_did(archive, expected, command, name):
    """Guards against metrics, temperature or threshold that an old run's report would now tell otherwise."""
    ended = command("evaluate.py", f"output/{name}", "--out", f"report {name}", *MACHINE, cwd=archive)
    assert ended.status == 0, ended.err
    metrics = json.loads((archive / f"report {name}" / "metrics.json").read_text("utf-8"))
    assert {key: metrics[key] for key in expected[name]["metrics"]} == pytest.approx(
        expected[name]["metrics"], abs=EXACT
    )
    fitted = {key: metrics["confidence"][key] for key in ("temperature", "threshold")}
    assert fitted == pytest.approx(expected[name]["calibration"], abs=1e-3)


@pytest.mark.parametrize("name", ["square", "wide"])
def test_an_old_run_is_exported_as_it_was(archive, expected, command, name):
    """Guards against an export that sees other pixels than the old run was trained on."""
    ended = command("export.py", f"output/{name}", "export_dir=again", *MACHINE, cwd=archive)
    assert ended.status == 0, ended.err
    ended = command(
        "predict.py", "data/test", "--model", f"again/{name}", "--out", f"again-{name}.csv", "engine=onednn", *MACHINE,
        cwd=archive,
    )  # fmt: skip
    assert ended.status == 0, ended.err
    _assert_equal(_probabilities(archive / f"again-{name}.csv"), expected[name]["export"])


def test_an_old_run_is_resumed(archive, expected, command):
    """Guards against an optimizer state, an augmentation or a setting's old name that is read otherwise."""
    ended = command("train.py", *SQUARE, "epochs=31", "resume=true", *MACHINE, cwd=archive)
    assert ended.status == 0 and "resumed after epoch 30" in ended.out, (ended.out, ended.err)
    assert _last_epoch(archive / "output/square") == pytest.approx(expected["resumed"], rel=TRAINED, abs=TRAINED)


def test_old_weights_start_a_new_run(archive, expected, command):
    """Guards against pretrained=FILE that no longer fits weights of an earlier release."""
    weights = "pretrained=output/square/best.pdparams"
    ended = command("train.py", *SQUARE, "epochs=1", weights, "output_dir=new", *MACHINE, cwd=archive)
    assert ended.status == 0 and "new: nothing" in ended.out, (ended.out, ended.err)
    assert _last_epoch(archive / "new/square") == pytest.approx(expected["pretrained"], rel=TRAINED, abs=TRAINED)


def test_an_old_export_is_served(archive, expected):
    """Guards against a server that reads an earlier inference.yml otherwise than predict.py."""
    server = pytest.importorskip("serving_process").ServeProcess(archive / "infer" / "wide")
    try:
        for path, probabilities in expected["wide"]["export"].items():
            reply = server.http.post("/predict", files={"files": (archive / path).read_bytes()}).json()
            best = {row["class"]: row["probability"] for row in reply["results"][0]["top"]}
            assert [best[name] for name in CLASS_NAMES] == pytest.approx(probabilities, abs=EXACT)
    finally:
        assert server.end() == 0
