"""The table of all files: one SQLite file beside the lists, so that a million files need little memory.

It keeps verdicts between runs, by path, size and times of change. During a run, decisions about files are made in SQL.
"""

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import PIL

from annotation.walk import Found
from system.errors import UserError

if TYPE_CHECKING:
    from annotation.verdicts import Verdict

NAME = ".annotate.db"
FORMAT = 5  # raise it when a column or a verdict changes its meaning: older files are then discarded
CACHE_KIBIBYTES = 32 * 1024
TABLES = """
-- JSON values by name: about (what this file belongs to), run (number of the last run), last (see rerun.py).
CREATE TABLE IF NOT EXISTS fact(name TEXT PRIMARY KEY, value TEXT);

-- One row per file of the class folders.
CREATE TABLE IF NOT EXISTS image(
    -- Written by Store.add_files, from the walk:
    id INTEGER PRIMARY KEY,
    path BLOB UNIQUE NOT NULL,  -- relative to data_dir, with /, in the bytes of the file system
    folder_split TEXT,          -- split of its folder: train, valid, test; all: there are class folders only
    given_class TEXT,           -- class of its folder, or that labels_file gives
    class TEXT,                 -- the same, or that of a correction
    size INTEGER,               -- bytes; with `changed` it shows whether the file has changed since its verdict
    changed TEXT,               -- times of change; as text: SQLite has no number for those after 2262
    run INTEGER,                -- number of the run that saw the file last; rows of files that are gone are deleted

    -- The verdict, written by Store.add_verdicts (by Store.add_files if the file cannot be opened, or has a bad name).
    -- See verdicts.Verdict.
    reason TEXT,                -- NULL: no verdict yet; '': can be decoded; else the code of why it cannot be used
    detail TEXT,
    format TEXT,
    mode TEXT,
    width INTEGER,
    height INTEGER,
    non_rgb TEXT,               -- code of why non_rgb=skip leaves it out; '': stored as RGB
    remarks TEXT,
    digest BLOB,
    phash INTEGER,
    contrast INTEGER,
    miniature BLOB,
    -- Written by copies.py only for files that need it: SHA-1 of the decoded pixels; x'': they cannot be decoded.
    pixel_digest BLOB,

    -- The decision, made in every run by splits.py, corrected.py and copies.py.
    outcome TEXT,               -- '': kept, in the list of its split; else the code of why it is left out: reason,
                                -- non_rgb or too_large under these settings, dropped or leak
    class_before TEXT,          -- class before a correction; '': it was left out; NULL: no correction
    dropped TEXT,               -- who drops it, and why
    split TEXT,                 -- train, valid or test
    copy_group INTEGER,         -- the same number for all copies of one image; NULL: there are none
    grouped TEXT,               -- name of its group, see groups.py; NULL: it stands alone
    unit INTEGER,               -- the same number for all images that stay in one split: copies, and a group's images
    copy_of INTEGER,            -- id of the image that this is a copy of; NULL: no copies, or the first of its group
    kind TEXT,                  -- same_bytes, same_pixels or near_copy; NULL with copy_of
    difference REAL             -- overlay difference from copy_of, 0 to comparison.MAX_DIFFERENCE; NULL with copy_of
);

-- Overlay differences of near-copy candidates, by the digests of both files; written by copies.py. Those above
-- comparison.MAX_DIFFERENCE are lower bounds.
CREATE TABLE IF NOT EXISTS compared(first BLOB, second BLOB, difference REAL, PRIMARY KEY(first, second)) WITHOUT ROWID;
"""
# What SQLite says of a disk or a folder, not of the file.
OF_THE_DISK = ("disk is full", "disk I/O error", "unable to open", "readonly")
# Reasons that lie outside the file (permissions, links, disk, memory) and may be gone in the next run.
TRANSIENT = "('no_permission', 'unreadable', 'missing', 'too_much_memory')"
VERDICT_COLUMNS = "reason detail format mode width height non_rgb remarks digest phash contrast miniature".split()


