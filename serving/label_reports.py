"""Label reports: wrong predictions that users report, one row each in a TSV file. No image is kept."""

import datetime
import errno
import json
import re
from collections.abc import Collection
from pathlib import Path

from serving.messages import Data
from serving.refusal import RefusalError
from serving.uploads import clean
from system.appending import append_rows

COLUMNS = ("time", "model", "file", "digest", "class", "note")
# Strangers can write to this file; it never grows beyond this many bytes.
MAX_BYTES = 16 * 2**20


class LabelReports:
    """The TSV file, one row per report."""

    def __init__(self, path: Path):
        self.path = path

    def parse(self, body: Data, class_names: Collection[str]) -> dict[str, str]:
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
        if not re.fullmatch("[0-9a-fA-F]{0,128}", texts.get("digest", "")):
            raise RefusalError(400, "digest: must be hexadecimal, or empty; send the one that /predict returned")
        return {key: _harmless(clean(value)) for key, value in texts.items()}

    def append(self, report: dict[str, str], model_name: str) -> None:
        """Appends a row.

        Raises:
            RefusalError: The file is full, or cannot be written.
        """
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        row = {"time": now, "model": _harmless(clean(model_name))} | report
        line = "\t".join(row.get(column, "") for column in COLUMNS)
        try:
            append_rows(self.path, "\t".join(COLUMNS), [line], MAX_BYTES)
        except OSError as error:
            what = "the file of reports is full" if error.errno == errno.EFBIG else "the report cannot be written"
            raise RefusalError(503, f"{what}; contact whoever runs this server") from None


def _harmless(cell: str) -> str:
    """Puts an apostrophe before a cell that a spreadsheet would compute."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@")) else cell
