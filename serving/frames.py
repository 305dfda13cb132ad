"""Message framing over a worker's stdin and stdout: a JSON head, then blocks of bytes.

A frame is the length of the head (4 bytes, big-endian), the head, and the blocks one after another; the head lists
their sizes. Nothing is pickled, so a frame cannot carry code.
"""

import asyncio
import json
import struct
from collections.abc import Sequence
from typing import Any, BinaryIO

from serving.messages import Data

_LENGTH = struct.Struct(">I")
# Blocks are handed to a pipe in slices: its buffer would hold a copy of all that does not fit into it.
SLICE_BYTES = 1 << 20

Frame = tuple[dict[str, Any], list[bytes]]


def pack(head: dict[str, Any], blocks: Sequence[Data] = ()) -> list[Data]:
    """Builds a frame, in pieces to be written one after another."""
    text = json.dumps(head | {"sizes": [len(block) for block in blocks]}).encode()
    return [_LENGTH.pack(len(text)) + text, *blocks]


def write(stream: BinaryIO, head: dict[str, Any], blocks: Sequence[bytes] = ()) -> None:
    """Writes a frame to a pipe."""
    for piece in pack(head, blocks):
        stream.write(piece)
    stream.flush()


def read(stream: BinaryIO) -> Frame | None:
    """Reads a frame from a buffered pipe; None at its end."""
    start = stream.read(_LENGTH.size)
    if len(start) < _LENGTH.size:
        return None
    head = json.loads(stream.read(_LENGTH.unpack(start)[0]))
    return head, [stream.read(size) for size in head["sizes"]]


async def send(stream: asyncio.StreamWriter, head: dict[str, Any], blocks: Sequence[Data] = ()) -> None:
    """Writes a frame without blocking the event loop.

    Raises:
        OSError: The other side has closed the pipe.
    """
    for piece in pack(head, blocks):
        for start in range(0, len(piece), SLICE_BYTES):
            stream.write(memoryview(piece)[start : start + SLICE_BYTES])
            await stream.drain()


async def receive(stream: asyncio.StreamReader) -> Frame:
    """Reads a frame without blocking the event loop.

    Raises:
        asyncio.IncompleteReadError: The other side has closed the pipe.
    """
    (length,) = _LENGTH.unpack(await stream.readexactly(_LENGTH.size))
    head = json.loads(await stream.readexactly(length))
    return head, [await stream.readexactly(size) for size in head["sizes"]]
