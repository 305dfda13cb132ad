"""Files of predictions: CSV, TSV, JSON and Parquet, one row per image, failures included."""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from inference.batch.parts import Row
from inference.ranking import columns_of_classes, predicted_class
from inference.terminal import Matches
from system import optional
from system.errors import UserError
from system.publishing import replacing

# Parquet is written in groups of so many rows, which bounds the memory.
GROUP_ROWS = 8192
# Columns of one image, before its probabilities.
COLUMNS = ("path", "prediction", "probability", "error")
# Where lists give labels.
COLUMNS_WITH_LABEL = ("path", "label", *COLUMNS[1:])
# Bytes of a name that are not UTF-8 are written as \\udcff: the files are UTF-8 throughout.
ESCAPES = "backslashreplace"
Record = dict[str, Any]


def write(
    path: Path, rows: Iterable[Row], class_names: Sequence[str], threshold: float | None, matches: Matches | None = None
) -> tuple[int, int]:
    """Writes rows to a file, whole or not at all.

    Args:
        threshold: Images whose highest probability is below it are "none of these"; None: none is.
        matches: Counts predictions and labels; None: the images have no labels, and the file has no column of them.

    Returns:
        Number of rows, and of those that are failures.

    Raises:
        UserError: The file cannot be written.
    """
    counts = [0, 0]

    def records() -> Iterator[Record]:
        for row in rows:
            counts[0] += 1
            counts[1] += bool(row.error)
            record = _record(row, class_names, threshold)
            if matches and not row.error:
                matches.add(record["prediction"], record["label"])
            yield record

    columns = COLUMNS if matches is None else COLUMNS_WITH_LABEL
    try:
        with replacing(path) as temporary:
            _WRITERS[path.suffix.lower()](temporary, records(), columns, class_names)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); free some space, or choose another --out"
        ) from None
    return counts[0], counts[1]


def _record(row: Row, class_names: Sequence[str], threshold: float | None) -> Record:
    name, probability = "", None
    if not row.error:
        name, probability = predicted_class(row.probabilities, class_names, threshold), max(row.probabilities)
    label = None if row.label is None else class_names[row.label]
    values = (row.path, label, name, probability, row.error)
    return {**dict(zip(COLUMNS_WITH_LABEL, values, strict=True)), "probabilities": row.probabilities}


def _open(path: Path) -> IO[str]:
    return open(path, "w", encoding="utf-8", newline="", errors=ESCAPES)


def _write_csv(path: Path, records: Iterable[Record], columns: Sequence[str], class_names: Sequence[str]) -> None:
    _write_table(path, records, columns, class_names, ",", "\r\n")


def _write_tsv(path: Path, records: Iterable[Record], columns: Sequence[str], class_names: Sequence[str]) -> None:
    _write_table(path, records, columns, class_names, "\t", "\n")


def _write_table(
    path: Path,
    records: Iterable[Record],
    columns: Sequence[str],
    class_names: Sequence[str],
    delimiter: str,
    line_end: str,
) -> None:
    with _open(path) as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator=line_end)
        writer.writerow([*columns, *columns_of_classes(class_names, columns)])
        for record in records:
            is_failure = bool(record["error"])
            values = [record["probability"], *record["probabilities"]]
            texts = [""] * (1 + len(class_names)) if is_failure else [f"{value:.8f}" for value in values]
            record["probability"] = texts[0]
            writer.writerow([*(record[column] for column in columns), *texts[1:]])


def _write_json(path: Path, records: Iterable[Record], columns: Sequence[str], class_names: Sequence[str]) -> None:
    with _open(path) as file:
        file.write("[")
        for number, record in enumerate(records):
            row = {key: record[key] for key in columns if key != "error"}
            if record["error"]:
                row["error"] = record["error"]
            else:
                row["probabilities"] = dict(zip(class_names, record["probabilities"], strict=True))
            file.write((",\n" if number else "\n") + json.dumps(row, ensure_ascii=False))
        file.write("\n]\n")


def _write_parquet(path: Path, records: Iterable[Record], columns: Sequence[str], class_names: Sequence[str]) -> None:
    pyarrow = optional.load("pyarrow", str(path), "pyarrow")
    parquet = optional.load("pyarrow.parquet", str(path), "pyarrow")
    types = dict.fromkeys(columns, pyarrow.string()) | {"probability": pyarrow.float32()}
    # A class may have the name of a column of ours; a list keeps every name out of the columns' way.
    schema = pyarrow.schema([*types.items(), ("probabilities", pyarrow.list_(pyarrow.float32()))])
    schema = schema.with_metadata({"class_names": json.dumps(list(class_names), ensure_ascii=False)})
    with parquet.ParquetWriter(path, schema) as writer:
        for group in _groups(records):
            writer.write_table(pyarrow.Table.from_pylist(group, schema))


def _groups(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Splits records into lists of GROUP_ROWS, with their texts as UTF-8."""
    group: list[Record] = []
    for record in records:
        for key in ("path", "error"):
            record[key] = record[key].encode("utf-8", ESCAPES).decode("utf-8")
        group.append(record)
        if len(group) == GROUP_ROWS:
            yield group
            group = []
    if group:
        yield group


_WRITERS = {".csv": _write_csv, ".tsv": _write_tsv, ".json": _write_json, ".parquet": _write_parquet}
