"""Decisions: which files are kept, which split each belongs to, and the counts of a run."""

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from annotation.folders import WHOLE
from annotation.layout import Layout
from annotation.lists import SPLITS
from annotation.store import Store
from system.settings import Settings

MIN_TO_SPLIT = 3  # a class with fewer images stays in train


def decide_kept(store: Store, settings: Settings) -> None:
    """Sets the outcome of every file, "" (kept) or the code of why it is left out, its split and its class."""
    store.sql(
        """UPDATE image SET class = given_class, class_before = NULL, dropped = NULL,
        split = CASE folder_split WHEN ? THEN 'train' ELSE folder_split END, outcome = CASE
        WHEN reason <> '' THEN reason WHEN width * height > ? THEN 'too_large' WHEN ? THEN non_rgb ELSE '' END""",
        (WHOLE, settings.max_pixels, settings.non_rgb == "skip"),
    )


def random_key(seed: int, path: bytes) -> int:
    """Pseudo-random sort key of an image, 0 to 2**63 - 1; depends on the seed and its path, on no other image."""
    return int.from_bytes(hashlib.sha1(b"%d\0%s" % (seed, path), usedforsecurity=False).digest()[:8], "big") >> 1


def missing_splits(layout: Layout, settings: Settings) -> dict[str, float]:
    """Splits without a folder -> the fraction of the training images that each gets."""
    fractions = {"valid": settings.valid_fraction, "test": settings.test_fraction}
    return {split: fraction for split, fraction in fractions.items() if split not in layout.folders and fraction}


def decide_splits(store: Store, fractions: dict[str, float], seed: int) -> None:
    """Moves images from train into the splits that have no folder.

    Images are sorted by their random key, and the first ones of each class are moved: adding an image moves at most one
    other. Units (copies of each other, images of one group) are moved together; copies in several classes or folders
    stay in train.

    Args:
        fractions: Split -> fraction of each class's training images.
    """
    if not fractions:
        return
    store.add_function("random_key", lambda path: random_key(seed, path))
    for table in ("unit", "part", "moved"):
        store.sql(f"DROP TABLE IF EXISTS temp.{table}")
    store.sql(
        """CREATE TEMP TABLE unit AS SELECT unit, min(random_key(path)) AS key, max(grouped IS NOT NULL) AS grouped,
        min(split) = 'train' AND max(split) = 'train' AND max(coalesce(copy_group IN (SELECT copy_group FROM image
        WHERE outcome = '' GROUP BY 1 HAVING min(class) < max(class)), 0)) = 0 AS free
        FROM image WHERE outcome = '' GROUP BY 1"""
    )
    store.sql(
        """CREATE TEMP TABLE part AS SELECT unit, class, count(*) AS images, key, temp.unit.grouped FROM image
        JOIN temp.unit USING (unit) WHERE outcome = '' AND free GROUP BY 1, 2"""
    )
    sizes = dict(store.sql("SELECT class, count(*) FROM image WHERE outcome = '' AND split = 'train' GROUP BY class"))
    store.sql("CREATE TEMP TABLE moved(unit INTEGER PRIMARY KEY, split TEXT)")
    store.connection.executemany("INSERT INTO moved VALUES(?, ?)", _moves(store, sizes, fractions).items())
    store.sql("UPDATE image SET split = moved.split FROM moved WHERE image.outcome = '' AND image.unit = moved.unit")


def _moves(store: Store, sizes: dict[str, int], fractions: dict[str, float]) -> dict[int, str]:
    """Returns the split of each unit that is moved."""
    wanted = {
        split: {name: max(1, round(fraction * size)) if size >= MIN_TO_SPLIT else 0 for name, size in sizes.items()}
        for split, fraction in fractions.items()
    }
    moves: dict[int, str] = {}
    filled: dict[str, set[str]] = {split: set() for split in fractions}
    left = dict(sizes)

    def move(unit: int, images: dict[str, int], split: str) -> None:
        moves[unit] = split
        filled[split].update(images)
        for name, count in images.items():
            wanted[split][name] -= count
            left[name] -= count

    for unit, images in _units(store, "TRUE", "key, unit"):
        # A unit too large for the rest of a split goes to the next one, or stays in train.
        split = next((one for one, rest in wanted.items() if all(n <= rest[c] for c, n in images.items())), None)
        if split:
            move(unit, images, split)
    # Groups may all be larger than a split: then the smallest makes it, as long as half of each class stays.
    by_size = "(SELECT sum(images) FROM part AS whole WHERE whole.unit = part.unit), key, unit"
    for unit, images in _units(store, "grouped", by_size):
        keeps = all(2 * (left[name] - count) >= sizes[name] for name, count in images.items())
        split = next((one for one in fractions if not filled[one].issuperset(images)), None)
        if unit not in moves and keeps and split:
            move(unit, images, split)
    return moves


def _units(store: Store, condition: str, order: str) -> Iterator[tuple[int, dict[str, int]]]:
    """Yields each unit that can be moved, with its images by class."""
    rows = store.connection.cursor().execute(f"SELECT unit, class, images FROM part WHERE {condition} ORDER BY {order}")
    for unit, parts in itertools.groupby(rows, lambda row: row[0]):
        yield unit, {class_name: images for _, class_name, images in parts}


def drop_leaks(store: Store) -> None:
    """Leaves out training images that have a copy, or an image of their group, in valid or test."""
    store.sql(
        """UPDATE image SET outcome = 'leak' WHERE outcome = '' AND split = 'train' AND unit IN
        (SELECT unit FROM image WHERE outcome = '' AND split <> 'train' AND unit IS NOT NULL)"""
    )


