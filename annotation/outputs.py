"""Output files of a run: the lists, groups.tsv, rejects.tsv, remarks.tsv and duplicates.tsv."""

import csv
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from annotation.layout import Layout
from annotation.lists import CHANGE_COLUMNS, CORRECTED, GROUPS, LABELS, SPLITS
from annotation.names import CSV, DUPLICATES, PADDLEX_LABELS, PADDLEX_LISTS, REJECTS, REMARKS
from annotation.splits import Summary
from annotation.store import Store
from annotation.verdicts import NON_RGB
from imaging.images import too_large
from system.errors import UserError, problems
from system.text import counted, inflect

FILE_COLUMNS = ("path", "split", "class", "reason", "format", "mode", "size", "detail")
COPY_COLUMNS = (
    "group",
    "kind",
    "difference",
    "path",
    "split",
    "class",
    "copy_of",
    "copy_of_split",
    "copy_of_class",
    "leak",
    "label_conflict",
)
REMARK_DETAILS = {
    "damaged": "a part of its data is broken and blank; check it, or copy it again",
    "dark": "no pixel is brighter than a quarter of white: if it has fewer than 16 bits, save it with 8",
    "color_profile": "its colours are not called sRGB; color_profile=convert (the default) makes them so",
    "exif_rotated": "has an EXIF orientation, which is applied wherever it is read",
    "wrong_suffix": "the suffix is not that of its format",
    "animation": "several frames; the first one is used",
}
# First characters of what spreadsheets take for a formula; the wide ones in Chinese and Japanese input.
FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
Opener = Callable[[str], IO[str]]


def escape(path: bytes) -> str:
    """Escapes a path for a TSV field: backslash, tab, line break and bytes that are not UTF-8, as Python does."""
    text = path.decode("utf-8", "backslashreplace") if b"\\" not in path else _with_backslashes(path)
    return text.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def _with_backslashes(path: bytes) -> str:
    return path.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def _prefix(layout: Layout) -> str:
    folder = layout.data_dir.as_posix()
    return "" if folder == "." else folder.rstrip("/") + "/"


def write_lists(open_new: Opener, store: Store, layout: Layout) -> None:
    """Writes labels.txt and one list per split, sorted by path."""
    open_new(LABELS).write("".join(f"{name}\n" for name in layout.class_names))
    for split in SPLITS:
        file = open_new(f"{split}.txt")
        for path, label in _rows(store, layout, split):
            file.write(f"{_prefix(layout)}{path}\t{label}\n")


def _rows(store: Store, layout: Layout, split: str) -> Iterator[tuple[str, int]]:
    indices = {name: index for index, name in enumerate(layout.class_names)}
    rows = store.connection.cursor().execute(
        "SELECT path, class FROM image WHERE outcome = '' AND split = ? ORDER BY path", (split,)
    )
    return ((path.decode("utf-8"), indices[class_name]) for path, class_name in rows)


def write_csv(open_new: Opener, store: Store) -> None:
    """Writes labels.csv, the listed images with paths below the data folder, as `labels_file` reads it.

    It has a byte order mark, without which Excel takes it for another encoding.

    Raises:
        UserError: A spreadsheet would compute the name of a class or a group.
    """
    names = store.sql("SELECT class FROM image WHERE outcome = '' UNION SELECT grouped FROM image WHERE outcome = ''")
    wrong = [f"a spreadsheet would compute {name!r}" for (name,) in names if name and is_formula(name)]
    if wrong:
        raise problems(CSV, wrong, "rename these classes or groups, or leave out --format csv")
    file = open_new(CSV)
    file.write("\ufeff")
    writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(("path", "label", "split", "group"))
    rows = store.connection.cursor().execute(
        "SELECT path, class, split, coalesce(grouped, '') FROM image WHERE outcome = '' ORDER BY path"
    )
    for path, *others in rows:
        text = path.decode("utf-8")
        # The same file, and no formula.
        writer.writerow((f"./{text}" if is_formula(text) else text, *others))


def is_formula(cell: str) -> bool:
    """Returns whether a spreadsheet may compute a cell; numbers, which it only copies, are none."""
    if re.fullmatch(r"[+-][0-9]+(\.[0-9]+)?", cell):
        return cell.startswith("+")
    return cell.startswith(FORMULA)


