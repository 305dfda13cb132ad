"""Request bodies: counted, limited and timed while they stream, and parsed into images.

Nothing is written to disk, and never more than the limits is held in memory.
"""

import asyncio
import contextlib
import ipaddress
import re
import sys
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import anyio
from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from serving.messages import Data
from serving.monitoring import Monitor
from serving.options import Options
from serving.refusal import RefusalError

FILE_FIELDS = ("files", "file")
# Text fields of a form beside its files, and the size of each in bytes.
MAX_FIELDS, FIELD_BYTES = 8, 4096
# The rest of a refused body is read for this long, so that the client receives the error and not a broken pipe.
LINGER_SECONDS = 2.0
NAME_LENGTH = 200
# A form's last line is looked for in so many bytes: a boundary has at most 70 characters, and blank lines may follow.
END_BYTES = 256
# A body that has not arrived is given up so soon after the server began to shut down, in seconds.
DRAIN_SECONDS = 1.0
# What a file without a name is called in the response.
UNNAMED = "picture"


class _InMemoryParser(MultiPartParser):
    """Keeps a form's files in memory, whatever their size: the limit of the body bounds them."""

    spool_max_size = sys.maxsize


@dataclass
class Upload:
    """The content of a request.

    Attributes:
        names: File names as the client sent them; only ever returned to that client.
        files: Bytes of each file.
        fields: Text fields of the form.
    """

    names: list[str] = field(default_factory=list)
    files: list[Data] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)


class Uploads:
    """Keeps the sum of all bodies in memory below a limit, fairly; wrap whatever holds a body in `hold`.

    Where the limit is reached, the client that holds most gives way: its largest body that is still arriving.
    """

    def __init__(self, options: Options, monitor: Monitor, is_draining: Callable[[], bool] = lambda: False):
        self.options, self.monitor, self.is_draining = options, monitor, is_draining
        self.bodies: set[Body] = set()
        self.bytes = 0

    @property
    def arriving(self) -> int:
        """Bodies that are still arriving."""
        return sum(not body.is_complete for body in self.bodies)

    @contextlib.asynccontextmanager
    async def hold(self, request: Request) -> AsyncIterator["Body"]:
        """Yields the request's body; its bytes count until the block ends."""
        body = Body(request, self)
        self.bodies.add(body)
        try:
            yield body
        finally:
            self.bodies.discard(body)
            body.set_size(0)

    def make_room(self) -> None:
        """Ends bodies until the rest fit."""
        while self.bytes > self.options.upload_bytes:
            held: Counter[str] = Counter()
            for body in self.bodies:
                held[body.client] += body.size
            arriving = [body for body in self.bodies if not body.is_complete and body.size]
            if not arriving:
                return
            max(arriving, key=lambda body: (held[body.client], body.size)).give_way()


def _crowded_out() -> RefusalError:
    """The refusal of a body that has to give way to others."""
    return RefusalError(503, "too many uploads at a time; try again in a moment", 1)


