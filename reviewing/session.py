"""A review: the items, the decisions, and what a page needs to know of both."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from annotation.corrections import Correction
from reviewing.catalog import Catalog, Entry
from reviewing.decisions import Decisions
from reviewing.queues import NAMES, Item, Queues


class Session:
    """The content of the page, whole and since a version.

    Args:
        catalog: All images.
        queues: What there is to decide.
        decisions: What has been decided.
    """

    def __init__(self, catalog: Catalog, queues: Queues, decisions: Decisions):
        self.catalog, self.queues, self.decisions = catalog, queues, decisions
        self._items_of: dict[str, list[int]] = defaultdict(list)
        for number, item in enumerate(queues.items):
            for path in item.images:
                self._items_of[path].append(number)

    def entry(self, path: str) -> Entry | None:
        """The image of a path; None if it is in no queue and nobody has decided on it."""
        shown = path in self._items_of or path in self.decisions.active
        return self.catalog.decided(path) if shown else None

    def is_done(self, item: Item) -> bool:
        """Whether the decisions answer an item."""
        labels = [self.catalog.entries[path].label for path in item.images]
        return item.is_done(self.decisions.active, labels)

    def left(self) -> dict[str, tuple[int, int]]:
        """Queue -> number of its items that are left, and of all; without the queues that have none."""
        found = {}
        for name in NAMES:
            items = [item for item in self.queues.items if item.queue == name]
            if items:
                found[name] = sum(not self.is_done(item) for item in items), len(items)
        return found

    def content(self) -> dict[str, Any]:
        """Everything, for a page that begins."""
        self.decisions.refresh()
        version = self.decisions.version
        paths = {path for item in self.queues.items for path in item.images} | self.decisions.active.keys()
        items = [
            {"queue": item.queue, "images": item.images, "suggested": item.suggested, "facts": item.facts,
             "done": self.is_done(item)}
            for item in self.queues.items
        ]  # fmt: skip
        return {
            "data": str(self.catalog.data_dir),
            "file": str(self.decisions.file),
            "who": self.decisions.who,
            "class_names": self.catalog.class_names,
            "queues": NAMES,
            "left_out": dict(self.queues.left_out),
            "items": items,
            "images": self._images(paths),
            "decisions": {path: _as_json(row) for path, row in self.decisions.active.items()},
            "version": version,
        }

    def changes(self, version: int) -> dict[str, Any]:
        """What has changed after a version: decisions, items that are done or not any more, images not sent before."""
        now, paths = self.decisions.version, self.decisions.changed_since(version)
        items = {number for path in paths for number in self._items_of.get(path, ())}
        active = self.decisions.active
        return {
            "version": now,
            "decisions": {path: _as_json(active[path]) if path in active else None for path in paths},
            "done": {number: self.is_done(self.queues.items[number]) for number in sorted(items)},
            "images": self._images(paths),
        }

    def _images(self, paths: Iterable[str]) -> dict[str, dict[str, str]]:
        entries = {path: self.catalog.decided(path) for path in paths}
        return {
            path: {"label": entry.label, "split": entry.split, "reason": entry.reason}
            for path, entry in entries.items()
            if entry
        }


def _as_json(row: Correction) -> dict[str, str]:
    return {"action": row.action, "class": row.class_name, "who": row.who, "when": row.when, "why": row.why}
