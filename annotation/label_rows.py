"""Rows of a file of labels, and the text of such a file, whatever wrote it."""

import codecs
from dataclasses import dataclass
from pathlib import Path

from annotation.lists import name_fault
from system.errors import UserError, shorten
from system.publishing import finish_publishing

ENCODINGS = ("utf-8-sig", "gb18030")  # those without a mark, in the order in which they are tried


@dataclass(slots=True)
class Row:
    """What a file says about one image.

    Attributes:
        path: The image, as written.
        label: Name of its class; "" if there is none.
        split: As written; "" if there is none.
        group: Name of its group; "" if there is none.
        reason: Code of why the row cannot be used; "" if it can.
        detail: The reason in words.
    """

    file: Path
    line: int
    path: str
    label: str = ""
    split: str = ""
    group: str = ""
    reason: str = ""
    detail: str = ""

    @property
    def where(self) -> str:
        """File name and line, for a message."""
        return f"{self.file.name} line {self.line}"

    def check(self) -> None:
        """Refuses a row without a path or a label, or with a cell that does not fit into a list."""
        if not self.path.strip():
            self.reason = ""
            self.refuse("no_path", "there is no path in the row")
        elif not self.label:
            self.refuse("no_label", "there is no label in the row")
        else:
            for kind, text in (("label", self.label), ("group", self.group)):
                if text and (fault := name_fault(text)):
                    self.refuse("bad_cell", f"the {kind} {quote(text)} has {fault}")

    def refuse(self, reason: str, detail: str) -> None:
        """Marks the row as one that cannot be used; the first reason counts."""
        if not self.reason:
            self.reason, self.detail = reason, f"{self.where}: {detail}"


def quote(text: str) -> str:
    """Quotes a cell in one printable line."""
    return shorten(repr(text))


def read_text(file: Path) -> tuple[str, str, bytes]:
    """Reads a text file in UTF-8, UTF-16 or GB18030 (which GBK is a part of).

    Returns:
        The text, the name of its encoding, and the bytes.

    Raises:
        UserError: It cannot be read, or is in none of them.
    """
    finish_publishing(file.parent)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); check labels_file and its rights") from None
    for encoding in _candidates(content):
        try:
            return content.decode(encoding), encoding.removesuffix("-sig").upper(), content
        except UnicodeDecodeError:
            continue
    raise UserError(f"{file}: it is not text in UTF-8, UTF-16 or GB18030; save it as `CSV UTF-8`")


def _candidates(content: bytes) -> tuple[str, ...]:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return ("utf-16",)
    # A null byte is half of an ASCII character in UTF-16, and nothing in a table.
    if b"\0" in content[:2]:
        return ("utf-16-be",) if content[:1] == b"\0" else ("utf-16-le",)
    return ENCODINGS
