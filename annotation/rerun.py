"""Re-runs: whether anything has changed since the last run. Imports no decoder, so that the check takes 0.2 s."""

import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path

from annotation.layout import Layout
from annotation.names import CORRECTIONS, written_files
from annotation.splits import Summary
from annotation.store import Store
from annotation.walk import Walk, walk
from system.files import file_digest
from system.language import chosen
from system.settings import Settings

# Settings that affect the result; a re-run with another value decides again, but decodes nothing.
DECISIVE = (
    "data_dir labels_file non_rgb max_pixels valid_fraction test_fraction duplicates group_by on_leak seed".split()
)


def request(layout: Layout, settings: Settings, list_format: str) -> str:
    """Serialises everything but the images' files that the result of a run depends on."""
    values = {name: getattr(settings, name) for name in DECISIVE}
    corrections = settings.lists / CORRECTIONS
    digests = [
        layout.labelled.digest if layout.labelled else None,
        file_digest(corrections) if corrections.exists() else None,
    ]
    content = [values, list_format, layout.folders, layout.class_names, layout.loose_files, layout.left_out, digests]
    content.append(chosen())  # the page is written in it
    return json.dumps(content, sort_keys=True)


def unchanged(store: Store, layout: Layout, settings: Settings, list_format: str) -> Summary | None:
    """Returns the last run's summary if no file, no setting and no list has changed since, else None."""
    last = store.fact("last")
    if not last or last["request"] != request(layout, settings, list_format):
        return None
    if last["written"] != _stamps(settings.lists, written_files(list_format)):
        return None
    seen = Walk()
    for _ in walk(layout, seen):
        pass
    return Summary(**last["summary"]) if seen.digest.hexdigest() == last["files"] else None


def remember(store: Store, layout: Layout, settings: Settings, list_format: str, seen: Walk, summary: Summary) -> None:
    """Stores what `unchanged` compares; nothing if a file failed for a reason that may be gone in the next run."""
    last = {
        "request": request(layout, settings, list_format),
        "written": _stamps(settings.lists, written_files(list_format)),
        "files": seen.digest.hexdigest(),
        "summary": dataclasses.asdict(summary),
    }
    store.set_fact("last", None if store.transient_failures() else last)
    store.commit()


def _stamps(folder: Path, names: Iterable[str]) -> dict[str, list[int]]:
    """Size and time of change of each file; an empty list for a missing one."""
    stamps = {}
    for name in names:
        try:
            status = os.stat(folder / name)
            stamps[name] = [status.st_size, status.st_mtime_ns]
        except OSError:
            stamps[name] = []
    return stamps
