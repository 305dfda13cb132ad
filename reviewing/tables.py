"""Tables of other commands: suspects.tsv, similar.tsv, rejects.tsv and the like, by the names of their columns."""

import math
from collections.abc import Collection
from pathlib import Path

from system.errors import UserError, problems, shorten
from system.files import read_lines


def read_table(
    file: Path, columns: Collection[str], remedy: str, numbers: Collection[str] = ()
) -> list[dict[str, str]]:
    """Reads the rows of a table; none if there is no file.

    Args:
        columns: Those that it must have.
        remedy: What to do where it cannot be read as such a table.
        numbers: Columns whose cells are numbers.

    Raises:
        UserError: A column is missing, a line has another number of cells, a cell is no number, or the file cannot be
            read.
    """
    if not file.exists():
        return []
    head, *lines = (line.split("\t") for line in read_lines(file) or [""])
    if missing := [name for name in columns if name not in head]:
        raise UserError(f"{file}: line 1 names no column {', '.join(missing)}; {remedy}")
    wrong = [
        f"line {number} has {len(cells)} cells" for number, cells in enumerate(lines, 2) if len(cells) != len(head)
    ]
    if wrong:
        raise problems(str(file), wrong, f"{len(head)} are named; {remedy}")
    rows = [dict(zip(head, cells, strict=True)) for cells in lines]
    wrong = [
        f"line {number} has {name} {shorten(row[name], 40)!r}"
        for number, row in enumerate(rows, 2)
        for name in numbers
        if not _is_number(row[name])
    ]
    if wrong:
        raise problems(str(file), wrong, f"a number is needed; {remedy}")
    return rows


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def unescape(path: str) -> str:
    """Reverts what annotate.py escapes in a path that a list can hold: backslashes."""
    return path.replace("\\\\", "\\")
