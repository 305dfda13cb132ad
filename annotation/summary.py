"""Terminal output of annotate: counts, what was left out and why, warnings and advice."""

from annotation.layout import Layout
from annotation.lists import SPLITS
from annotation.names import CORRECTIONS, DUPLICATES, REJECTS, REMARKS
from annotation.splits import MIN_TO_SPLIT, Summary
from system.language import counted, inflect, translate
from system.settings import Settings
from system.text import columns, pad

CLASSES_SHOWN = 40
NAMED = 10  # items of a kind that a sentence names
PAST = {"relabel": "relabelled", "drop": "dropped", "keep": "kept"}
FOLDERS_SHOWN = 10
IMBALANCE = 5  # times as many images in the largest class as in the smallest


def print_summary(summary: Summary, layout: Layout, settings: Settings, decoded: int) -> None:
    """Prints the table of classes and splits, counts and advice."""
    print("\n".join(_table(summary, layout.class_names)))
    left_out = {reason: summary.reason_total(reason) for reason in summary.left_out}
    files = counted(summary.files, "file")
    old = summary.files - decoded
    print(translate("{files}, {new:,} decoded now, {old:,} remembered", files=files, new=decoded, old=old))
    kept = {split: summary.total(split) for split in SPLITS}
    print(translate("kept: {counts}", counts=_counts(kept)))
    if left_out:
        print(_seen("left out: {counts} (see {file})", left_out, settings, REJECTS))
    if summary.remarks:
        print(_seen("remarks on kept images: {counts} (see {file})", summary.remarks, settings, REMARKS))
    if summary.corrections:
        past = {translate(PAST[name]): count for name, count in summary.corrections.items()}
        print(translate("corrections: {counts}", counts=_counts(past)))
    if summary.skipped:
        print(translate("skipped: {counts}", counts=_counts(summary.skipped)))
    for line in _about_folders(summary):
        print(line)
    for line in [*layout.notes, *advice(summary, layout, settings)]:
        print(f"- {line}")


def _seen(sentence: str, counts: dict[str, int], settings: Settings, name: str) -> str:
    return translate(sentence, counts=_counts(counts), file=settings.lists / name)


def _about_folders(summary: Summary) -> list[str]:
    found = sorted(summary.folders.items())
    lines = [
        translate("left out: the images in {folder}: {reason}", folder=shown(path), reason=reason)
        for path, reason in found[:FOLDERS_SHOWN]
    ]
    if len(found) > FOLDERS_SHOWN:
        more = counted(len(found) - FOLDERS_SHOWN, "more folder")
        lines.append(translate("left out: the images in {folders}", folders=more))
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
            [
                translate("... {count:,} more classes", count=hidden),
                *("" for _ in SPLITS),
                translate("all are in annotate.html"),
            ],
        ]
    rows.append([translate("all"), *(f"{summary.total(split):,}" for split in SPLITS), ""])
    rows.insert(0, [translate("class"), *SPLITS, translate("left out")])
    widths = [max(columns(row[place]) for row in rows) for place in range(len(SPLITS) + 1)]
    return [_line(row, widths) for row in rows]


def _line(row: list[str], widths: list[int]) -> str:
    counts = [text.rjust(width) for text, width in zip(row[1:-1], widths[1:], strict=True)]
    return "  ".join([pad(row[0], widths[0]), *counts, row[-1]]).rstrip()


