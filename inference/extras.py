"""Optional engines: each can be deleted with its two lines here."""

from inference.interfaces import ExtraEngine
from inference.onnx import ONNX_RUNTIME  # optional: onnx
from inference.openvino_bf16 import OPENVINO_BF16  # optional: bf16
from inference.quantisation import INT8  # optional: int8

_ENGINES: tuple[ExtraEngine, ...] = (
    INT8,  # optional: int8
    OPENVINO_BF16,  # optional: bf16
    ONNX_RUNTIME,  # optional: onnx
)
EXTRAS = {engine.name: engine for engine in _ENGINES}


def is_exact(engine: str) -> bool:
    """Returns True if an engine's probabilities must be the run's, False if only its accuracy must."""
    return engine not in EXTRAS or EXTRAS[engine].is_exact