class Store:
    """The open file.

    Attributes:
        sql: Executes one statement.
    """

    def __init__(self, connection: sqlite3.Connection):
        self.connection = connection
        self.sql = connection.execute

    def fact(self, name: str) -> Any:
        """Returns a value that this or an earlier run has set; None if there is none."""
        row = self.sql("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
        try:
            return json.loads(row[0]) if row else None
        except (ValueError, TypeError):
            raise DamagedStore(f"{name} is not JSON") from None

    def set_fact(self, name: str, value: Any) -> None:
        """Sets a value, of JSON types."""
        self.sql("INSERT OR REPLACE INTO fact VALUES(?, ?)", (name, json.dumps(value)))

    def commit(self) -> None:
        """Commits the transaction."""
        self.connection.commit()

    def clear(self) -> None:
        """Creates all tables again, empty; those of an older format may have other columns."""
        for table in ("image", "compared", "fact"):
            self.sql(f"DROP TABLE {table}")
        self.connection.executescript(TABLES)

    def add_files(self, files: Iterable[Found]) -> None:
        """Adds the files of this run and deletes all others; new and changed files lose their verdict."""
        run = (self.fact("run") or 0) + 1
        same = "size = excluded.size AND changed = excluded.changed AND excluded.reason IS NULL"
        keep = ", ".join(
            f"{name} = CASE WHEN {same} THEN {name} ELSE NULL END" for name in (*VERDICT_COLUMNS[2:], "pixel_digest")
        )
        self.connection.executemany(
            f"""INSERT INTO image(path, folder_split, given_class, size, changed, run, reason, detail)
            VALUES(?,?,?,?,?,?,?,?)
            ON CONFLICT(path) DO UPDATE SET {keep},
            reason = CASE WHEN {same} THEN reason ELSE excluded.reason END,
            detail = CASE WHEN {same} THEN detail ELSE excluded.detail END,
            folder_split = excluded.folder_split, given_class = excluded.given_class,
            size = excluded.size, changed = excluded.changed, run = excluded.run""",
            ((f.path, f.split, f.class_name, f.size, f.changed, run, f.reason or None, f.detail) for f in files),
        )
        self.sql("DELETE FROM image WHERE run <> ?", (run,))
        self.set_fact("run", run)

    def reset_verdicts(self, max_pixels: int) -> None:
        """Removes verdicts that may have changed although the file has not: another limit, or a transient failure."""
        self.sql(
            f"""UPDATE image SET reason = NULL WHERE reason IN {TRANSIENT}
            OR (reason = 'too_large' AND width * height <= ?)""",
            (max_pixels,),
        )

    def transient_failures(self) -> int:
        """Counts the files that may be readable in the next run without being changed."""
        return self.sql(f"SELECT count(*) FROM image WHERE reason IN {TRANSIENT}").fetchone()[0]

    def count_unverified(self) -> int:
        """Counts the files without a verdict."""
        return self.sql("SELECT count(*) FROM image WHERE reason IS NULL").fetchone()[0]

    def unverified_batches(self, max_files: int, max_bytes: int) -> Iterator[list[tuple[int, bytes]]]:
        """Yields the files without a verdict as (id, path), in batches that end at max_files or max_bytes."""
        batch: list[tuple[int, bytes]] = []
        filled, last = 0, 0
        while rows := self.sql(
            "SELECT id, path, size FROM image WHERE reason IS NULL AND id > ? ORDER BY id LIMIT 4096", (last,)
        ).fetchall():
            last = rows[-1][0]
            for image_id, path, size in rows:
                batch.append((image_id, path))
                filled += size
                if len(batch) >= max_files or filled >= max_bytes:
                    yield batch
                    batch, filled = [], 0
        if batch:
            yield batch

    def add_verdicts(self, rows: Iterable[tuple[int, "Verdict"]]) -> None:
        """Stores verdicts, given as (id, verdict)."""
        columns, values = ", ".join(f"{name} = ?" for name in VERDICT_COLUMNS), attrgetter(*VERDICT_COLUMNS)
        self.connection.executemany(
            f"UPDATE image SET {columns} WHERE id = ?",
            ((*values(verdict), image_id) for image_id, verdict in rows),
        )

    def add_function(self, name: str, function: Callable[[bytes], int]) -> None:
        """Makes a function of one argument callable from SQL."""
        self.connection.create_function(name, 1, function, deterministic=True)


class DamagedStore(Exception):  # noqa: N818 - an event: the store has to be begun again
    """The file is no store, or a part of it is damaged."""


@contextmanager
def open_store(folder: Path, data_dir: Path, fresh: bool) -> Iterator[Store]:
    """Opens the store of a lists folder; one process at a time can.

    Args:
        fresh: Removes the file of earlier runs, whatever it contains.

    Raises:
        UserError: Another process has it open, the disk is full, or the folder cannot be written to.
        DamagedStore: It is damaged; opened with `fresh` it is begun again.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be created ({error.strerror}); set lists_dir to a folder of yours") from None
    with (
        _errors_said(folder),
        contextlib.closing(_begin(folder / NAME) if fresh else _connect(folder / NAME)) as opened,
    ):
        store = Store(opened)
        # A store inside the data folder may be moved with it; elsewhere it belongs to that data folder's path.
        inside = os.path.realpath(folder) == os.path.realpath(data_dir)
        about = [FORMAT, PIL.__version__, "." if inside else os.path.realpath(data_dir)]
        if fresh or store.fact("about") != about:
            store.clear()
            store.set_fact("about", about)
            store.commit()
        yield store


@contextmanager
def _errors_said(folder: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        # SQLite's texts are constant; its error codes are only known from Python 3.11 on.
        text = str(error)
        if "locked" in text:
            raise UserError(f"{folder}: another annotate.py is running here; wait until it has ended") from None
        if any(fault in text for fault in OF_THE_DISK):
            remedy = "make room on the disk, or set lists_dir to a folder of yours"
            raise UserError(f"{folder}: cannot be written to ({text}); {remedy}") from None
        raise DamagedStore(text) from error


def _begin(file: Path) -> sqlite3.Connection:
    """Removes the store and opens a new one, unless another process has it open."""
    try:
        _connect(file).close()
    except sqlite3.Error as error:
        if "locked" in str(error):
            raise
    try:
        for part in (file, *(file.with_name(file.name + end) for end in ("-wal", "-shm", "-journal"))):
            part.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{file}: cannot be removed ({error.strerror}); remove it") from None
    return _connect(file)


def _connect(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=0.2)
    try:
        # The lock is held until the connection is closed or the process ends.
        for setting in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=NORMAL", "temp_store=FILE"):
            connection.execute(f"PRAGMA {setting}")
        connection.execute(f"PRAGMA cache_size=-{CACHE_KIBIBYTES}")
        connection.executescript(TABLES)
        connection.execute("BEGIN IMMEDIATE")
        connection.commit()
        return connection
    except sqlite3.DatabaseError:
        connection.close()
        raise
