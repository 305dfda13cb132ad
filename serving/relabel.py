"""Wrong answers that people report: one line each in a TSV file, for whoever mends the labels. No image is kept."""

import datetime
import json
import os
from collections.abc import Collection
from pathlib import Path

from serving.uploads import clean
from serving.worker_pool import RefusalError

COLUMNS = ("time", "model", "file", "digest", "class", "note")
# Strangers can write here: beyond this many bytes they cannot.
MAX_BYTES = 16 * 2**20


class Relabel:
    """The file, one row a report."""

    def __init__(self, path: Path):
        self.path = path

    def read(self, body: bytes, classes: Collection[str]) -> dict[str, str]:
        """Reads a report.

        Raises:
            RefusalError: It is not JSON of that form, or names no class of the model.
        """
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            content = None
        texts = content if isinstance(content, dict) else {"": None}
        if not all(isinstance(value, str) for value in texts.values()) or set(texts) - set(COLUMNS[2:]):
            raise RefusalError(400, 'texts are needed; send {"file": ..., "digest": ..., "class": ..., "note": ...}')
        if texts.get("class") not in classes:
            raise RefusalError(
                400, f"class {clean(texts.get('class', ''))!r}: this model has no such class; see /model"
            )
        return {key: clean(value) for key, value in texts.items()}

    def add(self, note: dict[str, str], model: str) -> None:
        """Appends a row.

        Raises:
            RefusalError: The file is full, or cannot be written.
        """
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        row = {"time": now, "model": clean(model)} | note
        line = "\t".join(row.get(column, "") for column in COLUMNS) + "\n"
        try:
            with open(self.path, "ab") as file:
                size = file.seek(0, os.SEEK_END)
                if size > MAX_BYTES:
                    raise RefusalError(503, "the file of reports is full; tell whoever runs this server")
                file.write((("" if size else "\t".join(COLUMNS) + "\n") + line).encode())
        except OSError:
            raise RefusalError(503, "the report cannot be written; tell whoever runs this server") from None
