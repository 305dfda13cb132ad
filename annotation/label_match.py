"""Which image each row of a file of labels means, and what is wrong with the others."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from annotation.folders import WHOLE
from annotation.label_paths import Finder
from annotation.label_rows import Row
from annotation.labels_file import Labels
from annotation.lists import SPLITS, name_fault
from system.errors import UserError, problems, shorten
from system.text import counted, inflect


class Assigned(NamedTuple):
    """What a file of labels says about an image: its split (as in walk.Found) and class, or why it cannot be used."""

    split: str
    class_name: str
    reason: str = ""
    detail: str = ""


@dataclass
class Labelled:
    """Images that have a label. Paths are relative to the data folder, with `/`; as bytes, those of the file system.

    Attributes:
        files: The files of labels, and their label maps.
        digest: Changes with their content.
        images: Path of an image -> what the rows say.
        strays: Path -> why no image was found for it; where the row names none, the place of the row instead.
        groups: Path -> group, from the group column.
        repeated: Path of an image with several rows that agree -> the rows.
        own: Files of data_dir that are no images of the user's: those of labels, and those that annotate writes.
        splits: Those that rows name, of SPLITS; WHOLE alone where no row names one.
    """

    files: list[Path]
    digest: str
    images: dict[bytes, Assigned] = field(default_factory=dict)
    strays: dict[bytes, Assigned] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    repeated: dict[bytes, str] = field(default_factory=dict)
    own: frozenset[bytes] = frozenset()
    splits: list[str] = field(default_factory=list)


def match(labels: Labels, data_dir: Path, own: Iterable[Path]) -> tuple[Labelled, list[str]]:
    """Finds the image of every row.

    Args:
        own: Files that annotate writes.

    Returns:
        The images, and notes for the user.

    Raises:
        UserError: No row can be used, or none is of train.
    """
    finder = Finder(data_dir, [*own, *labels.files])
    rows_of: dict[str, list[Row]] = {}
    named = {row.split for row in labels.rows}
    splits = [split for split in (WHOLE, *SPLITS) if split in named]
    result = Labelled([*labels.files, *labels.label_maps], labels.digest, own=finder.own, splits=splits)
    strays = []
    for row in labels.rows:
        if path := finder.find(row):
            rows_of.setdefault(path, []).append(row)
        else:
            strays.append(row)
    for path, rows in rows_of.items():
        key = os.fsencode(path)
        result.images[key] = _join(rows)
        if len(rows) > 1 and not result.images[key].reason:
            result.repeated[key] = f"{len(rows)} rows with the same label: {_places(rows)}"
        if rows[0].group:
            result.groups[path] = rows[0].group
    for row in strays:
        _add_stray(result, finder.path_of_stray(row), row)
    _refuse_useless(labels, result)
    return result, [*labels.notes, *_notes(finder, result)]


def _add_stray(result: Labelled, path: str, row: Row) -> None:
    key = path.encode("utf-8", "backslashreplace")
    if key in result.strays or key in result.images:
        key = f"{path} ({row.where})".encode("utf-8", "backslashreplace")
    result.strays[key] = _assigned(row)


def _assigned(row: Row) -> Assigned:
    return Assigned(row.split, "" if name_fault(row.label) else row.label, row.reason, row.detail)


def _places(rows: Iterable[Row]) -> str:
    return shorten(", ".join(row.where for row in rows))


def _join(rows: list[Row]) -> Assigned:
    """Joins the rows of one image; those that disagree are not used."""
    for row in rows:
        if row.reason:
            return _assigned(row)
    first = rows[0]
    for name in ("label", "split", "group"):
        if len({getattr(row, name) for row in rows}) > 1:
            said = "; ".join(f"{row.where}: {getattr(row, name)}" for row in rows[:5])
            reason = "label_conflict" if name == "label" else f"{name}_conflict"
            return Assigned("", "", reason, f"its rows disagree about the {name} ({shorten(said)}); keep one of them")
    return Assigned(first.split, first.label)


def _refuse_useless(labels: Labels, result: Labelled) -> None:
    """Raises an error if no image can be used, or none is of train."""
    where = ", ".join(map(str, labels.files))
    faults = [one for one in (*result.images.values(), *result.strays.values()) if one.reason]
    if all(image.reason for image in result.images.values()):
        counts = Counter(fault.reason for fault in faults)
        found = [
            f"{count:,} {reason} (the first: {next(f.detail for f in faults if f.reason == reason)})"
            for reason, count in counts.items()
        ]
        remedy = "write paths relative to the file of labels or to data_dir, each with one label"
        raise problems(where, ["no row can be used", *found], remedy)
    if not {"train", WHOLE} & {*result.splits}:
        raise UserError(f"{where}: {' and '.join(result.splits)} but no image of train; give images the split train")


def _notes(finder: Finder, result: Labelled) -> list[str]:
    notes = []
    if count := len(finder.by_end):
        notes.append(
            f"{counted(count, 'path')} of other places {inflect(count, 'was', 'were')} found below "
            f"{finder.data_dir.as_posix()} by {inflect(count, 'its', 'their')} end "
            f"(the first: {shorten(finder.by_end[0])})"
        )
    if result.repeated:
        first = next(iter(result.repeated)).decode("utf-8", "backslashreplace")
        notes.append(
            f"{counted(len(result.repeated), 'image has', 'images have')} several rows with the same label, which "
            f"count once (the first: {shorten(first)}; the others are in remarks.tsv as repeated_row)"
        )
    return notes
