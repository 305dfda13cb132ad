"""Weights files: .safetensors, and Paddle's pickles, read without running what a stranger may have put into them."""

import io
import os
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import safetensors.paddle

from system.errors import UserError

SAFETENSORS = ".safetensors"
# numpy's own functions for arrays and scalars, whose place differs between its releases.
_RECONSTRUCT, _SCALAR = np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]


def _encode(text: str, encoding: str = "latin1") -> bytes:
    # Protocol 2 writes bytes as text; other codecs have no part in that.
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"codec {encoding}")
    return text.encode(encoding)


# All that Paddle and numpy refer to when they pickle weights, optimizer states and averages.
ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    ("_codecs", "encode"): _encode,
    ("builtins", "tuple"): tuple,
    ("__builtin__", "tuple"): tuple,
    ("collections", "OrderedDict"): OrderedDict,
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    ALLOWED[_module, "_reconstruct"] = _RECONSTRUCT
    ALLOWED[_module, "scalar"] = _SCALAR


class ForeignObjectError(pickle.UnpicklingError):
    """A pickle refers to something that is no part of weights; the text names it."""


class _WeightsUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Looks a name up in ALLOWED; nothing is imported."""
        if (module, name) not in ALLOWED:
            raise ForeignObjectError(f"{module}.{name}")
        return ALLOWED[module, name]


def read_weights(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a .pdparams, .pdopt, .pdema or .safetensors file.

    Returns:
        What paddle.load returns: tensors by name, and the schedule's state or counters where there are such.

    Raises:
        UserError: The file is missing, damaged, holds no weights, or holds anything that weights do not consist of.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; check the path")
    try:
        data = Path(path).read_bytes()
        if Path(path).suffix == SAFETENSORS:
            weights = safetensors.paddle.load(data)
        else:
            _WeightsUnpickler(io.BytesIO(data), encoding="latin1").load()
            # The same bytes, which have just been seen to hold nothing but arrays, numbers and texts.
            weights = paddle.load(io.BytesIO(data))
    except ForeignObjectError as error:
        raise UserError(
            f"{path}: holds {error}, which is no part of weights and might run a program; use another file"
        ) from None
    # Unpickling damaged data raises whatever the damage makes of it.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise UserError(f"{path}: cannot be read as weights ({reason}); copy or train them again") from None
    if not isinstance(weights, dict) or not weights:
        raise UserError(f"{path}: this holds no weights; name a .pdparams or .safetensors file")
    return weights


def write_safetensors(path: str | os.PathLike, weights: Mapping[str, paddle.Tensor], about: Mapping[str, str]) -> None:
    """Writes weights in a form that every framework reads, and that can hold nothing else.

    Args:
        about: Texts for the file's header.
    """
    tensors = {name: weight.contiguous() for name, weight in weights.items()}
    Path(path).write_bytes(safetensors.paddle.save(tensors, dict(about)))
