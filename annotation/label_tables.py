"""Tables of labels: CSV and TSV, JSON and JSON lines, and the exports of Label Studio."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from annotation.label_rows import Row, quote
from system.errors import UserError, shorten

# Names of columns, the best first; in any case, with spaces or hyphens for underscores.
COLUMNS = {
    "path": "path file_path filepath image_path img_path file_name filename file image img image_name image_id url "
    "路径 文件路径 图片路径 文件名 图片 图像",
    "label": "label_name class_name category_name label class category choice choices labels target 标签 类别 分类",
    "split": "split subset set partition 划分 子集",
    "group": "group group_id group_name 分组 组",
}
DELIMITERS = ",;\t"
SHOWN = 20  # columns that an error or a note names
Roles = dict[str, str]


def read_csv(file: Path, text: str) -> tuple[list[Row], str] | None:
    """Reads a table with a header, separated by commas, semicolons or tabs.

    Returns:
        The rows, and which columns were used; None if the first line is no header.

    Raises:
        UserError: A quote is not closed, or two columns have one name.
    """
    delimiter = next((one for one in DELIMITERS if {"path", "label"} <= find_roles(header(text, one)).keys()), None)
    if delimiter is None:
        return None
    columns = header(text, delimiter)
    roles = find_roles(columns)
    double = sorted({name for name in columns if name in roles.values() and columns.count(name) > 1})
    if double:
        raise UserError(f"{file}: there are two columns {quote(double[0])}; rename one of them")
    rows = []
    try:
        for number, (line, cells) in enumerate(_cells(text, delimiter)):
            if number:
                rows.append(_row(file, line, roles, dict(zip(columns, cells, strict=False))))
                if any(cells[len(columns) :]):
                    rows[-1].refuse(
                        "bad_row", f"{len(cells)} cells, the header has {len(columns)}; quote cells with a delimiter"
                    )
    except csv.Error as error:
        raise UserError(f"{file}: cannot be read as CSV ({error}); close every quote, and save it again") from None
    return rows, _about(roles, columns)


def header(text: str, delimiter: str) -> list[str]:
    """Returns the cells of the first line that is not blank; none if it cannot be read with this delimiter."""
    try:
        _, cells = next(_cells(text, delimiter), (0, []))
    except csv.Error:
        return []
    return [cell.strip() for cell in cells]


def _cells(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yields line number and cells of each row that is not blank."""
    # Files of people have a space after a comma; within quotes it stays.
    skip = delimiter != "\t"
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=skip, strict=True)
    return ((reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells))


def find_roles(columns: Iterable[str]) -> Roles:
    """Returns which column holds the path, the label, and, where there are any, the split and the group."""
    known = {column.strip().lower().replace(" ", "_").replace("-", "_"): column for column in reversed([*columns])}
    found = {
        role: next((known[name] for name in names.split() if name in known), "") for role, names in COLUMNS.items()
    }
    return {role: column for role, column in found.items() if column}


def no_columns(file: Path, columns: list[str], lacking: list[str]) -> UserError:
    """The error of a table without a column of paths or of labels."""
    named = ", ".join(map(quote, columns[:SHOWN])) + (", ..." if len(columns) > SHOWN else "")
    return UserError(
        f"{file}: no column of {' and none of '.join(f'{role}s' for role in lacking)} is known by its name; the first "
        f"line has {shorten(named) or 'nothing'}: rename its columns to {' and '.join(lacking)}, or write a first line "
        "path,label"
    )


def _about(roles: Roles, columns: Iterable[str]) -> str:
    used = ", ".join(f"{role} from column {quote(column)}" for role, column in roles.items())
    unused = [quote(column) for column in dict.fromkeys(columns) if column and column not in roles.values()]
    more = ", ..." if len(unused) > SHOWN else ""
    return used + (f"; not used: {', '.join(unused[:SHOWN])}{more}" if unused else "")


