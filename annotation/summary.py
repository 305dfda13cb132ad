"""Terminal output of annotate: counts, what was left out and why, warnings and advice."""

from annotation.layout import Layout
from annotation.lists import SPLITS
from annotation.names import CORRECTIONS, DUPLICATES, REJECTS, REMARKS
from annotation.splits import MIN_TO_SPLIT, Summary
from system.settings import Settings
from system.text import columns, counted, inflect, pad

CLASSES_SHOWN = 40
NAMED = 10  # items of a kind that a sentence names
PAST = {"relabel": "relabelled", "drop": "dropped", "keep": "kept"}
FOLDERS_SHOWN = 10
IMBALANCE = 5  # times as many images in the largest class as in the smallest


def print_summary(summary: Summary, layout: Layout, settings: Settings, decoded: int) -> None:
    """Prints the table of classes and splits, counts and advice."""
    print("\n".join(_table(summary, layout.class_names)))
    left_out = {reason: summary.reason_total(reason) for reason in summary.left_out}
    print(f"{counted(summary.files, 'file')}, {decoded:,} decoded now, {summary.files - decoded:,} remembered")
    print(f"kept: {', '.join(f'{summary.total(split):,} {split}' for split in SPLITS)}")
    if left_out:
        print(f"left out: {_counts(left_out)} (see {settings.lists / REJECTS})")
    if summary.remarks:
        print(f"remarks on kept images: {_counts(summary.remarks)} (see {settings.lists / REMARKS})")
    if summary.corrections:
        print(f"corrections: {_counts({PAST[name]: count for name, count in summary.corrections.items()})}")
    if summary.skipped:
        print(f"skipped: {_counts(summary.skipped)}")
    for line in _about_folders(summary):
        print(line)
    for line in [*layout.notes, *advice(summary, layout, settings)]:
        print(f"- {line}")


def _about_folders(summary: Summary) -> list[str]:
    found = sorted(summary.folders.items())
    lines = [f"left out: the images in {shown(path)}: {reason}" for path, reason in found[:FOLDERS_SHOWN]]
    if len(found) > FOLDERS_SHOWN:
        lines.append(f"left out: the images in {counted(len(found) - FOLDERS_SHOWN, 'more folder')}")
    return lines


def shown(path: str) -> str:
    """Writes a path for one line of a terminal; bytes that are not UTF-8 as escapes."""
    return path if path.isprintable() else ascii(path)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _table(summary: Summary, class_names: list[str]) -> list[str]:
    rows = []
    for name in class_names:
        left_out = summary.left_out_of(name)
        kept = [f"{summary.kept[split].get(name, 0):,}" for split in SPLITS]
        rows.append([name, *kept, _counts(left_out)])
    hidden = len(rows) - CLASSES_SHOWN
    if hidden > 1:
        rows = [
            *rows[:CLASSES_SHOWN],
            [f"... {hidden:,} more classes", *("" for _ in SPLITS), "all are in annotate.html"],
        ]
    rows.append(["all", *(f"{summary.total(split):,}" for split in SPLITS), ""])
    rows.insert(0, ["class", *SPLITS, "left out"])
    widths = [max(columns(row[place]) for row in rows) for place in range(len(SPLITS) + 1)]
    return [_line(row, widths) for row in rows]


def _line(row: list[str], widths: list[int]) -> str:
    counts = [text.rjust(width) for text, width in zip(row[1:-1], widths[1:], strict=True)]
    return "  ".join([pad(row[0], widths[0]), *counts, row[-1]]).rstrip()


