"""Label reports: wrong predictions that users report, one row each in a TSV file. No image is kept."""

import datetime
import json
import os
from collections.abc import Collection
from pathlib import Path

from serving.refusal import RefusalError
from serving.uploads import clean

COLUMNS = ("time", "model", "file", "digest", "class", "note")
# Strangers can write to this file; it never grows beyond this many bytes.
MAX_BYTES = 16 * 2**20


class LabelReports:
    """The TSV file, one row per report."""

    def __init__(self, path: Path):
        self.path = path

    def parse(self, body: bytes, class_names: Collection[str]) -> dict[str, str]:
        """Reads a report.

        Raises:
            RefusalError: It is not JSON of that form, or names no class of the model.
        """
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            content = None
        report = content if isinstance(content, dict) else {"": None}
        texts = {key: value for key, value in report.items() if isinstance(value, str)}
        if len(texts) < len(report) or set(texts) - set(COLUMNS[2:]):
            raise RefusalError(400, 'strings required; send {"file": ..., "digest": ..., "class": ..., "note": ...}')
        name = texts.get("class", "")
        if name not in class_names:
            raise RefusalError(400, f"class {clean(name)!r}: the model has no such class; see /model")
        return {key: clean(value) for key, value in texts.items()}

    def append(self, report: dict[str, str], model_name: str) -> None:
        """Appends a row.

        Raises:
            RefusalError: The file is full, or cannot be written.
        """
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        row = {"time": now, "model": clean(model_name)} | report
        line = "\t".join(row.get(column, "") for column in COLUMNS) + "\n"
        try:
            with open(self.path, "ab") as file:
                size = file.seek(0, os.SEEK_END)
                if size > MAX_BYTES:
                    raise RefusalError(503, "the file of reports is full; contact whoever runs this server")
                file.write((("" if size else "\t".join(COLUMNS) + "\n") + line).encode())
        except OSError:
            raise RefusalError(503, "the report cannot be written; contact whoever runs this server") from None