def write_groups(open_new: Opener, store: Store, layout: Layout) -> None:
    """Writes groups.tsv: the kept images that belong together, as copies or by group_by, with a number per group."""
    file, prefix = open_new(GROUPS), _prefix(layout)
    numbers: dict[int, int] = {}
    rows = store.connection.cursor().execute(
        "SELECT unit, path FROM image WHERE outcome = '' AND unit > 0 ORDER BY unit, path"
    )
    for unit, path in rows:
        file.write(f"{prefix}{path.decode('utf-8')}\t{numbers.setdefault(unit, len(numbers))}\n")


def write_corrected(open_new: Opener, store: Store, layout: Layout) -> None:
    """Writes corrected.tsv: every image that a correction relabels, drops or adds, with its label before and now."""
    file, prefix = open_new(CORRECTED), _prefix(layout)
    file.write("\t".join(CHANGE_COLUMNS) + "\n")
    rows = store.connection.cursor().execute(
        """SELECT path, split, class_before, iif(outcome = '', class, '') FROM image
        WHERE class_before IS NOT NULL AND outcome IN ('', 'dropped') ORDER BY path"""
    )
    for path, *cells in rows:
        file.write("\t".join((prefix + path.decode("utf-8"), *cells)) + "\n")


def write_paddlex_lists(open_new: Opener, store: Store, layout: Layout, folder: Path) -> None:
    """Writes train.txt, val.txt, test.txt and label.txt for PaddleX and PaddleClas, which split lines at spaces.

    Raises:
        UserError: A path has a space, which those readers take for its end, or the folder is on another drive.
    """
    try:
        start = os.path.relpath(os.path.realpath(layout.data_dir), os.path.realpath(folder)).replace(os.sep, "/")
    except ValueError:
        reason = f"it is on another drive than {layout.data_dir}, to which its paths would be relative"
        raise UserError(f"{folder}: {reason}; set lists_dir to a folder on that drive") from None
    start = "" if start == "." else start + "/"
    spaced = [f"{start!r}"] if " " in start else []
    rows = store.sql("SELECT path FROM image WHERE outcome = '' AND instr(path, x'20') ORDER BY path LIMIT 10")
    spaced += [repr(path.decode("utf-8")) for (path,) in rows]
    if spaced:
        remedy = "PaddleX and PaddleClas split a line at its space; rename them, or use this project's own lists"
        raise problems(str(layout.data_dir), [f"a space in {path}" for path in spaced], remedy)
    open_new(PADDLEX_LABELS).write("".join(f"{index} {name}\n" for index, name in enumerate(layout.class_names)))
    for split, name in PADDLEX_LISTS.items():
        file = open_new(name)
        for path, label in _rows(store, layout, split):
            file.write(f"{start}{path} {label}\n")


def write_left_out(open_new: Opener, store: Store, layout: Layout) -> None:
    """Writes rejects.tsv, the files in no list, and remarks.tsv, the listed images with a remark."""
    repeated = layout.labelled.repeated if layout.labelled else {}
    store.add_function("is_repeated", lambda path: path in repeated)
    remarks = "outcome = '' AND (remarks <> '' OR non_rgb <> '' OR is_repeated(path))"
    for name, where in ((REJECTS, "outcome <> ''"), (REMARKS, remarks)):
        file = open_new(name)
        file.write("\t".join(FILE_COLUMNS) + "\n")
        for row in _left_out(store, where, repeated if name == REMARKS else {}):
            file.write("\t".join((_prefix(layout) + row[0], *row[1:])) + "\n")


def _left_out(store: Store, where: str, repeated: Mapping[bytes, str]) -> Iterator[tuple[str, ...]]:
    rows = store.connection.cursor().execute(
        f"""SELECT path, split, class, outcome, remarks, non_rgb, format, mode, width, height,
        coalesce(dropped, detail) FROM image WHERE {where} ORDER BY path"""
    )
    for path, split, class_name, outcome, remarks, non_rgb, file_format, mode, width, height, detail in rows:
        several = "repeated_row" if path in repeated else ""
        codes = outcome or ",".join(code for code in (non_rgb, remarks, several) if code)
        size = f"{width}x{height}" if width else ""
        text = "; ".join(filter(None, (explain(outcome, detail, remarks, mode, width, height), repeated.get(path))))
        yield escape(path), split, class_name, codes, file_format or "", mode or "", size, text


