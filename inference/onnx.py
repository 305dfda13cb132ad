"""The graph as ONNX, for clients that run ONNX Runtime and the like."""

import importlib.util
import subprocess
import sys
from pathlib import Path

from inference.description import GRAPH, ONNX, WEIGHTS
from system.errors import UserError

OPSET = 17
PACKAGES = ("paddle2onnx", "onnxruntime")
INSTALL = "pip install paddle2onnx==2.1.0 onnxruntime"


def check_installed() -> None:
    """Looks for the converter, and for the runtime that checks what it made.

    Raises:
        UserError: One of them is not installed.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"--onnx: {' and '.join(missing)} not installed; run `{INSTALL}`")


def write_onnx(folder: Path) -> None:
    """Converts inference.json into inference.onnx.

    Raises:
        UserError: The converter does not know an operator of this network.
    """
    # The converter's own default, polygraphy, installs packages into this environment by itself.
    program = "import sys, paddle2onnx.command as c; c.main()"
    options = {
        "--model_dir": str(folder),
        "--model_filename": GRAPH,
        "--params_filename": WEIGHTS,
        "--save_file": str(folder / ONNX),
        "--opset_version": str(OPSET),
        "--optimize_tool": "None",
    }
    arguments = [part for option in options.items() for part in option]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, errors="replace")
    if done.returncode or not (folder / ONNX).is_file():
        lines = [line for line in (done.stderr + done.stdout).strip().splitlines() if line.strip()] or [
            "no reason given"
        ]
        raise UserError(f"--onnx: this network cannot be converted ({lines[-1]}); export without --onnx")