def advice(summary: Summary, layout: Layout, settings: Settings) -> list[str]:
    """Sentences that a user should read before training."""
    lines = [
        translate(
            "{split}: no {place} of its own, so {images} taken from train ({split}_fraction={fraction:g}, "
            "seed={seed}); only in the lists, no file is moved",
            split=split,
            place=translate("row" if layout.labelled else "folder"),
            images=counted(summary.total(split), "image is", "images are"),
            fraction=fraction,
            seed=settings.seed,
        )
        for split, fraction in summary.made.items()
    ]
    if summary.convertible:
        lines.append(
            translate("non_rgb=convert would keep {images}", images=counted(summary.convertible, "more image"))
        )
    lines += _about_corrections(summary, settings)
    lines += _about_copies(summary, layout, settings)
    empty = [name for name in layout.class_names if not summary.kept["train"].get(name)]
    if empty:
        line = "no training image is kept of {classes}: the network cannot learn it"
        lines.append(translate(line, classes=_named(empty)))
    lines += [line for split in summary.made if (line := _about_a_class_without(split, summary, layout))]
    counts = {name: summary.kept["train"].get(name, 0) for name in layout.class_names if name not in empty}
    if counts and max(counts.values()) >= IMBALANCE * min(counts.values()):
        largest, smallest = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
        lines.append(
            translate(
                "train is imbalanced: {images} of {largest}, {count:,} of {smallest}; accuracy alone favours a network "
                "that predicts the large classes",
                images=counted(counts[largest], "image"),
                largest=largest,
                count=counts[smallest],
                smallest=smallest,
            )
        )
    return lines


def _about_corrections(summary: Summary, settings: Settings) -> list[str]:
    lines = []
    for what, found in (
        ("corrections not applied", summary.unused_corrections),
        ("images that people decided differently about", summary.conflicting_corrections),
    ):
        if found:
            named = _named([shown(one) for one in found], "; ")
            lines.append(f"{settings.lists / CORRECTIONS}: {translate(what)}: {len(found):,} ({named})")
    return lines


def _named(names: list[str], separator: str = ", ") -> str:
    more = translate(" and {count} more", count=len(names) - NAMED) if len(names) > NAMED else ""
    return separator.join(names[:NAMED]) + more


def _about_a_class_without(split: str, summary: Summary, layout: Layout) -> str:
    train, made = summary.kept["train"], summary.kept[split]
    without = [name for name in layout.class_names if train.get(name) and not made.get(name)]
    if not without:
        return ""
    where = (
        "give other images of it the split {split}"
        if layout.labelled
        else "put other images of it into a folder {split}/"
    )
    return translate(
        "no {split} image of {classes}: a class of fewer than {least} images is not divided, nor are copies of each "
        "other, such as the frames of one clip, or a group; {where} (several clips are kept apart by group_by)",
        split=split,
        classes=_named(without),
        least=MIN_TO_SPLIT,
        where=translate(where, split=split),
    )


def _about_copies(summary: Summary, layout: Layout, settings: Settings) -> list[str]:
    lines = []
    if summary.copies:
        kinds = {translate(kind.replace("_", " ")): count for kind, count in summary.copies.items()}
        lines.append(_seen("copies: {counts} (see {file})", kinds, settings, DUPLICATES))
    for pair, count in summary.leaks.items():
        share = f" ({count / summary.total(pair.split()[0]):.1%})"
        lines.append(_leak(summary, pair, count, f"{share} {inflect(count, 'has a copy', 'have a copy')}"))
    if summary.groups:
        alone = counted(summary.ungrouped, "image is in none and stands alone", "images are in none and stand alone")
        by = "labels_file" if layout.labelled and layout.labelled.groups else f"group_by={settings.group_by}"
        lines.append(f"{by}: {counted(summary.groups, 'group')}" + (f"; {alone}" if summary.ungrouped else ""))
    for pair, count in summary.divided.items():
        names = f"{', '.join(summary.divided_groups)}{', ...' if len(summary.divided_groups) == 5 else ''}"
        what = inflect(count, "has one of its group", "have one of their group")
        lines.append(_leak(summary, pair, count, f" {what}", f" ({names})"))
    if summary.conflicts:
        line = "label conflict: groups of copies in more than one class: {count:,}"
        lines.append(translate(line, count=summary.conflicts))
    return lines


def _leak(summary: Summary, pair: str, count: int, what: str, named: str = "") -> str:
    one, other = pair.split(" in ")
    remedy = translate("; on_leak=drop_from_train leaves those out of train") if other == "train" else ""
    line = translate(
        "leak: {count:,} of {images}{what} in {other}{named}",
        count=count,
        images=counted(summary.total(one), f"{one} image"),
        what=what,
        other=other,
        named=named,
    )
    return line + remedy