def client_of(address: str) -> str:
    """What counts as one client: an address, or of IPv6 the network that one customer has (/64)."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return address if parsed.version == 4 else str(ipaddress.ip_network(f"{address}/64", strict=False))


class Body:
    """The body of one request.

    Attributes:
        client: Who sends it, see `client_of`.
        size: Bytes held.
        is_complete: Whether it has arrived.
        ended: Done where it has to give way to others.
    """

    def __init__(self, request: Request, uploads: Uploads):
        self.request, self.uploads, self.options = request, uploads, uploads.options
        self.client = client_of(request.client.host if request.client else "")
        self.size, self.is_complete = 0, False
        self.ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def set_size(self, size: int) -> None:
        """Sets the bytes held, here and in the sum."""
        self.uploads.bytes += size - self.size
        self.size = size
        self.uploads.monitor.uploads.set(self.uploads.bytes)

    def give_way(self) -> None:
        """Ends the body: what it holds is freed as soon as its request sees it."""
        self.set_size(0)
        if not self.ended.done():
            self.ended.set_result(None)

    async def read(self, limit: int | None = None) -> bytearray:
        """Reads the whole body.

        Args:
            limit: Largest size in bytes; the option's when left out.

        Raises:
            RefusalError: It is too large or too slow, or the memory for bodies is used up.
        """
        with self._timed():
            # Grown in place: a list of chunks would be held beside the whole.
            body = bytearray()
            async for chunk in self._stream(limit or self.options.body_bytes):
                body += chunk
            return body

    async def images(self) -> Upload:
        """Reads image files: those of a form, or the body itself.

        Raises:
            RefusalError: As `read`, or the body has another content type, or holds no image.
        """
        content_type = self.request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type == "multipart/form-data":
            upload = await self._form()
        elif content_type.startswith("image/") or content_type == "application/octet-stream":
            upload = Upload([UNNAMED], [await self.read()])
        else:
            await self._discard()
            found = f"Content-Type {content_type[:60]}" if content_type else "no Content-Type"
            raise RefusalError(415, f"{found}: send multipart/form-data with files, or an image as image/jpeg")
        if not upload.files or upload.files == [b""]:
            raise RefusalError(400, "no image received; send one as the body, or several as form fields called files")
        return upload

    async def _form(self) -> Upload:
        end = b""

        async def noting_end() -> AsyncGenerator[bytes, None]:
            nonlocal end
            async for chunk in self._stream(self.options.body_bytes):
                end = (end + chunk)[-END_BYTES:]
                yield chunk

        parser = _InMemoryParser(
            self.request.headers, noting_end(),
            max_files=self.options.max_files, max_fields=MAX_FIELDS, max_part_size=FIELD_BYTES,
        )  # fmt: skip
        try:
            with self._timed():
                form = await parser.parse()
        except MultiPartException as error:
            await self._discard()
            status = 413 if "Too many" in error.message else 400
            raise RefusalError(status, f"malformed form ({error.message.rstrip('.')}); correct it") from None
        # A crafted form makes the parser raise other errors too; all of them are the client's.
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            await self._discard()
            raise RefusalError(400, f"malformed form ({type(error).__name__}); correct it") from None
        boundary = self.request.headers.get("content-type", "").partition("boundary=")[2].partition(";")[0].strip(' "')
        # The parser takes what has arrived for the whole.
        if f"--{boundary}--".encode("latin-1", "replace") not in end:
            raise RefusalError(400, "malformed form (it ends within a field); send it whole")
        upload = Upload()
        for name, value in form.multi_items():
            if not isinstance(value, UploadFile):
                upload.fields[name] = value
            elif name in FILE_FIELDS:
                upload.names.append(clean(value.filename or "") or UNNAMED)
                upload.files.append(value.file.read())
                value.file.close()
            else:
                raise RefusalError(400, f"field {clean(name)!r}: unknown; send images in fields called files")
        return upload

    async def _stream(self, limit: int) -> AsyncGenerator[bytes, None]:
        too_large = RefusalError(413, f"the body is larger than {limit / 2**20:g} MB; send fewer or smaller images")
        declared = self.request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            await self._discard()
            raise too_large
        async for chunk in self._chunks():
            self.set_size(self.size + len(chunk))
            if self.size > limit:
                await self._discard()
                raise too_large
            self.uploads.make_room()
            if self.ended.done():
                raise _crowded_out()
            yield chunk
        self.is_complete = True

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it arrives; ends half of one with an error when the server shuts down."""
        stream = self.request.stream()
        waiting: asyncio.Future[Any] | None = None
        try:
            while True:
                waiting = waiting or asyncio.ensure_future(anext(stream))
                done, _ = await asyncio.wait(
                    {waiting, self.ended}, timeout=DRAIN_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                if self.ended in done:
                    raise _crowded_out()
                if done:
                    try:
                        chunk, waiting = waiting.result(), None
                    except StopAsyncIteration:
                        waiting = None
                        return
                    yield chunk
                elif self.uploads.is_draining():
                    raise RefusalError(503, "the server is shutting down; try again in a moment", 2)
        finally:
            if waiting:
                waiting.cancel()

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        seconds = self.options.upload_seconds
        try:
            with anyio.fail_after(seconds):
                yield
        except TimeoutError:
            message = f"the body was not received within {seconds:g} s; send it faster, or fewer images at a time"
            raise RefusalError(408, message) from None

    async def _discard(self) -> None:
        """Reads and drops what still arrives, for a limited time."""
        if self.request.headers.get("expect", "").lower() == "100-continue" and not self.size:
            return
        seconds = min(LINGER_SECONDS, self.options.upload_seconds / 2)
        with anyio.move_on_after(seconds), contextlib.suppress(ClientDisconnect, RuntimeError):
            async for _ in self.request.stream():
                pass


def clean(text: str) -> str:
    """Makes a client's text safe for one line of a response or file: no control characters, no lone surrogates."""
    text = text.encode("utf-8", "replace").decode("utf-8")[: 4 * NAME_LENGTH]
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text).strip()[:NAME_LENGTH]
