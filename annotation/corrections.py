"""Corrections: decisions of people about single images, one row each in corrections.tsv beside the lists.

Rows are only ever appended. Of an image's rows the last one counts; deleting a row takes the decision back.
"""

import csv
import os
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from annotation.names import CORRECTIONS
from system.appending import append_rows
from system.errors import UserError, problems, shorten
from system.files import read_lines

COLUMNS = ("path", "digest", "action", "class", "who", "when", "why")
RELABEL, DROP, KEEP, UNDO = "relabel", "drop", "keep", "undo"
ACTIONS = (RELABEL, DROP, KEEP, UNDO)


@dataclass(frozen=True)
class Correction:
    """One row.

    Attributes:
        path: Of the image, relative to the data folder, with `/`.
        digest: SHA-256 of the file that was looked at, hexadecimal; "": whatever its content.
        action: relabel; drop (leave the image out); keep (its label is right; with non_rgb=skip, convert it); undo.
        class_name: The new class of a relabelled image; "" otherwise.
        who: Name of the person.
        when: Time, ISO 8601.
        why: In the person's words.
    """

    path: str
    digest: str
    action: str
    class_name: str = ""
    who: str = ""
    when: str = ""
    why: str = ""

    def is_like(self, other: "Correction") -> bool:
        """Whether both decide the same."""
        return (self.action, self.class_name) == (other.action, other.class_name)


def read(folder: Path, data_dir: Path, class_names: Sequence[str]) -> list[Correction]:
    """Reads the corrections of a lists folder; none if there is no file, or nothing in it.

    Args:
        data_dir: What paths are relative to; those of a list, which begin with it, are taken too.

    Raises:
        UserError: A row has no path, an unknown action or class, or columns are missing.
    """
    file = folder / CORRECTIONS
    # A first row that a full disk did not take leaves an empty file.
    lines = read_lines(file) if file.exists() else []
    if not lines:
        return []
    # As a spreadsheet reads and writes it: cells may stand in quotes.
    reader = csv.reader((line.replace("\0", "") for line in lines), "excel-tab")
    columns = next(reader, [])
    if missing := [name for name in COLUMNS[:4] if name not in columns]:
        raise UserError(f"{file}: line 1 names no column {', '.join(missing)}; write {' '.join(COLUMNS)}")
    known, found, wrong = set(class_names), [], []
    for cells in filter(None, reader):
        row = dict(zip(columns, cells, strict=False))
        # Names may begin or end with a space, which what is written beside them may gain.
        row = {name: cell if name in ("path", "class") else cell.strip() for name, cell in row.items()}
        row["path"] = _below(data_dir, row.get("path", ""))
        one = Correction(*(row.get(name, "") for name in COLUMNS))
        found.append(one)
        if fault := _fault(one, known):
            wrong.append(f"line {reader.line_num} {fault}")
    if wrong:
        raise problems(str(file), wrong, "correct or delete these lines")
    return found


def _below(data_dir: Path, path: str) -> str:
    start = f"{data_dir.as_posix()}/"
    return path if os.path.exists(start + path) else path.removeprefix(start)


def _fault(one: Correction, class_names: set[str]) -> str:
    if not one.path:
        return "has no path"
    if one.action not in ACTIONS:
        return f"has action {shorten(one.action)!r}, not {', '.join(ACTIONS)}"
    if one.action == RELABEL and one.class_name not in class_names:
        return f"relabels to {shorten(one.class_name)!r}, which is no class"
    return ""


def current(rows: Iterable[Correction]) -> tuple[dict[str, Correction], list[str]]:
    """Returns what counts for each image, and the conflicts: people who decided differently.

    Returns:
        Path -> its last row, without those undone; and a sentence for each image about which rows of several people
        differ.
    """
    last: dict[str, Correction] = {}
    conflicts: dict[str, str] = {}
    for row in rows:
        before = last.pop(row.path, None)
        if row.action == UNDO:
            conflicts.pop(row.path, None)
            continue
        if before and before.who != row.who and not before.is_like(row):
            conflicts[row.path] = f"{row.path}: {_in_words(before)}, then {_in_words(row)}, which counts"
        last[row.path] = row
    return last, list(conflicts.values())


def _in_words(one: Correction) -> str:
    return f"{one.who or 'somebody'} says {one.action}{f' to {one.class_name}' if one.class_name else ''}"


def append(folder: Path, rows: Iterable[Correction]) -> int:
    """Appends rows to the corrections of a lists folder: all or none, and on the disk at once.

    Returns:
        Number of bytes that were added.

    Raises:
        OSError: The file cannot be written; it is as it was.
    """
    return append_rows(folder / CORRECTIONS, "\t".join(COLUMNS), map(_line, rows))


def _line(row: Correction) -> str:
    cells = (" ".join(cell.split("\t")).replace("\r", " ").replace("\n", " ") for cell in astuple(row))
    # As csv writes them, which reads them: a quote at the start of a cell would begin a quoted one.
    return "\t".join('"' + cell.replace('"', '""') + '"' if '"' in cell else cell for cell in cells)
