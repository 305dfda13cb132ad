"""The notebooks run from the first cell to the last, quietly, and can be stopped."""

import json
import os
from pathlib import Path

import jupyter_client
import nbclient
import nbformat
import pytest
from conftest import as_arguments, without_augmentation
from nbformat import NotebookNode

import config

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
OURS = {"image_shape": [3, 40, 48], "epochs": 1, "batch_size": 8, "threads": 1, "scan_workers": 1, "device": "cpu"}


@pytest.fixture
def project(draw_data, tmp_path, monkeypatch) -> Path:
    """The repository by links, with small settings and three drawn classes of its own."""
    folder = tmp_path / "project"
    folder.mkdir()
    for path in ROOT.iterdir():
        if path.suffix == ".py" or (path / "__init__.py").exists() or path.name in ("notebooks", "recipes"):
            (folder / path.name).symlink_to(path)
    config.save(config.load(None, as_arguments(OURS)), folder / "config.yaml")
    # Only copies in runs have a format.
    lines = (folder / "config.yaml").read_text().splitlines(keepends=True)
    (folder / "config.yaml").write_text("".join(line for line in lines if not line.startswith("format:")))
    draw_data(folder / "signs", ["ratt", "ox", "dog"], {"train": 4, "valid": 2, "test": 3}, (52, 44))
    (folder / "signs" / "labels.txt").write_text("ratt\nox\ndog\n")
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "jupyter"))
    # As where the kernel is started for the notebook alone.
    for name in ("OMP_NUM_THREADS", "MPLBACKEND"):
        monkeypatch.delenv(name, raising=False)
    return folder


def execute(project: Path, name: str, parameters: str = "") -> list[NotebookNode]:
    """Runs a notebook in a kernel of its own, in notebooks/; returns its cells of code."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4)
    for index, cell in enumerate(notebook.cells):
        if "parameters" in cell.metadata.get("tags", ()):
            notebook.cells.insert(index + 1, nbformat.v4.new_code_cell(parameters))
            break
    (project / "here").mkdir()
    place = {"metadata": {"path": str(project / "here")}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place).execute()
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text(cells: list[NotebookNode], stream: str) -> str:
    return "".join(one.text for cell in cells for one in cell.outputs if one.get("name") == stream)


def figures(cells: list[NotebookNode]) -> int:
    return sum("image/png" in one.get("data", {}) for cell in cells for one in cell.outputs)


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_is_kept_without_outputs(file):
    """Guards against megabytes of figures in the history, and results of yesterday's code."""
    for cell in json.loads(file.read_text("utf-8"))["cells"]:
        assert not cell.get("outputs") and not cell.get("execution_count")


def test_the_zodiac_notebook(project):
    """Guards against a course that stops at one of its cells, shows no figure, or warns of what no student can mend."""
    cells = execute(project, "zodiac")
    out, err = text(cells, "stdout"), text(cells, "stderr")
    assert "'train': 12, 'valid': 6, 'test': 9" in out and "cpu, 1 thread" in out
    assert out.count("样本ID") == 3 and "测试集准确率" in out and out.count("真实标签: ") == 8
    assert figures(cells) == 1
    assert "infer/zodiac: there is no inference.yml; assumed from config.yaml" in err
    assert "Warning" not in err, err
    assert sorted(os.listdir(project / "output" / "course")) == ["model.pdopt", "model.pdparams", "vdl"]


def test_the_notebook_for_photos(project):
    """Guards against functions that only their commands can call, and figures that a notebook does not show."""
    changes = {"network": "cnn", "pretrained": False, "freeze": False, "image_shape": [3, 24, 24], "run_name": "photos"}
    changes |= OURS | {"image_shape": [3, 24, 24], "epochs": 2, "augment": without_augmentation()}
    cells = execute(project, "own_photos", f"DATA = 'signs'\nCHANGES = {as_arguments(changes)!r}")
    out, err = text(cells, "stdout"), text(cells, "stderr")
    assert "kept: 12 train, 6 valid, 9 test" in out and "epoch 2/2" in out
    assert "accuracy 0." in out and out.count("label: ") == 5
    assert figures(cells) == 2
    assert "images" in err and "it/s" not in err, "no progress bar"
    assert "Warning" not in err, err
    assert (project / "output" / "photos" / "report.html").is_file()
    assert (project / "infer" / "photos" / "inference.yml").is_file()


def test_the_stop_button_ends_a_training_that_is_saved(project):
    """Guards against SystemExit, which kernels report as a fault, and advice that only a terminal can follow."""
    arguments = as_arguments({"network": "cnn", **OURS, "image_shape": [3, 24, 24], "epochs": 10**5})
    code = f"import annotate, config, train\nsettings = config.load(None, {arguments!r})\n"
    code += "annotate.annotate(settings)\ntrain.train(settings)"
    manager, client = jupyter_client.manager.start_new_kernel(kernel_name="python3", cwd=str(project))
    try:
        client.execute(code)
        shown, error = "", None
        while error is None:
            message = client.get_iopub_msg(timeout=120)
            if message["msg_type"] == "stream":
                was_shown, shown = "epoch 2/" in shown, shown + message["content"]["text"]
                if "epoch 2/" in shown and not was_shown:
                    manager.interrupt_kernel()
            elif message["msg_type"] == "error":
                error = message["content"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert error["ename"] == "KeyboardInterrupt", error
    assert "output/signs-cnn is saved at epoch" in error["evalue"] and "resume=true" in error["evalue"]
    assert (project / "output" / "signs-cnn" / "last.pdparams").is_file()