def explain(outcome: str, detail: str, remarks: str, mode: str, width: int, height: int) -> str:
    """Explains why a file was left out, or the remarks on one that was kept."""
    texts = [REMARK_DETAILS[code] for code in (remarks or "").split(",") if code]
    if outcome == "too_large":
        texts.insert(0, too_large(width, height))
    elif outcome == "leak":
        found = f"a copy of it (see {DUPLICATES}), or an image of its group, is in valid or test"
        texts.insert(0, f"{found}; on_leak=report keeps it")
    elif outcome in {*NON_RGB.values(), "other_mode"}:
        texts.insert(0, f"stored as {mode}; non_rgb=convert keeps it")
    elif outcome:
        texts.insert(0, detail)
    elif mode != "RGB":
        texts.insert(0, f"stored as {mode}; converted to RGB wherever it is read")
    return " ".join("; ".join(texts).split())


@dataclass(frozen=True)
class CopyPair:
    """An image and the one that it is a copy of; the attributes are those of COPY_COLUMNS."""

    group: int
    kind: str
    difference: float
    path: bytes
    split: str
    class_name: str
    copy_of: bytes
    copy_of_split: str
    copy_of_class: str
    leak: bool
    label_conflict: bool


def copy_pairs(store: Store, limit: int = -1, leaks_first: bool = False) -> Iterator[CopyPair]:
    """Yields all copies, by group; with leaks_first, those across splits or classes come first."""
    first = "leak + conflict DESC, mine.kind = 'same_bytes'," if leaks_first else ""
    rows = store.connection.cursor().execute(
        f"""SELECT mine.copy_group, mine.kind, mine.difference, mine.path, mine.split, mine.class,
        theirs.path, theirs.split, theirs.class, leak, conflict
        FROM image mine JOIN image theirs ON theirs.id = mine.copy_of
        JOIN (SELECT copy_group, min(split) <> max(split) AS leak, min(class) <> max(class) AS conflict
        FROM image WHERE copy_group IS NOT NULL AND outcome <> 'dropped' GROUP BY copy_group) USING (copy_group)
        ORDER BY {first} mine.copy_group, mine.path LIMIT ?""",
        (limit,),
    )
    return (CopyPair(*row) for row in rows)


def write_copies(open_new: Opener, store: Store, layout: Layout) -> None:
    """Writes duplicates.tsv: every image that is a copy, beside the one that it is a copy of."""
    prefix = _prefix(layout)
    file = open_new(DUPLICATES)
    file.write("\t".join(COPY_COLUMNS) + "\n")
    last, number = None, 0
    for pair in copy_pairs(store):
        number += pair.group != last
        last = pair.group
        copy = (prefix + escape(pair.path), pair.split, pair.class_name)
        original = (prefix + escape(pair.copy_of), pair.copy_of_split, pair.copy_of_class)
        flags = ("yes" if flag else "no" for flag in (pair.leak, pair.label_conflict))
        file.write("\t".join((str(number), pair.kind, f"{pair.difference:.4f}", *copy, *original, *flags)) + "\n")


def leak_error(summary: Summary, folder: Path) -> UserError:
    """The error of on_leak=error: which images of one split have a copy in another."""
    found = [_leak(pair, count, "has a copy", "have a copy") for pair, count in summary.leaks.items()]
    names = ", ".join(summary.divided_groups)
    for pair, count in summary.divided.items():
        found.append(f"{_leak(pair, count, 'has one of its group', 'have one of their group')} ({names})")
    remedy = "remove them, or set on_leak=drop_from_train; the lists are unchanged"
    return problems(str(folder / DUPLICATES), found, remedy)


def _leak(pair: str, count: int, singular: str, plural: str) -> str:
    one, other = pair.split(" in ")
    return f"{counted(count, f'{one} image')} {inflect(count, singular, plural)} in {other}"
