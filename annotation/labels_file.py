"""Labels from files (`labels_file`): which files, what is in them, and the splits that they name."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from annotation import label_lists, label_tables
from annotation.folders import SPLIT_NAMES, WHOLE, split_of
from annotation.label_rows import Row, quote, read_text
from annotation.lists import LABELS
from annotation.names import CSV, written_files
from system.errors import UserError, problems

# What is looked for in a folder.
TABLES = (CSV, "metadata.csv", "metadata.jsonl")
LISTS = {split: [f"{name}{end}.txt" for name in names for end in ("", "_list")] for split, names in SPLIT_NAMES.items()}
JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")


@dataclass
class Labels:
    """Content of the files.

    Attributes:
        rows: In the order of the files; `split` is as in walk.Found: WHOLE where no row has one; "" if it is unknown.
        class_names: The label map beside the first file, in the order of its ids; None if there is none.
        label_maps: Those that indices were read with.
        notes: Which columns were read, and how.
        digest: SHA-256 of all that was read.
    """

    files: list[Path]
    rows: list[Row]
    class_names: list[str] | None
    label_maps: list[Path]
    notes: list[str]
    digest: str


def read(labels_file: str) -> Labels:
    """Reads the files that the setting names: one, several separated by commas, or a folder of them.

    Raises:
        UserError: One is missing, cannot be read, or has no known columns; or there is no row in them.
    """
    files = find_files(labels_file)
    rows: list[Row] = []
    notes, digest = [], hashlib.sha256()
    maps: dict[Path, list[str]] = {}
    for file in files:
        found, about, content, is_list = _read(file)
        names = label_lists.LABEL_MAPS if is_list else (LABELS,)
        if label_map := label_lists.find_label_map(file, names):
            maps[label_map] = label_lists.read_label_map(label_map)
        notes.append(f"{file}: {about}")
        digest.update(b"%d\0" % len(content) + content)
        split = split_of_file(file)
        if split and not any(row.split for row in found):
            for row in found:
                row.split = split
        rows += found
    if not rows:
        raise UserError(f"{labels_file}: there is no image in it; write one per line")
    digest.update(repr([*maps.values()]).encode())
    for row in rows:
        row.check()
    _resolve_splits(rows)
    return Labels(files, rows, next(iter(maps.values()), None), [*maps], notes, digest.hexdigest())


def find_files(labels_file: str) -> list[Path]:
    """Returns the files that the setting names.

    Raises:
        UserError: There are none, or a folder has several that may be meant.
    """
    path = Path(labels_file)
    if path.is_dir():
        return _find_in_folder(path)
    files = [path] if path.is_file() else [Path(part.strip()) for part in labels_file.split(",") if part.strip()]
    missing = [f"{file} is no file" for file in files or [path] if not file.is_file()]
    if missing:
        remedy = "set labels_file to a file, to several separated by commas, or to their folder"
        raise problems("labels_file", missing, remedy)
    return files


def _find_in_folder(folder: Path) -> list[Path]:
    lists = [folder / name for names in LISTS.values() for name in names if (folder / name).is_file()]
    places = [folder, *(folder / name for names in SPLIT_NAMES.values() for name in names)]
    tables = [place / name for place in places for name in TABLES if (place / name).is_file()]
    # One table, or one in each split's folder, or one list of each split.
    sets = [lists, *([table] for table in tables if table.parent == folder)]
    sets.append([table for table in tables if table.parent != folder])
    found = [files for files in sets if files]
    if not found:
        known = ", ".join([*TABLES, "train.txt", "train_list.txt"])
        raise UserError(
            f"{folder}: no file of labels is known there by its name ({known}); set labels_file to the file"
        )
    several = [files for files in found if len({split_of_file(file) for file in files}) < len(files)]
    if len(found) > 1 or several:
        named = ", ".join(file.name for files in found for file in files)
        raise UserError(
            f"{folder}: {named} may all be meant; set labels_file to one, or to several with commas between"
        )
    return found[0]


def split_of_file(file: Path) -> str | None:
    """Returns the split that a file's name stands for, or the folder's of a metadata.csv; None if there is none."""
    stem = re.sub(r"[-_]list$", "", file.stem, flags=re.IGNORECASE)
    return split_of(file.absolute().parent.name if file.name in TABLES[1:] else stem)


def _read(file: Path) -> tuple[list[Row], str, bytes, bool]:
    """Returns the rows, how they were read, the bytes, and whether the file is a list of indices."""
    text, encoding, content = read_text(file)
    is_list = False
    if file.suffix.lower() in JSON_SUFFIXES or text.lstrip().startswith("{"):
        rows, about = label_tables.read_json(file, text)
    elif table := label_tables.read_csv(file, text):
        rows, about = table
    elif file.suffix.lower() in (".txt", ".list", ".lst"):
        is_list = True
        rows, about = label_lists.read_list(file, text)
    else:
        headers = [label_tables.header(text, delimiter) for delimiter in label_tables.DELIMITERS]
        columns = max(headers, key=len)
        roles = label_tables.find_roles(columns)
        raise label_tables.no_columns(file, columns, [role for role in ("path", "label") if role not in roles])
    return rows, about + (f"; read as {encoding}" if encoding != "UTF-8" else ""), content, is_list


def _resolve_splits(rows: Iterable[Row]) -> None:
    """Sets every row's split to one of those that the lists have, or refuses it."""
    if not any(row.split for row in rows):
        for row in rows:
            row.split = WHOLE
        return
    for row in rows:
        written, row.split = row.split, split_of(row.split) or ""
        if not row.split:
            said = f"the split {quote(written)} is unknown" if written else "no split, other rows have one"
            row.refuse("unknown_split", f"{said}; write train, valid or test")


def refuse_overwriting(files: Iterable[Path], lists: Path, list_format: str) -> None:
    """Raises an error if annotate would write its own lists over the files of labels.

    Raises:
        UserError: It would.
    """
    # labels.txt keeps its content.
    own = [lists / name for name in written_files(list_format) if name != LABELS]
    wrong = [
        f"{file} would be overwritten" for file in files if any(one.exists() and file.samefile(one) for one in own)
    ]
    if wrong:
        raise problems("labels_file", wrong, "set lists_dir to another folder, or rename the file")
