"""Message framing over a worker's stdin and stdout: a JSON head, then blocks of bytes.

A frame is the length of the head (4 bytes, big-endian), the head, and the blocks one after another; the head lists
their sizes. Nothing is pickled, so a frame cannot carry code.
"""

import asyncio
import json
import struct
from collections.abc import Sequence
from typing import Any, BinaryIO

_LENGTH = struct.Struct(">I")

Frame = tuple[dict[str, Any], list[bytes]]


def pack(head: dict[str, Any], blocks: Sequence[bytes] = ()) -> list[bytes]:
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


async def receive(stream: asyncio.StreamReader) -> Frame:
    """Reads a frame without blocking the event loop.

    Raises:
        asyncio.IncompleteReadError: The other side has closed the pipe.
    """
    (length,) = _LENGTH.unpack(await stream.readexactly(_LENGTH.size))
    head = json.loads(await stream.readexactly(length))
    return head, [await stream.readexactly(size) for size in head["sizes"]]
