"""ONNX (optional): what is exported predicts like the run, and a missing package is named."""

import pytest
import yaml

from inference.onnx import ONNX_RUNTIME, PACKAGES
from inference.predictor import ExportedModel
from system import optional
from system.errors import UserError


def test_without_its_packages_the_pip_line_is_named(export_to, tmp_path, monkeypatch):
    """Guards against a traceback, or a package installed behind the user's back, when the extra is missing."""
    monkeypatch.setattr(optional, "is_installed", lambda *names: False)
    with pytest.raises(UserError, match="paddle2onnx and onnxruntime not installed; run `pip install paddle2onnx"):
        export_to(tmp_path, ONNX_RUNTIME)
    assert "pip install onnxruntime" in ONNX_RUNTIME.problem()


@pytest.mark.slow
def test_the_onnx_graph_predicts_like_the_run(export_to, tmp_path):
    """Guards against an ONNX file that predicts differently; needs requirements-bench.txt."""
    for package in PACKAGES:
        pytest.importorskip(package)
    folder = export_to(tmp_path, ONNX_RUNTIME)
    engines = yaml.safe_load((folder / "inference.yml").read_text(encoding="utf-8"))["Checks"]["engines"]
    assert engines["onnxruntime"]["largest_difference"] < 1e-4 and engines["onnxruntime"]["same_class"] == 12
    assert ExportedModel(folder, engine="onnxruntime").engine == "onnxruntime"
