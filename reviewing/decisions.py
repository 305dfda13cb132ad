"""Decisions: what corrections.tsv says by now, and what the page adds to it."""

import datetime
import os
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from annotation import corrections
from annotation.corrections import ACTIONS, DROP, KEEP, RELABEL, UNDO, Correction
from annotation.names import CORRECTIONS
from imaging.images import ImageError, read_file
from reviewing.catalog import Catalog
from reviewing.rendering import sha256
from system.files import file_digest

# Decisions that one page can take back.
MOST_UNDONE = 1000
DONE = {RELABEL: "relabelled", DROP: "dropped", KEEP: "kept"}


class DecisionError(Exception):
    """A decision that was not written; the page says why.

    Attributes:
        code: Why, as the page's texts name it.
        paths: The images that it concerns; empty: all.
        detail: What else is known.
    """

    def __init__(self, code: str, paths: Sequence[str] = (), detail: str = ""):
        super().__init__(code)
        self.code, self.paths, self.detail = code, list(paths), detail


@dataclass(frozen=True)
class Choice:
    """What a person decides about one image.

    Attributes:
        path: Of the image, below the data folder.
        digest: SHA-256 of the file that was shown.
        action: One of corrections.ACTIONS.
        class_name: The new class where the action is relabel.
    """

    path: str
    digest: str
    action: str
    class_name: str = ""


