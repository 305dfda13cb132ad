"""Engines: each runs what it claims to run, `auto` takes the fastest, and what is not available is refused."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import yaml

from inference import engines
from inference.extras import EXTRAS
from inference.native_output import suppressed
from inference.predictor import ExportedModel
from system.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("engine", [*EXTRAS, "gpu", "tensorrt", "unheard of"])
def test_an_unavailable_engine_is_refused_in_one_line(exported, engine):
    """Guards against a traceback, or a silent fall-back, when an engine cannot run."""
    with pytest.raises(UserError, match=f"engine={engine}: .*; (use|run|export)|is missing; export"):
        ExportedModel(exported, engine=engine)


def test_openvino_runs(exported):
    """Guards against Paddle's silence when it ignores the OpenVINO switch, as it does for a .json graph."""
    if engines.problem(exported, "openvino", "cpu"):
        pytest.skip(engines.problem(exported, "openvino", "cpu"))
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


def test_auto_takes_the_fastest_and_gives_the_reason(copy):
    """Guards against `auto` that ignores the measurement, or believes one of another processor."""
    model = ExportedModel(copy, engine="auto")
    times = yaml.safe_load((copy / "inference.yml").read_text())["Engines"]["milliseconds"]
    assert model.engine == min(times, key=times.get) and "measured by export.py" in model.reason
    content = yaml.safe_load((copy / "inference.yml").read_text())
    content["Engines"]["processor"] = "another"
    (copy / "inference.yml").write_text(yaml.safe_dump(content))
    model = ExportedModel(copy, engine="auto")
    assert model.engine in times and "measured now" in model.reason


PRINT = 'import os; os.write(1, b"one\\n"); os.write(2, b"two\\n"); os.write(2, b"noise 1\\n")'


@pytest.mark.parametrize(("fragment", "out", "err"), [("", "", ""), ("noise", "one\n", "two\n")])
def test_lines_of_libraries_are_suppressed_and_no_others(capfd, fragment, out, err):
    """Guards against warnings that vanish together with the noise, and streams that stay closed."""
    with suppressed(fragment):
        subprocess.run([sys.executable, "-c", PRINT], check=True)
    assert capfd.readouterr() == (out, err)
    subprocess.run([sys.executable, "-c", PRINT], check=True)
    assert capfd.readouterr() == ("one\n", "two\nnoise 1\n")


def test_threads_that_share_an_export_get_their_own_predictions(exported):
    """Guards against a predictor that returns one thread's images to another, or hangs."""
    shape = ExportedModel(exported).image_shape
    images = np.random.default_rng(0).integers(0, 256, (24, *shape), np.uint8)
    for engine in engines.available(exported, "cpu"):
        predict = ExportedModel(exported, engine=engine).predict
        expected = [predict(image[None]) for image in images]
        with ThreadPoolExecutor(4) as threads:
            for _ in range(8):
                found = list(threads.map(predict, images[:, None]))
                assert all((one == other).all() for one, other in zip(found, expected, strict=True)), engine
