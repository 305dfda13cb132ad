"""Lists of paths and class indices: those of PaddleClas and PaddleX, and annotate's own."""

import re
from pathlib import Path

from annotation.label_rows import Row, quote
from annotation.lists import LABELS, parse_index, read_labels
from annotation.names import PADDLEX_LABELS
from system.errors import UserError
from system.files import read_lines

LABEL_MAPS = (LABELS, PADDLEX_LABELS, "label_list.txt")


def find_label_map(file: Path, names: tuple[str, ...] = LABEL_MAPS) -> Path | None:
    """Returns the label map beside a file of labels; None if there is none.

    Raises:
        UserError: There are two that differ.
    """
    found = [file.with_name(name) for name in names if file.with_name(name).is_file()]
    if len({tuple(read_label_map(one)) for one in found}) > 1:
        raise UserError(f"{file}: {' and '.join(one.name for one in found)} beside it differ; keep one of them there")
    return found[0] if found else None


def read_label_map(file: Path) -> list[str]:
    """Reads class names, one per line, with or without `0 `, `1 ` ... before them.

    Raises:
        UserError: It is not UTF-8, is empty, or repeats a name.
    """
    if file.name == LABELS:
        return read_labels(file)
    lines = [line for line in read_lines(file) if line.strip()]
    numbered = [re.fullmatch(rf"{number}[ \t]+(.*\S)[ \t]*", line) for number, line in enumerate(lines)]
    names = [match[1] for match in numbered if match] if all(numbered) else lines
    if not names or len(set(names)) < len(names):
        raise UserError(f"{file}: a class is repeated, or there is none; write every class name once, one per line")
    return names


def read_list(file: Path, text: str) -> tuple[list[Row], str]:
    """Reads lines `path index`, separated by a tab or the line's last space.

    Raises:
        UserError: There is no label map beside it.
    """
    label_map = find_label_map(file)
    if label_map is None:
        raise UserError(
            f"{file}: it has class indices, or no header, and there is no {' or '.join(LABEL_MAPS)} beside it; put the "
            "class names there, one per line, or write a first line path,label"
        )
    names = read_label_map(label_map)
    rows = []
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        if line.strip():
            path, _, index = line.rpartition("\t") if "\t" in line else line.rstrip().rpartition(" ")
            rows.append(_row(file, number, path or line, index.strip() if path else "", names))
    return rows, f"class indices of {label_map.name}"


def _row(file: Path, number: int, path: str, index: str, names: list[str]) -> Row:
    label = parse_index(index, len(names)) if index else None
    row = Row(file, number, path, "" if label is None else names[label])
    if re.fullmatch(r"[0-9]+(,[0-9]+)+", index):
        row.refuse("multi_label", f"several labels: {quote(index)}; keep one")
    elif index and label is None:
        row.refuse("bad_index", f"the index {quote(index)} is not 0 to {len(names) - 1}")
    return row
