"""Structure of the data folder: which folders are splits and classes, and which are left out."""

import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from annotation import labels_file
from annotation.folders import (
    SPLIT_NAMES,
    WHOLE,
    folders_in,
    left_out,
    split_folders,
    unpacked,
)
from annotation.label_match import Labelled, match
from annotation.lists import LABELS, name_fault, read_labels
from annotation.names import CORRECTIONS, LIST_FORMATS, written_files
from imaging.folders import is_skipped
from system.errors import UserError, problems
from system.settings import Settings

SAME = "equal but for Unicode form, case or outer spaces"


@dataclass
class Layout:
    """Structure of the data folder.

    Attributes:
        data_dir: The data folder, as in the settings.
        folders: Split -> its folder, relative to data_dir; WHOLE -> the class folders' where there are only those.
        class_names: The label map.
        labels_kept: True if labels.txt existed and set the order of the classes.
        loose_files: Files beside the class folders, relative to data_dir; without those that annotate writes.
        left_out: Folder that holds images but is not used, relative to data_dir -> why.
        notes: What was taken for what, where names alone do not say it.
        labelled: The images that `labels_file` names; None if class folders give the labels. Then each folder is the
            data folder.
    """

    data_dir: Path
    folders: dict[str, str]
    class_names: list[str]
    labels_kept: bool
    loose_files: list[str]
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    labelled: Labelled | None = None


def find_layout(settings: Settings) -> Layout:
    """Finds the folders of splits and classes, and checks every split's class folders against the label map.

    With `labels_file`, splits and classes are those that the file names.

    Raises:
        UserError: The data folder is missing or empty, or its folders, or the labels, are inconsistent.
    """
    data_dir = Path(settings.data_dir)
    if name_fault(data_dir.as_posix()):
        raise UserError(f"{data_dir}: there is {name_fault(data_dir.as_posix())}; rename the data folder")
    if not data_dir.is_dir():
        what = "the one of the images" if settings.labels_file else "one with train/CLASS/"
        raise UserError(f"{data_dir}: no such folder; set data_dir=FOLDER to {what}")
    label_map = settings.lists / LABELS
    labels = read_labels(label_map) if label_map.exists() else None
    if settings.labels_file:
        return _labelled_layout(settings, data_dir, label_map if labels else None, labels)
    root = unpacked(data_dir, labels or [])
    folders = split_folders(data_dir, root)
    classes = {split: _classes(data_dir / folder) for split, folder in folders.items()}
    first = WHOLE if WHOLE in folders else "train"
    if not classes[first]:
        raise UserError(f"{data_dir / folders[first]}: no class folder in it; put images into train/CLASS/")
    if labels is None:
        _refuse_splits_below(data_dir / folders[first], classes[first])
    notes = [] if labels else _similar_classes(str(data_dir / folders[first]), classes[first])
    class_names = sort_classes(classes[first]) if labels is None else labels
    _check_classes(data_dir, folders, classes, class_names, label_map if labels else None)
    notes = [*_taken(data_dir, root, folders), *notes]
    loose = _loose_files(data_dir, folders.values())
    return Layout(data_dir, folders, class_names, labels is not None, loose, left_out(data_dir, root, folders), notes)


def _labelled_layout(
    settings: Settings, data_dir: Path, labels_path: Path | None, class_names: list[str] | None
) -> Layout:
    found = labels_file.read(settings.labels_file or "")
    where = ", ".join(map(str, found.files))
    own = {settings.lists / name for list_format in LIST_FORMATS for name in written_files(list_format)}
    labelled, notes = match(found, data_dir, own)
    named = {row.label for row in found.rows if not name_fault(row.label) and row.reason != "bad_row"}
    if class_names is None:
        notes += _similar_classes(where, named)
    names = class_names or found.class_names or sort_classes(named)
    source = labels_path or f"the label map beside {where}"
    if unknown := [f"{name!r} is not a class of {source}" for name in sorted(named - {*names})]:
        remedy = f"correct these labels, or delete {source} to renumber the classes"
        raise problems(where, unknown, remedy)
    if settings.group_by == "folder":
        raise UserError(
            "group_by=folder: labels_file has no class folders; use a column group, or a regular expression"
        )
    if labelled.groups and settings.group_by != "none":
        notes.append(f"images are grouped by the group column of {where}; group_by={settings.group_by} is not used")
    folders = dict.fromkeys(labelled.splits, "")
    return Layout(data_dir, folders, names, class_names is not None, [], {}, notes, labelled)


def sort_classes(names: Iterable[str]) -> list[str]:
    """Sorts class names: by number where all are numbers, else by their characters."""
    names = sorted(names)
    return sorted(names, key=Decimal) if all(map(_is_number, names)) else names


