"""ONNX: the graph for ONNX Runtime and other clients (optional)."""

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from inference.interfaces import Engine, ExtraEngine
from inference.names import GRAPH, WEIGHTS
from system import optional
from system.errors import UserError
from system.settings import Settings

if TYPE_CHECKING:
    import numpy as np

    from imaging.transforms import EvalTransform

ONNX = "inference.onnx"
OPSET = 17
PACKAGES = ("paddle2onnx", "onnxruntime")
INSTALL = "pip install paddle2onnx==2.1.0 onnxruntime"


class OnnxRuntime(ExtraEngine):
    """ONNX Runtime on the CPU."""

    name, option = "onnxruntime", "onnx"
    help = "also write inference.onnx (needs paddle2onnx and onnxruntime)"
    graph = weights = ONNX

    def check(self) -> None:
        """Checks that converter and runtime are installed; export.py verifies with the latter."""
        if missing := [name for name in PACKAGES if not optional.is_installed(name)]:
            raise UserError(f"--onnx: {' and '.join(missing)} not installed; run `{INSTALL}`")

    def write(self, folder: Path, settings: Settings, transform: "EvalTransform") -> None:
        """Converts inference.json into inference.onnx."""
        write_onnx(folder)

    def problem(self) -> str:
        """Returns why the engine cannot run on this machine, and the remedy; "" if it can."""
        if optional.is_installed("onnxruntime"):
            return ""
        return "it is not installed; run `pip install onnxruntime` (requirements-bench.txt pins it)"

    def load(self, folder: Path, threads: int) -> Engine:
        """Loads inference.onnx."""
        return OnnxSession(folder / ONNX, threads)


ONNX_RUNTIME = OnnxRuntime()


class OnnxSession:
    """A graph loaded by ONNX Runtime."""

    def __init__(self, file: Path, threads: int):
        onnxruntime = optional.load("onnxruntime", str(file), "onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # It warns about every initializer that the converter left unused.
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self.input_name = self.session.get_inputs()[0].name

    def __call__(self, images: "np.ndarray") -> "np.ndarray":
        """Turns raw pixels float32 [N, 3, H, W], 0..255, into probabilities float32 [N, C]."""
        return self.session.run(None, {self.input_name: images})[0]


def write_onnx(folder: Path) -> None:
    """Converts inference.json into inference.onnx.

    Raises:
        UserError: The converter does not support an operator of this network.
    """
    # The converter's default optimizer, polygraphy, installs packages into this environment by itself.
    program = "import sys, paddle2onnx.command as c; c.main()"
    options = {
        # In that folder: C++ code finds none of Windows whose name is not ASCII.
        "--model_dir": ".",
        "--model_filename": GRAPH,
        "--params_filename": WEIGHTS,
        "--save_file": ONNX,
        "--opset_version": str(OPSET),
        "--optimize_tool": "None",
    }
    arguments = [part for option in options.items() for part in option]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=folder, capture_output=True, text=True, errors="replace"
    )
    if done.returncode or not (folder / ONNX).is_file():
        lines = [line for line in (done.stderr + done.stdout).strip().splitlines() if line.strip()]
        reason = lines[-1] if lines else "no reason given"
        raise UserError(f"--onnx: this network cannot be converted ({reason}); export without --onnx")
