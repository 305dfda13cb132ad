"""Queues: what there is to decide, one item per image or pair, from the tables of the other commands."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annotation.corrections import DROP, RELABEL, Correction
from annotation.names import DUPLICATES
from annotation.verdicts import NON_RGB
from reviewing.catalog import ANNOTATE, Catalog, Entry
from reviewing.tables import read_table, unescape

SUSPECTS, CONFLICTS, LEAKS, COPIES = "suspects", "conflicts", "leaks", "copies"
SIMILAR, UNLIKE, REJECTS, REPORTS = "similar", "unlike", "rejects", "reports"
# In the order in which they are shown.
NAMES = (SUSPECTS, CONFLICTS, LEAKS, COPIES, SIMILAR, UNLIKE, REJECTS, REPORTS)
# Why rows are left out.
GONE, RELABELLED = "gone", "relabelled"
CONVERTIBLE = {*NON_RGB.values(), "other_mode"}
TABLES = {
    "suspects.tsv": ("path", "label", "suggested", "label_probability", "suggested_probability"),
    "similar.tsv": ("cosine", "path", "label", "similar_to", "similar_to_label"),
    "unlike.tsv": ("closeness", "path", "label"),
}
NUMBERS = {"label_probability", "suggested_probability", "cosine", "closeness"}
Row = dict[str, str]


@dataclass(frozen=True)
class Item:
    """One question.

    Attributes:
        queue: One of NAMES.
        images: Paths of one image, or of two.
        suggested: For each image the class that is suggested instead of its label; "": none.
        facts: What else the page shows.
    """

    queue: str
    images: tuple[str, ...]
    suggested: tuple[str, ...]
    facts: Mapping[str, Any]

    def is_done(self, decisions: Mapping[str, Correction], labels: Sequence[str]) -> bool:
        """Whether the decisions answer it.

        Args:
            labels: The class of each image as listed.
        """
        made = [decisions.get(path) for path in self.images]
        if all(made) or any(one is not None and one.action == DROP for one in made):
            return True
        changed = [
            one.class_name if one is not None and one.action == RELABEL else label
            for one, label in zip(made, labels, strict=True)
        ]
        return self.queue == CONFLICTS and len(set(changed)) == 1


@dataclass
class Queues:
    """All items in the order of NAMES, and how many rows were left out.

    Attributes:
        left_out: Reason -> rows.
        sources: The folders that were read.
        foreign: Folders none of whose images is listed.
    """

    items: list[Item] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    sources: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)


def build(catalog: Catalog, folders: Iterable[Path]) -> Queues:
    """Reads the tables of annotate.py, and those of explore.py and evaluate.py in some folders.

    Raises:
        UserError: A table cannot be read.
    """
    found = Queues()
    tables: dict[str, dict[str, list[Row]]] = {name: {} for name in TABLES}
    for folder in folders:
        rows = {
            name: read_table(folder / name, needed, _remedy(folder), NUMBERS.intersection(needed))
            for name, needed in TABLES.items()
        }
        if not any(rows.values()):
            continue
        if not any(catalog.find(row["path"]) for part in rows.values() for row in part):
            found.foreign.append(str(folder))
            continue
        found.sources.append(str(folder))
        for name, part in rows.items():
            tables[name][str(folder)] = part
    items = [
        *_suspects(catalog, tables["suspects.tsv"], found.left_out),
        *_copies(catalog, found.left_out),
        *_similar(catalog, tables["similar.tsv"], found.left_out),
        *_unlike(catalog, tables["unlike.tsv"], found.left_out),
        *_rejects(catalog),
    ]
    found.items = sorted(items, key=lambda item: NAMES.index(item.queue))
    return found


def _remedy(folder: Path) -> str:
    return f"write it again with explore.py or evaluate.py, or remove {folder} from the command line"


def fitting(catalog: Catalog, path: str, label: str, left_out: Counter[str]) -> Entry | None:
    """The listed image that a row is about; None, and counted, if it is in no list or has another label by now."""
    entry = catalog.find(path)
    if entry is None or entry.reason:
        left_out[GONE] += 1
    elif entry.label != label:
        left_out[RELABELLED] += 1
    else:
        return entry
    return None


def _merged(tables: Mapping[str, list[Row]], key: Callable[[Row], Any]) -> Iterator[tuple[Row, list[str]]]:
    """Yields the rows of several folders, one for each key, and which folders name it."""
    seen: dict[Any, tuple[Row, list[str]]] = {}
    for folder, rows in tables.items():
        for row in rows:
            seen.setdefault(key(row), (row, []))[1].append(folder)
    yield from seen.values()


def _suspects(catalog: Catalog, tables: Mapping[str, list[Row]], left_out: Counter[str]) -> Iterator[Item]:
    rows = [(folder, row) for folder, part in tables.items() for row in part]
    # The surest first; of an image that several folders suspect, its surest row counts.
    rows.sort(key=lambda one: (_gap(one[1]), one[1]["path"]))
    by_path: dict[str, list[tuple[str, Row]]] = {}
    for folder, row in rows:
        by_path.setdefault(row["path"], []).append((folder, row))
    for path, found in by_path.items():
        fit = [(folder, row) for folder, row in found if fitting(catalog, path, row["label"], left_out)]
        if not fit or (entry := catalog.find(path)) is None:
            continue
        surest = fit[0][1]
        facts = {name: float(surest[name]) for name in ("label_probability", "suggested_probability")}
        sources = [[folder, row["suggested"], float(row["suggested_probability"])] for folder, row in fit]
        yield Item(SUSPECTS, (entry.path,), (_known(catalog, surest["suggested"]),), facts | {"sources": sources})


def _gap(row: Row) -> float:
    return float(row["label_probability"]) - float(row["suggested_probability"])


def _known(catalog: Catalog, name: str) -> str:
    return name if name in catalog.class_names else ""


def _copies(catalog: Catalog, left_out: Counter[str]) -> Iterator[Item]:
    needed = ("kind", "difference", "path", "class", "copy_of", "copy_of_class", "leak", "label_conflict")
    for row in read_table(catalog.lists / DUPLICATES, needed, ANNOTATE):
        pair = [(unescape(row["path"]), row["class"]), (unescape(row["copy_of"]), row["copy_of_class"])]
        queue = _queue_of_copies(row, catalog.find(pair[0][0]), catalog.find(pair[1][0]))
        if queue and (item := _pair(catalog, queue, pair, left_out, {"kind": row["kind"]})):
            yield item


def _queue_of_copies(row: Row, one: Entry | None, other: Entry | None) -> str:
    """The queue of a pair of copies; the flags are those of its whole group."""
    if row["label_conflict"] == "yes" and row["class"] != row["copy_of_class"]:
        return CONFLICTS
    if row["leak"] == "yes" and (one is None or other is None or one.split != other.split):
        return LEAKS
    return COPIES if row["kind"] == "near_copy" else ""


def _pair(
    catalog: Catalog, queue: str, pair: list[tuple[str, str]], left_out: Counter[str], facts: Mapping[str, Any]
) -> Item | None:
    entries = []
    for path, label in pair:
        if (entry := fitting(catalog, path, label, left_out)) is None:
            # A pair is one row, whichever of the two has gone.
            return None
        entries.append(entry)
    # The one to drop, which the page proposes, stands first: an image of train rather than one of test.
    entries.sort(key=lambda entry: entry.split != "train")
    labels = [entry.label for entry in entries]
    suggested = (labels[1], labels[0]) if labels[0] != labels[1] else ("", "")
    return Item(queue, tuple(entry.path for entry in entries), suggested, facts)


def _similar(catalog: Catalog, tables: Mapping[str, list[Row]], left_out: Counter[str]) -> Iterator[Item]:
    for row, sources in _merged(tables, lambda row: frozenset((row["path"], row["similar_to"]))):
        pair = [(row["path"], row["label"]), (row["similar_to"], row["similar_to_label"])]
        facts = {"cosine": float(row["cosine"]), "folders": sources}
        if item := _pair(catalog, SIMILAR, pair, left_out, facts):
            yield item


def _unlike(catalog: Catalog, tables: Mapping[str, list[Row]], left_out: Counter[str]) -> Iterator[Item]:
    for row, sources in _merged(tables, lambda row: row["path"]):
        if entry := fitting(catalog, row["path"], row["label"], left_out):
            yield Item(UNLIKE, (entry.path,), ("",), {"closeness": float(row["closeness"]), "folders": sources})


def _rejects(catalog: Catalog) -> Iterator[Item]:
    for entry in catalog.entries.values():
        if entry.reason in CONVERTIBLE:
            yield Item(REJECTS, (entry.path,), ("",), {"reason": entry.reason})
