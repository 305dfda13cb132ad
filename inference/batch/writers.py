"""Files of answers: CSV, TSV, JSON and Parquet, one row an image, failures included."""

import csv
import importlib.util
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from inference.batch.parts import Row
from system.errors import UserError

SUFFIXES = (".csv", ".tsv", ".json", ".parquet")
# Parquet is written in groups of so many rows, which bounds the memory.
GROUP_ROWS = 8192


def check_suffix(path: str) -> None:
    """Looks whether answers can be written to a file of this name.

    Raises:
        UserError: The suffix is unknown, or what it needs is not installed.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"--out {path}: this suffix is unknown; use one of {', '.join(SUFFIXES)}")
    if suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise UserError(f"--out {path}: pyarrow is not installed; run `pip install pyarrow`, or write a .tsv")


def best(probabilities: Sequence[float] | np.ndarray, class_names: Sequence[str], threshold: float | None, none: str):
    """Names the likeliest class, or `none` where its probability is below the threshold.

    Returns:
        The name and its probability.
    """
    at = int(np.argmax(probabilities))
    probability = float(probabilities[at])
    refused = threshold is not None and probability < threshold
    return (none if refused else class_names[at]), probability


def write(
    path: Path, rows: Iterable[Row], class_names: Sequence[str], threshold: float | None, none: str
) -> tuple[int, int]:
    """Writes rows to a file, whole or not at all.

    Returns:
        Number of rows, and of those that are failures.

    Raises:
        UserError: The file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    counts = [0, 0]

    def records() -> Iterator[dict[str, Any]]:
        for row in rows:
            counts[0] += 1
            counts[1] += bool(row.error)
            name, probability = ("", None) if row.error else best(row.probabilities, class_names, threshold, none)
            yield {"path": row.path, "prediction": name, "probability": probability, "error": row.error,
                   "probabilities": row.probabilities}  # fmt: skip

    try:
        try:
            if path.suffix.lower() == ".parquet":
                _write_parquet(temporary, records(), class_names)
            else:
                with open(temporary, "w", encoding="utf-8", newline="", errors="surrogateescape") as file:
                    write_text = _write_json if path.suffix.lower() == ".json" else _write_table
                    write_text(file, records(), class_names, "\t" if path.suffix.lower() == ".tsv" else ",")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); free some space, or choose another --out"
        ) from None
    return counts[0], counts[1]


def _write_table(file: IO[str], records: Iterable[dict], class_names: Sequence[str], delimiter: str) -> None:
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n" if delimiter == "\t" else "\r\n")
    writer.writerow(["path", "prediction", "probability", "error", *class_names])
    for record in records:
        values = (
            [record["probability"], *record["probabilities"]] if not record["error"] else [""] * (1 + len(class_names))
        )
        texts = [f"{value:.8f}" if value != "" else "" for value in values]
        writer.writerow([record["path"], record["prediction"], texts[0], record["error"], *texts[1:]])


def _write_json(file: IO[str], records: Iterable[dict], class_names: Sequence[str], _: str) -> None:
    file.write("[")
    for number, record in enumerate(records):
        failed = bool(record["error"])
        row = {"path": record["path"], "prediction": record["prediction"], "probability": record["probability"]}
        row |= {"error": record["error"]} if failed else {
            "probabilities": dict(zip(class_names, record["probabilities"], strict=True))
        }  # fmt: skip
        file.write((",\n" if number else "\n") + json.dumps(row, ensure_ascii=False))
    file.write("\n]\n")


def _write_parquet(path: Path, records: Iterable[dict], class_names: Sequence[str]) -> None:
    import pyarrow
    import pyarrow.parquet

    texts = [(name, pyarrow.string()) for name in ("path", "prediction", "error")]
    fixed = [texts[0], texts[1], ("probability", pyarrow.float32()), texts[2]]
    # A class may be called like a column of ours; a list keeps every name out of the columns' way.
    schema = pyarrow.schema([*fixed, ("probabilities", pyarrow.list_(pyarrow.float32()))])
    schema = schema.with_metadata({"class_names": json.dumps(list(class_names), ensure_ascii=False)})

    def put(group: list[dict]) -> None:
        for record in group:
            # Parquet holds UTF-8 only; other bytes of a name are shown as escapes.
            record["path"] = record["path"].encode("utf-8", "backslashreplace").decode("utf-8")
            record["error"] = record["error"].encode("utf-8", "backslashreplace").decode("utf-8")
        writer.write_table(pyarrow.Table.from_pylist(group, schema))

    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        group: list[dict] = []
        for record in records:
            group.append(record)
            if len(group) == GROUP_ROWS:
                put(group)
                group = []
        if group:
            put(group)
