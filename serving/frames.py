"""How the server and a worker talk over the worker's stdin and stdout: a JSON head and blocks of bytes.

A frame is the length of the head (4 bytes, big-endian), the head, and the blocks one after the other, whose sizes the
head lists. Nothing is pickled: a frame can hold no code.
"""

import asyncio
import json
import struct
from collections.abc import Sequence
from typing import BinaryIO

_LENGTH = struct.Struct(">I")


def pack(head: dict, blocks: Sequence[bytes] = ()) -> list[bytes]:
    """Makes a frame, in pieces to be written one after the other."""
    text = json.dumps(head | {"sizes": [len(block) for block in blocks]}).encode()
    return [_LENGTH.pack(len(text)) + text, *blocks]


def write(stream: BinaryIO, head: dict, blocks: Sequence[bytes] = ()) -> None:
    """Writes a frame to a pipe."""
    for piece in pack(head, blocks):
        stream.write(piece)
    stream.flush()


def read(stream: BinaryIO) -> tuple[dict, list[bytes]] | None:
    """Reads a frame from a buffered pipe; None where the other side has closed it."""
    start = stream.read(_LENGTH.size)
    if len(start) < _LENGTH.size:
        return None
    head = json.loads(stream.read(_LENGTH.unpack(start)[0]))
    return head, [stream.read(size) for size in head["sizes"]]


async def receive(stream: asyncio.StreamReader) -> tuple[dict, list[bytes]]:
    """Reads a frame without holding up the event loop.

    Raises:
        asyncio.IncompleteReadError: The other side has closed the pipe.
    """
    (length,) = _LENGTH.unpack(await stream.readexactly(_LENGTH.size))
    head = json.loads(await stream.readexactly(length))
    return head, [await stream.readexactly(size) for size in head["sizes"]]
