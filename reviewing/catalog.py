"""The images that can be decided on: those of the lists and of rejects.tsv, by their path below the data folder."""

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from annotation.lists import LABELS, SPLITS, read_changes, read_labels, read_samples
from annotation.names import REJECTS
from reviewing.tables import read_table, unescape
from system.errors import UserError
from system.settings import Settings

ANNOTATE = "run `python annotate.py` again"


@dataclass(frozen=True)
class Entry:
    """One image.

    Attributes:
        path: Relative to the data folder, with `/`.
        file: Where it is.
        split: Its list, or the one that it would be in; "": unknown.
        label: Name of its class; "": unknown.
        reason: Why it is in no list, as in rejects.tsv; "": it is in one.
        detail: The same in words.
        is_corrected: Whether the label is that of a correction, not of the folder.
    """

    path: str
    file: Path
    split: str = ""
    label: str = ""
    reason: str = ""
    detail: str = ""
    is_corrected: bool = False


class Catalog:
    """All images, and how the paths of tables are found among them.

    Attributes:
        class_names: The label map.
        entries: Path below the data folder -> image.
        outside: Number of listed images that lie in no data folder, so that no correction can name them.
    """

    def __init__(self, settings: Settings):
        self.data_dir, self.lists = Path(settings.data_dir), settings.lists
        prefix = self.data_dir.as_posix()
        self._prefix = "" if prefix == "." else prefix.rstrip("/") + "/"
        self.class_names = read_labels(self.lists / LABELS)
        self.entries: dict[str, Entry] = {}
        self.outside = 0
        self._read_rejects()
        for split in SPLITS:
            if (file := self.lists / f"{split}.txt").is_file() and file.stat().st_size:
                self._read_list(settings, split)
        if not self.listed:
            raise UserError(f"{self.lists}: no image is listed there; {ANNOTATE}")

    @property
    def listed(self) -> list[Entry]:
        """The images that are in a list."""
        return [entry for entry in self.entries.values() if not entry.reason]

    def _read_list(self, settings: Settings, split: str) -> None:
        changes = read_changes(settings, split, self.class_names)
        relabelled = {change.path for change in changes if change.before != change.label}
        for sample in read_samples(settings, split, len(self.class_names)):
            path = self._below(sample.path, sample.file)
            if path is None:
                self.outside += 1
            else:
                label = self.class_names[sample.label]
                is_corrected = sample.path in relabelled
                self.entries[path] = Entry(path, sample.file, split, label, is_corrected=is_corrected)

    def _read_rejects(self) -> None:
        needed = ("path", "split", "class", "reason", "detail")
        for row in read_table(self.lists / REJECTS, needed, ANNOTATE):
            if path := self._path(unescape(row["path"])):
                file = self.data_dir / path
                self.entries[path] = Entry(path, file, row["split"], row["class"], row["reason"], row["detail"])

    def find(self, written: str) -> Entry | None:
        """Finds the image that a table names as the lists do; None if it is in none of them and was not rejected."""
        path = self._path(written)
        return None if path is None else self.entries.get(path)

    def decided(self, path: str) -> Entry | None:
        """Finds the image of a correction, which may be in no list by now; None if it lies outside the data folder."""
        if path in self.entries:
            return self.entries[path]
        inside = not PurePosixPath(path).is_absolute() and ".." not in PurePosixPath(path).parts
        return Entry(path, self.data_dir / path) if inside else None

    def _path(self, written: str) -> str | None:
        """The path below the data folder of a path that begins like those of the lists."""
        if written.startswith(self._prefix):
            return written.removeprefix(self._prefix)
        # Lists that were written from another folder are found as annotation.lists finds them.
        places = (self.lists / written, self.lists.parent / written)
        return next((self._below(written, place) for place in places if os.path.isfile(place)), None)

    def _below(self, written: str, file: Path) -> str | None:
        if written.startswith(self._prefix) and not os.path.isabs(written.removeprefix(self._prefix)):
            return written.removeprefix(self._prefix)
        for spelling in (os.path.abspath, os.path.realpath):
            folder, place = os.path.join(spelling(self.data_dir), ""), spelling(file)
            if place.startswith(folder):
                return place.removeprefix(folder).replace(os.sep, "/")
        return None