def advice(summary: Summary, layout: Layout, settings: Settings) -> list[str]:
    """Sentences that a user should read before training."""
    place = "row" if layout.labelled else "folder"
    lines = [
        f"{split}: no {place} of its own, so {counted(summary.total(split), 'image is', 'images are')} taken from "
        f"train ({split}_fraction={fraction:g}, seed={settings.seed}); only in the lists, no file is moved"
        for split, fraction in summary.made.items()
    ]
    if summary.convertible:
        lines.append(f"non_rgb=convert would keep {counted(summary.convertible, 'more image')}")
    lines += _about_corrections(summary, settings)
    lines += _about_copies(summary, layout, settings)
    empty = [name for name in layout.class_names if not summary.kept["train"].get(name)]
    if empty:
        shown = ", ".join(empty[:10]) + (f" and {len(empty) - 10} more" if len(empty) > 10 else "")
        lines.append(f"no training image is kept of {shown}: the network cannot learn it")
    lines += [line for split in summary.made if (line := _about_a_class_without(split, summary, layout))]
    counts = {name: summary.kept["train"].get(name, 0) for name in layout.class_names if name not in empty}
    if counts and max(counts.values()) >= IMBALANCE * min(counts.values()):
        largest, smallest = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
        lines.append(
            f"train is imbalanced: {counted(counts[largest], 'image')} of {largest}, {counts[smallest]:,} of "
            f"{smallest}; accuracy alone favours a network that predicts the large classes"
        )
    return lines


def _about_corrections(summary: Summary, settings: Settings) -> list[str]:
    lines = []
    for what, found in (
        ("corrections not applied", summary.unused_corrections),
        ("images that people decided differently about", summary.conflicting_corrections),
    ):
        more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        if found:
            named = "; ".join(map(shown, found[:NAMED]))
            lines.append(f"{settings.lists / CORRECTIONS}: {what}: {len(found):,} ({named}{more})")
    return lines


def _about_a_class_without(split: str, summary: Summary, layout: Layout) -> str:
    train, made = summary.kept["train"], summary.kept[split]
    without = [name for name in layout.class_names if train.get(name) and not made.get(name)]
    if not without:
        return ""
    names = ", ".join(without[:10]) + (f" and {len(without) - 10} more" if len(without) > 10 else "")
    where = (
        f"give other images of it the split {split}"
        if layout.labelled
        else f"put other images of it into a folder {split}/"
    )
    return (
        f"no {split} image of {names}: a class of fewer than {MIN_TO_SPLIT} images is not divided, nor are copies of "
        f"each other, such as the frames of one clip, or a group; {where} "
        "(several clips are kept apart by group_by)"
    )


def _about_copies(summary: Summary, layout: Layout, settings: Settings) -> list[str]:
    lines = []
    if summary.copies:
        kinds = {kind.replace("_", " "): count for kind, count in summary.copies.items()}
        lines.append(f"copies: {_counts(kinds)} (see {settings.lists / DUPLICATES})")
    for pair, count in summary.leaks.items():
        share = f" ({count / summary.total(pair.split()[0]):.1%})"
        lines.append(_leak(summary, pair, count, f"{share} {inflect(count, 'has', 'have')} a copy"))
    if summary.groups:
        alone = counted(summary.ungrouped, "image is in none and stands alone", "images are in none and stand alone")
        by = "labels_file" if layout.labelled and layout.labelled.groups else f"group_by={settings.group_by}"
        lines.append(f"{by}: {counted(summary.groups, 'group')}" + (f"; {alone}" if summary.ungrouped else ""))
    for pair, count in summary.divided.items():
        names = f"{', '.join(summary.divided_groups)}{', ...' if len(summary.divided_groups) == 5 else ''}"
        what = inflect(count, "has one of its group", "have one of their group")
        lines.append(_leak(summary, pair, count, f" {what}", f" ({names})"))
    if summary.conflicts:
        lines.append(f"label conflict: groups of copies in more than one class: {summary.conflicts:,}")
    return lines


def _leak(summary: Summary, pair: str, count: int, what: str, named: str = "") -> str:
    one, other = pair.split(" in ")
    remedy = "; on_leak=drop_from_train leaves those out of train" if other == "train" else ""
    return f"leak: {count:,} of {counted(summary.total(one), f'{one} image')}{what} in {other}{named}{remedy}"
