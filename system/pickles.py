"""Pickles of arrays, read without running what a stranger may have put into them."""

import pickle
from collections import OrderedDict
from typing import Any

import numpy as np

# numpy's own functions for arrays and scalars, whose place differs between its releases.
_RECONSTRUCT, _SCALAR = np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]


def _encode(text: str, encoding: str = "latin1") -> bytes:
    # Protocol 2 writes bytes as text; other codecs have no part in that.
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"codec {encoding}")
    return text.encode(encoding)


# All that numpy and Paddle refer to when they pickle arrays: weights, optimizer states and averages.
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
    """A pickle refers to something else than arrays; the text names it."""


class ArrayUnpickler(pickle.Unpickler):
    """Reads a pickle of arrays, numbers, texts and containers; anything else is refused before it is made."""

    def find_class(self, module: str, name: str) -> Any:
        """Looks a name up in ALLOWED; nothing is imported."""
        if (module, name) not in ALLOWED:
            raise ForeignObjectError(f"{module}.{name}")
        return ALLOWED[module, name]
