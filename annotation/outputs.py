"""Writes what a run decided: the lists, the left-out files and the copies, all together or not at all."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from annotation.lists import LABELS, SPLITS
from annotation.splits import Summary
from annotation.store import Store
from annotation.walk import Layout
from system.errors import problems

REJECTS = "rejects.tsv"
REMARKS = "remarks.tsv"
DUPLICATES = "duplicates.tsv"
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
    "damaged": "a part of its data is broken and blank; look at it, or copy it anew",
    "exif_rotated": "EXIF says how to turn it; it is turned wherever it is read",
    "wrong_suffix": "the suffix says another format than the file has",
    "animation": "several frames; the first one counts",
}
Opener = Callable[[str], IO[str]]


def escape(path: bytes) -> str:
    """Makes a path that fits into one field of a TSV: backslash, tab, line break and stray bytes as in Python."""
    text = path.decode("utf-8", "backslashreplace") if b"\\" not in path else _with_backslashes(path)
    return text.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def _with_backslashes(path: bytes) -> str:
    return path.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def listed_path(layout: Layout, path: bytes) -> str:
    """Writes a path as the lists do: the data folder as it was given, then the path within it, with `/`."""
    return (layout.data_dir / os.fsdecode(path)).as_posix()


def _prefix(layout: Layout) -> str:
    folder = layout.data_dir.as_posix()
    return "" if folder == "." else folder.rstrip("/") + "/"


def write_lists(open_new: Opener, store: Store, layout: Layout) -> None:
    """Writes labels.txt and a list a split, sorted by path."""
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


def write_paddlex_lists(open_new: Opener, store: Store, layout: Layout, folder: Path) -> None:
    """Writes train.txt, val.txt, test.txt and label.txt as PaddleX and PaddleClas read them: split at spaces.

    Raises:
        UserError: A path or class name has a space, which those readers take for the end of the path.
    """
    start = os.path.relpath(os.path.realpath(layout.data_dir), os.path.realpath(folder)).replace(os.sep, "/")
    start = "" if start == "." else start + "/"
    spaced = [f"{start!r}"] if " " in start else []
    rows = store.sql("SELECT path FROM image WHERE outcome = '' AND instr(path, x'20') ORDER BY path LIMIT 10")
    spaced += [repr(path.decode("utf-8")) for (path,) in rows]
    if spaced:
        why = "PaddleX and PaddleClas split a line at its space; rename them, or use this project's own lists"
        raise problems(str(layout.data_dir), [f"a space in {path}" for path in spaced], why)
    open_new("label.txt").write("".join(f"{index} {name}\n" for index, name in enumerate(layout.class_names)))
    for split, name in zip(SPLITS, ("train.txt", "val.txt", "test.txt"), strict=True):
        file = open_new(name)
        for path, label in _rows(store, layout, split):
            file.write(f"{start}{path} {label}\n")


def write_left_out(open_new: Opener, store: Store, layout: Layout) -> None:
    """Writes the files that no list holds, and those that a list holds but that are worth a remark."""
    for name, where in ((REJECTS, "outcome <> ''"), (REMARKS, "outcome = '' AND (remarks <> '' OR non_rgb <> '')")):
        file = open_new(name)
        file.write("\t".join(FILE_COLUMNS) + "\n")
        for row in _left_out(store, where):
            file.write("\t".join((_prefix(layout) + row[0], *row[1:])) + "\n")


def _left_out(store: Store, where: str) -> Iterator[tuple[str, ...]]:
    for (
        path,
        split,
        class_name,
        outcome,
        remarks,
        non_rgb,
        kind,
        mode,
        width,
        height,
        detail,
    ) in store.connection.cursor().execute(
        f"""SELECT path, split, class, outcome, remarks, non_rgb, format, mode, width, height, detail
            FROM image WHERE {where} ORDER BY path"""
    ):
        codes = outcome or ",".join(code for code in (non_rgb, remarks) if code)
        size = f"{width}x{height}" if width else ""
        said = explain(outcome, detail, remarks, mode, width, height)
        yield escape(path), split, class_name, codes, kind or "", mode or "", size, said


def explain(outcome: str, detail: str, remarks: str, mode: str, width: int, height: int) -> str:
    """Says in words why a file was left out, or what is worth knowing about one that was kept."""
    # Not above: a re-run that finds nothing new needs none of what these load.
    from annotation.verdicts import NON_RGB
    from imaging.images import too_large

    said = [REMARK_DETAILS[code] for code in (remarks or "").split(",") if code]
    if outcome == "too_large":
        said.insert(0, too_large(width, height))
    elif outcome == "leak":
        said.insert(0, f"a copy of it is in valid or test, see {DUPLICATES}; on_leak=report keeps it")
    elif outcome in {*NON_RGB.values(), "other_mode"}:
        said.insert(0, f"stored as {mode}; non_rgb=convert keeps it")
    elif outcome:
        said.insert(0, detail)
    elif mode != "RGB":
        said.insert(0, f"stored as {mode}; converted to RGB wherever it is read")
    return " ".join("; ".join(said).split())


def copies(store: Store, limit: int = -1, leaks_first: bool = False) -> Iterator[dict[str, object]]:
    """Yields the pairs of copies, an image and the one it is a copy of, by group."""
    first = "leak + conflict DESC, mine.kind = 'same_bytes'," if leaks_first else ""
    rows = store.connection.cursor().execute(
        f"""SELECT mine.copies, mine.kind, mine.difference, mine.path, mine.split, mine.class,
        theirs.path, theirs.split, theirs.class, leak, conflict
        FROM image mine JOIN image theirs ON theirs.id = mine.copy_of
        JOIN (SELECT copies, min(split) <> max(split) AS leak, min(class) <> max(class) AS conflict
        FROM image WHERE copies IS NOT NULL GROUP BY copies) USING (copies)
        ORDER BY {first} mine.copies, mine.path LIMIT ?""",
        (limit,),
    )
    for row in rows:
        yield dict(zip(COPY_COLUMNS, row, strict=True))


def write_copies(open_new: Opener, store: Store, layout: Layout) -> None:
    """Writes duplicates.tsv: every image that is a copy, beside the one it is a copy of."""
    file = open_new(DUPLICATES)
    file.write("\t".join(COPY_COLUMNS) + "\n")
    last, number = None, 0
    for pair in copies(store):
        number += pair["group"] != last
        last = pair["group"]
        fields = dict(pair, group=number, difference=f"{pair['difference']:.4f}")
        for name in ("path", "copy_of"):
            fields[name] = _prefix(layout) + escape(pair[name])
        for name in ("leak", "label_conflict"):
            fields[name] = "yes" if pair[name] else "no"
        file.write("\t".join(str(fields[name]) for name in COPY_COLUMNS) + "\n")


def refuse_leaks(summary: Summary, folder: Path) -> None:
    """Stops the run for on_leak=error.

    Raises:
        UserError: An image of one split has a copy in another.
    """
    if summary.leaks:
        found = [f"{count} {pair.replace(' in ', ' images have a copy in ')}" for pair, count in summary.leaks.items()]
        raise problems(
            str(folder / DUPLICATES), found, "take them out, or set on_leak=drop_from_train; the lists are as they were"
        )
