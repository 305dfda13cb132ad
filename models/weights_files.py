"""Weights files: .safetensors, and the pickles of Paddle and torch, read without running what is in them."""

import contextlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import safetensors.paddle

from models import torch_files, zoos
from system.errors import UserError
from system.pickles import ArrayUnpickler, ForeignObjectError

SAFETENSORS = ".safetensors"


def read_weights(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a .pdparams, .pdopt, .pdema or .safetensors file.

    Returns:
        What paddle.load returns: tensors by name, and the schedule's state or counters where there are such.

    Raises:
        UserError: The file is missing, damaged, holds no weights, or holds anything that weights do not consist of.
    """
    with _reading(path) as data:
        if Path(path).suffix == SAFETENSORS:
            weights = safetensors.paddle.load(data)
        else:
            ArrayUnpickler(io.BytesIO(data), encoding="latin1").load()
            # The same bytes, which have just been seen to hold nothing but arrays, numbers and texts.
            weights = paddle.load(io.BytesIO(data))
    if not isinstance(weights, dict) or not weights:
        raise UserError(f"{path}: this holds no weights; name a .pdparams, .safetensors or .pth file")
    return weights


def read_arrays(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], bool | None] | None:
    """Reads weights that may be another zoo's: a .safetensors file, or one of torch.save.

    Returns:
        Arrays by name, and whether they have torch's layout (None: the file does not say); None for Paddle's own files.

    Raises:
        UserError: See read_weights.
    """
    with _reading(path) as data:
        if Path(path).suffix == SAFETENSORS:
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            about = header.get("__metadata__") or {}
            tensors = safetensors.paddle.load(data)
            weights = {key: value.astype("float32").numpy() for key, value in tensors.items()}
            # torch says so, and export.py names the network.
            is_torch = True if about.get("format") == "pt" else False if "network" in about else None
        elif torch_files.is_torch_file(data):
            weights, is_torch = zoos.inner_weights(torch_files.read(data)), True
        else:
            return None
    if not weights:
        raise UserError(f"{path}: this holds no weights; name a .pdparams, .safetensors or .pth file")
    return weights, is_torch


@contextlib.contextmanager
def _reading(path: str | os.PathLike) -> Iterator[bytes]:
    """Yields a file's content; whatever the block raises means that it holds no weights.

    Raises:
        UserError: It cannot be read, or the block failed.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; check the path")
    try:
        yield Path(path).read_bytes()
    except (ForeignObjectError, torch_files.ForeignError) as error:
        raise UserError(
            f"{path}: holds {error}, which is no part of weights and might run a program; use another file"
        ) from None
    # Unpickling damaged data raises whatever the damage makes of it.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise UserError(f"{path}: cannot be read as weights ({reason}); copy or train them again") from None


def write_safetensors(path: str | os.PathLike, weights: Mapping[str, paddle.Tensor], about: Mapping[str, str]) -> None:
    """Writes weights in a form that every framework reads, and that can hold nothing else.

    Args:
        about: Texts for the file's header.
    """
    tensors = {name: weight.contiguous() for name, weight in weights.items()}
    Path(path).write_bytes(safetensors.paddle.save(tensors, dict(about)))
