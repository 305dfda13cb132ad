"""What Windows does otherwise: quoting of command lines, names of folders, files in use, paths of C++ code."""

import contextlib
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

IS_WINDOWS = os.name == "nt"
# By default; a folder of Windows and a volume of macOS can be told to.
IGNORES_CASE = sys.platform in ("win32", "darwin")
# Pauses in seconds after which a file in use is tried again: virus scanners and indexers hold a new one for a moment.
PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])\s*(\..*)?", re.IGNORECASE)
_CURRENT_FOLDER = threading.RLock()


def quoted(words: Iterable[str]) -> str:
    """Quotes the words of a command for the shell of this system, so that the line can be copied into it."""
    if not IS_WINDOWS:
        return shlex.join(words)
    return " ".join(map(_quoted_word, words))


def _quoted_word(word: str) -> str:
    """One word for cmd and PowerShell, which know double quotes; a % is expanded by cmd even there."""
    line = subprocess.list2cmdline([word])
    # cmd divides lines at & and |, PowerShell words at commas.
    is_plain = re.fullmatch(r"[\w@+=:./\\~-]+", word)
    return line if is_plain or '"' in line else f'"{line}"'


def name_fault(name: str) -> str:
    """Returns why a file or folder on Windows cannot have a name; "" if it can, and on other systems."""
    if not IS_WINDOWS:
        return ""
    if _RESERVED.fullmatch(name):
        return "Windows keeps this name for a device"
    if found := sorted({character for character in name if character in '<>:"/\\|?*' or character < " "}):
        return f"Windows allows no {' '.join(map(repr, found))} in a name"
    return "Windows drops a dot or blank at the end of a name" if name[-1:] in (".", " ") else ""


def slashed(path: str) -> str:
    """A path with the separator `/`, which every system reads: lists and tables hold paths of this form."""
    return path.replace("\\", "/") if IS_WINDOWS else path


def replace(source: str | os.PathLike, target: str | os.PathLike) -> None:
    """Renames a file over another, as os.replace does; on Windows waits up to two seconds while one is in use.

    Raises:
        OSError: It cannot be renamed.
    """
    for pause in PAUSES if IS_WINDOWS else ():
        try:
            os.replace(source, target)
            return
        except PermissionError:
            time.sleep(pause)
    os.replace(source, target)


def claim_port(listener: socket.socket) -> None:
    """Makes a socket listen alone, and on a port whose last server has just ended.

    On Windows, SO_REUSEADDR would let two servers share a port, each with some of the requests.
    """
    option = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
    listener.setsockopt(socket.SOL_SOCKET, option, 1)


@contextlib.contextmanager
def native_folder(folder: Path) -> Iterator[Path]:
    r"""Makes the files of a folder accessible to Paddle's C++ code, whatever the folder is called.

    On Windows that code reads a path in the code page of the system, though Python gives it UTF-8: no file below
    `C:\Users\张三` is found. Such a folder becomes the current folder while the block runs; other threads must not
    open relative paths meanwhile.

    Yields:
        The folder's path for the block to use.
    """
    if not IS_WINDOWS or str(folder).isascii():
        yield folder
        return
    with _CURRENT_FOLDER:
        before = os.getcwd()
        os.chdir(folder)
        try:
            yield Path()
        finally:
            os.chdir(before)