@dataclass
class Summary:
    """Counts of a run; JSON types only, so that the store can keep them.

    Attributes:
        kept: Split -> class -> images in its list.
        left_out: Reason -> split -> class -> files.
        remarks: Code -> images in the lists.
        convertible: Images that non_rgb=convert would keep in addition.
        leaks: "test in train" and the like -> images of the first split with a copy in the second.
        copies: Kind -> images that are a copy of another one.
        conflicts: Groups of copies with more than one class.
        skipped: Kind -> files and folders that were ignored.
        files: All files of the class folders.
        made: Splits without a folder -> fraction of the training images.
        folders: Folder that holds images but is not used, relative to the data folder -> why.
        corrections: Action -> corrections applied.
        unused_corrections: Path and reason of each correction that was not applied.
        conflicting_corrections: A sentence for each image that people decided differently about.
        groups: Groups of `group_by`.
        ungrouped: Images in the lists that are in no group, where there are groups.
        divided: "test in train" and the like -> images of the first split with one of their group in the second.
        divided_groups: Names of the first groups that lie in several splits.
    """

    kept: dict[str, dict[str, int]]
    left_out: dict[str, dict[str, dict[str, int]]]
    remarks: dict[str, int]
    convertible: int
    leaks: dict[str, int]
    copies: dict[str, int]
    conflicts: int
    skipped: dict[str, int]
    files: int
    made: dict[str, float] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
    corrections: dict[str, int] = field(default_factory=dict)
    unused_corrections: list[str] = field(default_factory=list)
    conflicting_corrections: list[str] = field(default_factory=list)
    groups: int = 0
    ungrouped: int = 0
    divided: dict[str, int] = field(default_factory=dict)
    divided_groups: list[str] = field(default_factory=list)

    def total(self, split: str) -> int:
        """Counts the images of a list."""
        return sum(self.kept.get(split, {}).values())

    def reason_total(self, reason: str) -> int:
        """Counts the files left out for a reason."""
        return sum(sum(classes.values()) for classes in self.left_out.get(reason, {}).values())

    def left_out_total(self) -> int:
        """Counts the files left out."""
        return sum(self.reason_total(reason) for reason in self.left_out)

    def left_out_of(self, class_name: str) -> dict[str, int]:
        """Counts the files of a class that were left out, by reason."""
        counts = {
            reason: sum(c.get(class_name, 0) for c in splits.values()) for reason, splits in self.left_out.items()
        }
        return {reason: count for reason, count in counts.items() if count}


def summarise(store: Store, made: dict[str, float], skipped: dict[str, int]) -> Summary:
    """Counts the decisions."""
    kept: dict = {split: {} for split in SPLITS}
    left_out: dict = {}
    for outcome, split, class_name, count in store.sql(
        "SELECT outcome, split, class, count(*) FROM image GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    ):
        counts = kept if outcome == "" else left_out.setdefault(outcome, {})
        counts.setdefault(split, {})[class_name] = count
    remarks: dict = {}
    for codes, count in store.sql(
        "SELECT remarks, count(*) FROM image WHERE outcome = '' AND remarks <> '' GROUP BY 1"
    ):
        for code in codes.split(","):
            remarks[code] = remarks.get(code, 0) + count
    convertible = store.sql("SELECT count(*) FROM image WHERE outcome <> '' AND outcome = non_rgb").fetchone()[0]
    kinds = store.sql("SELECT kind, count(*) FROM image WHERE kind IS NOT NULL GROUP BY 1 ORDER BY 1").fetchall()
    conflicts = store.sql(
        """SELECT count(*) FROM (SELECT 1 FROM image WHERE copy_group IS NOT NULL AND outcome <> 'dropped'
        GROUP BY copy_group HAVING min(class) <> max(class))"""
    ).fetchone()[0]
    files = store.sql("SELECT count(*) FROM image").fetchone()[0]
    leaking = leaks(store, "copy_group")
    summary = Summary(kept, left_out, remarks, convertible, leaking, dict(kinds), conflicts, skipped, files, made)
    summary.groups = store.sql("SELECT count(DISTINCT grouped) FROM image").fetchone()[0]
    if summary.groups:
        summary.ungrouped = store.sql("SELECT count(*) FROM image WHERE outcome = '' AND grouped IS NULL").fetchone()[0]
        summary.divided = leaks(store, "grouped")
        rows = store.sql(
            """SELECT grouped FROM image WHERE outcome = '' AND grouped IS NOT NULL GROUP BY 1
            HAVING min(split) < max(split) ORDER BY 1 LIMIT 5"""
        )
        summary.divided_groups = [name for (name,) in rows]
    return summary


def leaks(store: Store, column: str = "copy_group") -> dict[str, int]:
    """Counts the listed images of one split that have a copy (or one of their group) listed in another.

    Args:
        column: What they share: copy_group or grouped.
    """
    found = {}
    for one, other in (("test", "train"), ("valid", "train"), ("test", "valid")):
        found[f"{one} in {other}"] = store.sql(
            f"""SELECT count(*) FROM image WHERE outcome = '' AND split = ? AND {column} IN
            (SELECT {column} FROM image WHERE outcome = '' AND split = ? AND {column} IS NOT NULL)""",
            (one, other),
        ).fetchone()[0]
    return {pair: count for pair, count in found.items() if count}
