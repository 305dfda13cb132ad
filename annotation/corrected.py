"""Applies corrections to the files of a data set."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from annotation import corrections
from annotation.corrections import DROP, KEEP, RELABEL, Correction
from annotation.store import Store
from system.files import file_digest
from system.settings import Settings


class Corrections:
    """The corrections of a data set, and what became of them.

    Attributes:
        counts: Action -> corrections applied.
        unused: Path and reason of each that was not applied.
        conflicts: A sentence for each image that people decided differently about.
    """

    def __init__(self, settings: Settings, class_names: Sequence[str]):
        self.data_dir = Path(settings.data_dir)
        rows = corrections.read(settings.lists, self.data_dir, class_names)
        self.rows, self.conflicts = corrections.current(rows)
        self.counts: Counter[str] = Counter()
        self.unused: list[str] = []

    def apply_keeps(self, store: Store) -> None:
        """Lets in what a person keeps although it is not stored as RGB; before copies are searched."""
        for row in self._fitting(store, KEEP):
            changed = "outcome = '', class_before = ''"
            store.sql(f"UPDATE image SET {changed} WHERE path = ? AND outcome <> ''", (row.path.encode(),))

    def apply(self, store: Store) -> None:
        """Relabels and drops; after the splits are made, so that no other image moves because of it."""
        for row in self._fitting(store, RELABEL):
            changed = "class_before = class, class = ?"
            store.sql(f"UPDATE image SET {changed} WHERE path = ?", (row.class_name, row.path.encode()))
        for row in self._fitting(store, DROP):
            why = "; ".join(filter(None, (f"dropped by {row.who or 'a correction'}", row.why)))
            changed = "class_before = class, outcome = 'dropped', dropped = ?"
            store.sql(f"UPDATE image SET {changed} WHERE path = ?", (why, row.path.encode()))

    def _fitting(self, store: Store, action: str) -> Iterable[Correction]:
        """Yields the corrections of an action whose image is there and unchanged; counts them, and notes the others."""
        for path, row in sorted(self.rows.items()):
            if row.action != action:
                continue
            if fault := self._misfit(store, row):
                self.unused.append(f"{path} {fault}")
            else:
                self.counts[action] += 1
                yield row

    def _misfit(self, store: Store, row: Correction) -> str:
        find = "SELECT outcome, outcome = non_rgb FROM image WHERE path = ?"
        outcome, is_convertible = store.sql(find, (row.path.encode(),)).fetchone() or (None, False)
        if outcome is None:
            return "is not there"
        if outcome and not (row.action == KEEP and is_convertible):
            return f"is left out ({outcome})"
        if row.digest and row.digest.lower() != file_digest(self.data_dir / row.path):
            return "has changed since"
        return ""
