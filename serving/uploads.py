"""Bodies as they come in: counted, limited and timed while they stream, and taken apart into images.

Nothing is written to disk, and nothing larger than the limits is ever held.
"""

import contextlib
import re
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import anyio
from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from serving.monitoring import Monitor
from serving.options import Options
from serving.worker_pool import RefusalError

FIELDS = ("files", "file")
# Text fields of a form beside its files, and the size of each in bytes.
MAX_FIELDS, FIELD_BYTES = 8, 4096
# A body that is refused is read on for so long, so that the client gets to read the answer instead of a broken pipe.
LINGER_SECONDS = 2.0
NAME_LENGTH = 200


class _InMemory(MultiPartParser):
    """Files of a form stay in memory, whatever their size: the limit of the body limits them."""

    spool_max_size = sys.maxsize


@dataclass
class Upload:
    """What a request brought.

    Attributes:
        names: Of the files, as the client calls them, for its own reading only.
        files: Their bytes.
        fields: Text fields of the form.
    """

    names: list[str] = field(default_factory=list)
    files: list[bytes] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)


class Uploads:
    """Keeps the sum of all bodies below a limit; use `held` around everything that holds one."""

    def __init__(self, options: Options, monitor: Monitor):
        self.options, self.monitor, self.bytes = options, monitor, 0

    @contextlib.asynccontextmanager
    async def held(self, request: Request) -> AsyncIterator["Body"]:
        """Gives the request's body to read; its bytes count until the block ends."""
        body = Body(request, self)
        try:
            yield body
        finally:
            self.count(-body.size)

    def count(self, size: int) -> None:
        """Adds bytes to those held."""
        self.bytes += size
        self.monitor.uploads.set(self.bytes)


class Body:
    """The body of one request."""

    def __init__(self, request: Request, uploads: Uploads):
        self.request, self.uploads, self.options = request, uploads, uploads.options
        self.size = 0

    async def read(self, limit: int | None = None) -> bytes:
        """Reads it whole.

        Raises:
            RefusalError: It is too large, too slow, or the memory for bodies is used up.
        """
        with self._timed():
            return b"".join([piece async for piece in self._stream(limit or self.options.body_bytes)])

    async def images(self) -> Upload:
        """Reads images: files of a form, or the body itself.

        Raises:
            RefusalError: As `read`, or the body is of another kind, or without an image.
        """
        kind = self.request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "multipart/form-data":
            upload = await self._form()
        elif kind.startswith("image/") or kind == "application/octet-stream":
            upload = Upload(["picture"], [await self.read()])
        else:
            await self._linger()
            told = f"Content-Type {kind[:60]}" if kind else "no Content-Type"
            raise RefusalError(415, f"{told}: send multipart/form-data with files, or an image as image/jpeg")
        if not upload.files or upload.files == [b""]:
            raise RefusalError(400, "no image came; send one as the body, or several as form fields called files")
        return upload

    async def _form(self) -> Upload:
        parser = _InMemory(
            self.request.headers, self._stream(self.options.body_bytes),
            max_files=self.options.max_files, max_fields=MAX_FIELDS, max_part_size=FIELD_BYTES,
        )  # fmt: skip
        try:
            with self._timed():
                form = await parser.parse()
        except MultiPartException as error:
            await self._linger()
            status = 413 if "Too many" in error.message else 400
            raise RefusalError(status, f"the form cannot be read ({error.message.rstrip('.')}); mend it") from None
        # What else a crafted form makes the parser stumble over is the client's doing.
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            await self._linger()
            raise RefusalError(400, f"the form cannot be read ({type(error).__name__}); mend it") from None
        upload = Upload()
        for name, value in form.multi_items():
            if not isinstance(value, UploadFile):
                upload.fields[name] = value
            elif name in FIELDS:
                upload.names.append(clean(value.filename or "") or "picture")
                upload.files.append(value.file.read())
                value.file.close()
            else:
                raise RefusalError(400, f"field {clean(name)!r}: unknown; send images in fields called files")
        return upload

    async def _stream(self, limit: int) -> AsyncIterator[bytes]:
        too_large = RefusalError(413, f"the body is larger than {limit / 2**20:g} MB; send fewer or smaller images")
        declared = self.request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            await self._linger()
            raise too_large
        async for piece in self.request.stream():
            self.size += len(piece)
            self.uploads.count(len(piece))
            if self.size > limit:
                await self._linger()
                raise too_large
            if self.uploads.bytes > self.options.upload_bytes:
                raise RefusalError(503, "too many uploads at a time; try again in a moment", 1)
            yield piece

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        seconds = self.options.upload_seconds
        try:
            with anyio.fail_after(seconds):
                yield
        except TimeoutError:
            told = f"the body did not come within {seconds:g} s; send it faster, or in parts"
            raise RefusalError(408, told) from None

    async def _linger(self) -> None:
        """Throws away what still comes, for a while."""
        if self.request.headers.get("expect", "").lower() == "100-continue" and not self.size:
            return
        seconds = min(LINGER_SECONDS, self.options.upload_seconds / 2)
        with anyio.move_on_after(seconds), contextlib.suppress(ClientDisconnect, RuntimeError):
            async for _ in self.request.stream():
                pass


def clean(text: str) -> str:
    """Makes a client's text fit for one line of an answer or a file: no control characters, no half characters."""
    text = text.encode("utf-8", "replace").decode("utf-8")[: 4 * NAME_LENGTH]
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text).strip()[:NAME_LENGTH]