def read_json(file: Path, text: str) -> tuple[list[Row], str]:
    """Reads JSON lines, a JSON list of objects, or a JSON export of Label Studio.

    Raises:
        UserError: It is no JSON, no list of objects, or has no known columns.
    """
    records = [*_records(file, text)]
    if records and all("data" in record and "annotations" in record for _, record in records):
        data = [record["data"] for _, record in records if isinstance(record["data"], dict)]
        column = find_roles(dict.fromkeys(name for one in data for name in one)).get("path")
        if not column:
            raise no_columns(file, [*dict.fromkeys(name for one in data for name in one)], ["path"])
        rows = [_task(file, line, record, column) for line, record in records]
        return rows, f"path from {quote(column)} in the data of Label Studio's tasks, label from their choices"
    columns = [*dict.fromkeys(column for _, record in records for column in record)]
    roles = find_roles(columns)
    if not {"path", "label"} <= roles.keys():
        raise no_columns(file, columns, [role for role in ("path", "label") if role not in roles])
    return [_row(file, line, roles, record) for line, record in records], _about(roles, columns)


def _records(file: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the objects, with the line of JSON lines, or the place in the list."""
    # str.splitlines would also split within a text, at separators that JSON allows there.
    lines = [text] if text.lstrip().startswith("[") else text.split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{file}: line {number} is not JSON ({shorten(str(error))}); write one object per line, or one list"
            ) from None
        for place, record in enumerate(content if isinstance(content, list) else [content], 1):
            if not isinstance(record, dict):
                raise UserError(f"{file}: {quote(str(record))} is no object; write {{'path': ..., 'label': ...}}")
            yield (place if isinstance(content, list) else number), record


def _row(file: Path, line: int, roles: Roles, record: dict[str, Any]) -> Row:
    row = Row(file, line, _text(record.get(roles["path"])))
    if "split" in roles:
        row.split = _text(record.get(roles["split"])).strip()
    if "group" in roles:
        group = _text(record.get(roles["group"]))
        row.group = group if group.strip() else ""
    return _labelled(row, _labels(record.get(roles["label"])))


def _labelled(row: Row, labels: list[str]) -> Row:
    """Sets the label of a row, if there is exactly one."""
    different = [*dict.fromkeys(label for label in labels if label.strip())]
    if len(different) > 1:
        row.refuse("multi_label", f"several labels: {shorten(', '.join(map(quote, different)))}; keep one")
    elif different:
        row.label = different[0]
    return row


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _labels(value: Any) -> list[str]:
    """Returns the labels in a cell: several where it has a list, or choices of Label Studio."""
    if isinstance(value, str) and value.startswith('{"choices"'):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return [value]
    if isinstance(value, dict) and "choices" in value:
        value = value["choices"]
    return [_text(one) for one in value] if isinstance(value, list) else [_text(value)]


def _task(file: Path, place: int, task: dict[str, Any], column: str) -> Row:
    """Reads a task of Label Studio, labelled by one or several people."""
    data = task["data"] if isinstance(task["data"], dict) else {}
    row = Row(file, place, _text(data.get(column)))
    annotations = task["annotations"] if isinstance(task["annotations"], list) else []
    labels = [_choices(one) for one in annotations if isinstance(one, dict) and not one.get("was_cancelled")]
    answers = [*dict.fromkeys(tuple(dict.fromkeys(answer)) for answer in labels if answer)]
    if len(answers) > 1:
        said = shorten(", ".join(quote(" + ".join(answer)) for answer in answers))
        row.refuse("label_conflict", f"its annotations differ: {said}; keep one")
        return row
    return _labelled(row, [*answers[0]] if answers else [])


def _choices(annotation: dict[str, Any]) -> list[str]:
    results = annotation.get("result")
    values = [one.get("value") for one in results if isinstance(one, dict)] if isinstance(results, list) else []
    return [label for value in values if isinstance(value, dict) and "choices" in value for label in _labels(value)]