class Decisions:
    """The corrections of a data set. The file is the truth: it is read again whenever it has changed.

    Attributes:
        active: Path -> the correction that counts, where its image is as it was when it was decided on.
        version: Number of changes so far.
        written: The rows that were appended here.
    """

    def __init__(self, catalog: Catalog, who: str):
        self.catalog, self.who = catalog, who
        self.file: Path = catalog.lists / CORRECTIONS
        self.active: dict[str, Correction] = {}
        self.written: list[Correction] = []
        self._fits: dict[tuple[str, str], bool] = {}
        self._log: list[str] = []
        self._undoable: dict[str, list[list[tuple[Correction | None, Correction]]]] = {}
        self._signature: tuple[int, ...] | None = None
        # Requests are answered in threads.
        self._lock = threading.RLock()
        self.refresh()
        self._log.clear()
        self._at_first = set(self.active)

    @property
    def version(self) -> int:
        """Number of changes so far."""
        return len(self._log)

    def refresh(self) -> None:
        """Reads the file again if it has changed.

        Raises:
            UserError: It cannot be read, or a row is malformed.
        """
        with self._lock:
            signature = self._stat()
            if signature == self._signature:
                return
            rows = corrections.read(self.catalog.lists, self.catalog.data_dir, self.catalog.class_names)
            last, _ = corrections.current(rows)
            now = {path: row for path, row in last.items() if self._applies(path, row)}
            changed = {path for path in now.keys() | self.active.keys() if now.get(path) != self.active.get(path)}
            self.active, self._signature = now, signature
            self._log += sorted(changed)

    def _stat(self) -> tuple[int, ...]:
        """Inode, size and time of the file; empty where there is none."""
        try:
            status = os.stat(self.file)
        except OSError:
            return ()
        return status.st_ino, status.st_size, status.st_mtime_ns

    def _applies(self, path: str, row: Correction) -> bool:
        """Whether the image of a correction is there, with the bytes that were decided on."""
        key = path, row.digest
        if key not in self._fits:
            entry = self.catalog.decided(path)
            self._fits[key] = bool(
                entry and os.path.isfile(entry.file)
                and (not row.digest or file_digest(entry.file) == row.digest.lower())
            )  # fmt: skip
        return self._fits[key]

    def changed_since(self, version: int) -> list[str]:
        """Paths whose decision has changed after a version, each once."""
        with self._lock:
            return list(dict.fromkeys(self._log[max(0, version) :]))

    def decide(self, choices: Sequence[Choice], version: int, page: str) -> None:
        """Appends decisions: all or none.

        Args:
            version: What the page knew; what was decided elsewhere since then is not overwritten.
            page: Whose decisions these are, for `undo`.

        Raises:
            DecisionError: An image has changed, has gone or was decided elsewhere, or the file cannot be written.
            UserError: corrections.tsv is malformed by now.
        """
        with self._lock:
            self.refresh()
            if elsewhere := sorted({choice.path for choice in choices} & set(self.changed_since(version))):
                raise DecisionError("elsewhere", elsewhere)
            for choice in choices:
                if choice.action not in ACTIONS or (choice.action == RELABEL) != bool(choice.class_name):
                    raise DecisionError("malformed", [choice.path])
                if choice.class_name and choice.class_name not in self.catalog.class_names:
                    raise DecisionError("malformed", [choice.path], choice.class_name)
            if changed := [choice.path for choice in choices if not self._is_as_shown(choice)]:
                raise DecisionError("changed", changed)
            self._append([self._row(choice) for choice in choices], page)

    def _is_as_shown(self, choice: Choice) -> bool:
        if choice.action == UNDO:
            return True
        entry = self.catalog.decided(choice.path)
        try:
            return entry is not None and sha256(read_file(entry.file)) == choice.digest
        except ImageError:
            return False

    def _row(self, choice: Choice) -> Correction:
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        action, class_name = choice.action, choice.class_name
        entry = self.catalog.entries.get(choice.path)
        if action == KEEP and entry and entry.is_corrected and entry.label:
            # Its label is right, and that is the one of an earlier correction: `keep` would be the folder's.
            action, class_name = RELABEL, entry.label
        return Correction(choice.path, choice.digest, action, class_name, self.who, now)

    def _append(self, rows: list[Correction], page: str = "") -> None:
        before, known = [self.active.get(row.path) for row in rows], self._signature
        try:
            added = corrections.append(self.catalog.lists, rows)
        except OSError as error:
            raise DecisionError("unwritable", detail=error.strerror or str(error)) from None
        self.written += rows
        for row in rows:
            self._fits[row.path, row.digest] = True
        if known and (signature := self._stat())[:2] == (known[0], known[1] + added):
            # Nobody else has appended meanwhile: thousands of rows need not be read again.
            self._take(rows, signature)
        else:
            self.refresh()
        if page:
            batches = self._undoable.setdefault(page, [])
            batches.append(list(zip(before, rows, strict=True)))
            del batches[:-MOST_UNDONE]

    def _take(self, rows: Sequence[Correction], signature: tuple[int, ...]) -> None:
        now = dict(self.active)
        for row in rows:
            now.pop(row.path, None)
            if row.action != UNDO:
                now[row.path] = row
        self.active, self._signature = now, signature
        self._log += dict.fromkeys(row.path for row in rows)

    def undo(self, page: str) -> list[str]:
        """Takes back what a page decided last: the decision before it counts again.

        Returns:
            The paths; empty: there was nothing to take back.

        Raises:
            DecisionError: Some of these images were decided elsewhere since, or the file cannot be written.
            UserError: corrections.tsv is malformed by now.
        """
        with self._lock:
            self.refresh()
            batches = self._undoable.get(page, [])
            if not batches:
                return []
            batch = batches[-1]
            elsewhere = [made.path for _, made in batch if not _still(self.active.get(made.path), made)]
            if elsewhere:
                batches.pop()
                raise DecisionError("not_undone", elsewhere)
            rows = [self._row(Choice(made.path, made.digest, UNDO)) for _, made in batch]
            # What counted before is written again as it was, with its person and time.
            self._append(rows + [before for before, _ in batch if before])
            batches.pop()
            return [made.path for _, made in batch]

    def summary(self) -> str:
        """What was decided here, in words; what was undone at once does not count."""
        made, _ = corrections.current(self.written)
        counts = Counter(row.action for row in made.values())
        taken_back = len({row.path for row in self.written if row.path in self._at_first} - made.keys())
        parts = [f"{counts[action]} {name}" for action, name in DONE.items() if counts[action]]
        parts += [f"{taken_back} taken back"] if taken_back else []
        return ", ".join(parts) or "nothing"


def _still(now: Correction | None, made: Correction) -> bool:
    return now is None if made.action == UNDO else now == made
