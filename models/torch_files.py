"""Files of torch.save (.pth, .pt, .bin), read without torch and without running what a stranger may have put into them.

Source of the two forms: torch/serialization.py and torch/_utils.py (2.14).
"""

import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
# Elements of storages by the name of their class; bfloat16 is widened to float32.
STORAGES = {
    "DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "<i1", "ByteStorage": "<u1",
    "BoolStorage": "?",
}  # fmt: skip


class ForeignError(pickle.UnpicklingError):
    """A file refers to something that is no part of weights; the text names it."""


class _Storage:
    """The numbers behind one tensor or several, filled in once they have been read."""

    def __init__(self, kind: str):
        self.kind = kind
        self.numbers = np.empty(0)

    def fill(self, data: bytes) -> None:
        if self.kind == "bfloat16":
            self.numbers = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            self.numbers = np.frombuffer(data, self.kind)


class _Tensor:
    """A view of a storage."""

    def __init__(self, storage: _Storage, offset: int, size: Sequence[int], stride: Sequence[int]):
        self.storage, self.offset, self.size, self.stride = storage, offset, tuple(size), tuple(stride)

    def array(self) -> np.ndarray:
        numbers = self.storage.numbers
        last = self.offset + sum((side - 1) * step for side, step in zip(self.size, self.stride, strict=True))
        if not math.prod(self.size):
            return np.zeros(self.size, numbers.dtype)
        if self.offset < 0 or min(self.stride, default=0) < 0 or last >= len(numbers):
            raise ValueError("a tensor reaches beyond its storage")
        strides = [step * numbers.itemsize for step in self.stride]
        return np.lib.stride_tricks.as_strided(numbers[self.offset :], self.size, strides, writeable=False).copy()


def _rebuild_tensor(storage: _Storage, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    return _Tensor(storage, offset, size, stride)


def _rebuild_parameter(tensor: _Tensor, *_: Any) -> _Tensor:
    return tensor


# All that torch refers to when it saves tensors.
ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch", "Size"): tuple,
    **{("torch", name): kind for name, kind in STORAGES.items()},
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BufferedIOBase):
        super().__init__(file, encoding="latin1")
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Looks a name up in ALLOWED; nothing is imported."""
        if (module, name) not in ALLOWED:
            raise ForeignError(f"{module}.{name}")
        return ALLOWED[module, name]

    def persistent_load(self, reference: Any) -> _Storage:
        """Returns the storage of a reference ("storage", class, key, device, count, ...)."""
        _, kind, key, *_ = reference
        return self.storages.setdefault(str(key), _Storage(kind))


def is_torch_file(data: bytes) -> bool:
    """Returns whether a file's content begins as torch.save begins: a zip archive, or a pickle of its magic number."""
    return data.startswith(b"PK\x03\x04") or data[2:14].startswith(b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19")


def read(data: bytes) -> Any:
    """Reads the content of a file; tensors become NumPy arrays.

    Raises:
        ForeignError: It refers to something that is no part of weights.
        Exception: It is damaged; what is raised depends on the damage.
    """
    return _arrays(_read_zip(data) if data.startswith(b"PK") else _read_legacy(io.BytesIO(data)))


def _read_zip(data: bytes) -> Any:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        pickled = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(pickled) != 1 or any(name.endswith("/constants.pkl") for name in names):
            raise ForeignError("a TorchScript program" if pickled else "an archive of something else")
        folder = pickled[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder") != b"little":
            raise ValueError("its numbers are big-endian")
        unpickler = _Unpickler(io.BytesIO(archive.read(pickled[0])))
        content = unpickler.load()
        for key, storage in unpickler.storages.items():
            storage.fill(archive.read(f"{folder}data/{key}"))
    return content


def _read_legacy(file: io.BytesIO) -> Any:
    if _Unpickler(file).load() != MAGIC or _Unpickler(file).load() != PROTOCOL:
        raise ValueError("it is no file of torch.save")
    if not _Unpickler(file).load().get("little_endian", True):
        raise ValueError("its numbers are big-endian")
    unpickler = _Unpickler(file)
    content = unpickler.load()
    for key in _Unpickler(file).load():
        storage = unpickler.storages[str(key)]
        (count,) = struct.unpack("<q", file.read(8))
        size = count * (2 if storage.kind == "bfloat16" else np.dtype(storage.kind).itemsize)
        numbers = file.read(size)
        if len(numbers) != size:
            raise ValueError("it is cut short")
        storage.fill(numbers)
    return content


def _arrays(content: Any) -> Any:
    if isinstance(content, _Tensor):
        return content.array()
    if isinstance(content, dict):
        return {key: _arrays(value) for key, value in content.items()}
    return content
