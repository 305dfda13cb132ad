"""Label reports of users (serve.py --relabel-file), matched to the listed images by their SHA-256."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from reviewing.catalog import Catalog, Entry
from reviewing.queues import REPORTS, Item
from reviewing.tables import read_table
from system.errors import UserError
from system.files import file_digest

COLUMNS = ("time", "model", "file", "digest", "class", "note")
# Why reports are left out: no listed image has that digest; the class reported is the label.
UNMATCHED, AGREES = "unmatched", "agrees"


def read(file: Path, catalog: Catalog, left_out: Counter[str]) -> Iterator[Item]:
    """Yields an item for each listed image that was reported; hashes all listed images.

    Args:
        left_out: Reports that were left out are counted there.

    Raises:
        UserError: The file is missing or malformed.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such file; name the one of serve.py --relabel-file")
    rows = read_table(file, COLUMNS, "name the file of serve.py --relabel-file")
    by_digest: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        cells = {name: _plain(cell) for name, cell in row.items()}
        by_digest.setdefault(cells["digest"].lower(), []).append(cells)
    images = _digests(catalog) if rows else {}
    for digest, reports in by_digest.items():
        entries = images.get(digest, [])
        if not entries:
            left_out[UNMATCHED] += len(reports)
        for entry in entries:
            yield from _item(catalog, entry, reports, left_out)


def _item(catalog: Catalog, entry: Entry, reports: list[dict[str, str]], left_out: Counter[str]) -> Iterator[Item]:
    differing = [report for report in reports if report["class"] != entry.label]
    left_out[AGREES] += len(reports) - len(differing)
    if not differing:
        return
    # The class that most of them name; of several, the one named first.
    ((name, _),) = Counter(report["class"] for report in differing).most_common(1)
    suggested = name if name in catalog.class_names else ""
    facts = {"reports": [[report[key] for key in ("time", "model", "class", "note")] for report in differing]}
    yield Item(REPORTS, (entry.path,), (suggested,), facts)


def _plain(cell: str) -> str:
    """Removes the apostrophe that serve.py puts before a cell which a spreadsheet would compute."""
    return cell[1:] if cell.startswith(("'=", "'+", "'-", "'@")) else cell


def _digests(catalog: Catalog) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {}
    for entry in tqdm(catalog.listed, desc="digests of all images", unit=" images", disable=None, leave=False):
        if os.path.isfile(entry.file):
            found.setdefault(file_digest(entry.file), []).append(entry)
    return found
