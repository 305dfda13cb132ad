"""Output of C++ code, which writes to the file descriptors and ignores sys.stdout, sys.stderr and warning filters."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def suppressed(fragment: str = "") -> Iterator[None]:
    """Drops the lines of stdout and stderr that contain a fragment, by default all; others appear after the block."""
    with contextlib.ExitStack() as stack:
        for descriptor in (1, 2):
            stack.enter_context(_filtered(descriptor, fragment.encode()))
        yield


@contextlib.contextmanager
def _filtered(descriptor: int, fragment: bytes) -> Iterator[None]:
    _flush()
    original = os.dup(descriptor)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), descriptor)
        try:
            yield
        finally:
            _flush()
            os.dup2(original, descriptor)
            captured.seek(0)
            for line in captured:
                if fragment not in line:
                    os.write(original, line)
            os.close(original)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