def _is_number(name: str) -> bool:
    whole, _, fraction = name.removeprefix("-").partition(".")
    return name.isascii() and whole.isdigit() and (fraction.isdigit() or "." not in name)


def _classes(folder: Path) -> list[str]:
    names = folders_in(folder)
    wrong = [f"class folder {name!r} has {name_fault(name)}" for name in sorted(names) if name_fault(name)]
    if wrong:
        raise problems(str(folder), wrong, "rename it; class names are written to labels.txt")
    return names


def _refuse_splits_below(folder: Path, names: Iterable[str]) -> None:
    """Raises an error for CLASS/train/, whose split would be lost, and for a data set beside another."""
    spellings = [spelling for name in SPLIT_NAMES["train"] for spelling in (name, name.title(), name.upper())]
    wrong = [
        f"{name}/{spelling} is the folder of a split below another folder"
        for name in sorted(names)
        for spelling in spellings
        if os.path.isdir(folder / name / spelling)
    ]
    if wrong:
        remedy = "put the splits above the classes (train/CLASS/), or set data_dir to one of these folders"
        raise problems(str(folder), list(dict.fromkeys(wrong)), remedy)


def same_name(name: str) -> str:
    """Returns what names have in common that are equal but for Unicode form, case or outer spaces."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).strip().casefold()).strip()


def _similar_classes(where: str, names: Iterable[str]) -> list[str]:
    """Returns notes on classes that differ in case only; other similar names are an error."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        groups.setdefault(same_name(name), []).append(name)
    groups = {key: group for key, group in groups.items() if len(group) > 1}
    wrong: list[str] = []
    notes: list[str] = []
    for group in groups.values():
        text = f"the classes {_quoted(group)} are {SAME}"
        looks = {unicodedata.normalize("NFC", name).strip() for name in group}
        (wrong if len(looks) < len(group) else notes).append(text)
    if wrong:
        raise problems(where, wrong, f"rename or join them; to keep both, list them in {LABELS}")
    return notes


def _quoted(names: Iterable[str]) -> str:
    return " and ".join(repr(name) if name.isascii() else f"{name!r} ({name!a})" for name in names)


def _check_classes(
    data_dir: Path, folders: dict[str, str], classes: dict[str, list[str]], class_names: list[str], labels: Path | None
) -> None:
    wrong = []
    source = str(labels) if labels else "train"
    for split, folder in folders.items():
        missing = sorted(set(class_names) - set(classes[split]))
        unknown = sorted(set(classes[split]) - set(class_names))
        similar = {same_name(name): name for name in missing}
        for name in unknown:
            other = similar.get(same_name(name))
            place = (data_dir / folder).as_posix()
            if other is None:
                wrong.append(f"{place}/{name} is not a class of {source}")
            else:
                missing = [one for one in missing if one != other]
                wrong.append(f"in {place}, {_quoted([name])} and the class {_quoted([other])} of {source} are {SAME}")
        wrong += [f"{(data_dir / folder / name).as_posix()} is missing" for name in missing]
    if wrong:
        remedy = "every split needs the same class folders (outside train they may be empty)"
        raise problems(
            str(data_dir), wrong, remedy + (f"; or delete {labels} to renumber the classes" if labels else "")
        )


def _taken(data_dir: Path, root: str, folders: dict[str, str]) -> list[str]:
    notes = (
        [f"{(data_dir / root).as_posix()} is taken as the data folder: nothing else here holds images"] if root else []
    )
    named = {split: folder for split, folder in folders.items() if split != WHOLE}
    return notes + [
        f"{(data_dir / folder).as_posix()} is taken as {split}"
        for split, folder in named.items()
        if os.path.relpath(folder, root or ".") != split
    ]


def _loose_files(data_dir: Path, folders: Iterable[str]) -> list[str]:
    written = {name for list_format in LIST_FORMATS for name in written_files(list_format)} | {CORRECTIONS}
    found = []
    for folder in folders:
        with os.scandir(data_dir / folder) as entries:
            names = [entry.name for entry in entries if entry.is_file() and not is_skipped(entry.name)]
        found += [os.path.join(folder, name) for name in names if name not in written]
    return sorted(found)


def refuse_loose_images(layout: Layout, suffixes: Iterable[str]) -> None:
    """Raises an error for images beside the class folders, which no split would contain.

    Args:
        suffixes: File name suffixes of images, lower case. Passed in, since knowing them means loading every decoder.

    Raises:
        UserError: There are such images.
    """
    loose = [name for name in layout.loose_files if name.lower().endswith(tuple(suffixes))]
    if loose:
        wrong = [f"{name} is in no class folder" for name in loose]
        raise problems(str(layout.data_dir), wrong, "move each into the folder of its class")
