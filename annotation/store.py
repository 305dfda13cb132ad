"""The scan's memory: one SQLite file beside the lists, so that nothing has to fit into ours.

It remembers verdicts by path, size and time of change, and while a run is under way it is also that run's table of
all files: what is decided for a million of them is decided in SQL.
"""

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import PIL

from annotation.walk import Found
from system.errors import UserError

if TYPE_CHECKING:
    from annotation.verdicts import Verdict

NAME = ".annotate.db"
FORMAT = 2  # raise it when verdicts come to mean something else: older memories are then forgotten
CACHE_KIBIBYTES = 32 * 1024
TABLES = """
CREATE TABLE IF NOT EXISTS fact(name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS image(
    id INTEGER PRIMARY KEY, path BLOB UNIQUE NOT NULL, folder TEXT, class TEXT, size INTEGER, mtime_ns INTEGER,
    run INTEGER,
    reason TEXT, detail TEXT, format TEXT, mode TEXT, width INTEGER, height INTEGER, non_rgb TEXT, remarks TEXT,
    digest BLOB, phash INTEGER, contrast INTEGER, mark BLOB, pixels BLOB,
    outcome TEXT, split TEXT, copies INTEGER, copy_of INTEGER, kind TEXT, difference REAL);
CREATE TABLE IF NOT EXISTS compared(first BLOB, second BLOB, difference REAL, PRIMARY KEY(first, second)) WITHOUT ROWID;
"""
# Reasons that lie outside the file: rights, links, the disk, the memory.
PASSING = "('no_permission', 'unreadable', 'missing', 'too_much_memory')"
JUDGED = "reason detail format mode width height non_rgb remarks digest phash contrast mark".split()


class Store:
    """The open file; `sql` runs a statement on it."""

    def __init__(self, connection: sqlite3.Connection):
        self.connection = connection
        self.sql = connection.execute

    def fact(self, name: str) -> Any:
        """Looks up what a former run wrote down; None for nothing."""
        row = self.sql("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
        return json.loads(row[0]) if row else None

    def set_fact(self, name: str, value: Any) -> None:
        """Writes something down for the next run."""
        self.sql("INSERT OR REPLACE INTO fact VALUES(?, ?)", (name, json.dumps(value)))

    def commit(self) -> None:
        """Makes what was written last."""
        self.connection.commit()

    def forget(self) -> None:
        """Forgets every verdict."""
        for table in ("image", "compared", "fact"):
            self.sql(f"DELETE FROM {table}")

    def note(self, files: Iterable[Found]) -> None:
        """Notes the files of this run; what is new or has changed has no verdict (reason is NULL)."""
        run = (self.fact("run") or 0) + 1
        same = "size = excluded.size AND mtime_ns = excluded.mtime_ns AND excluded.reason IS NULL"
        keep = ", ".join(f"{name} = CASE WHEN {same} THEN {name} ELSE NULL END" for name in (*JUDGED[2:], "pixels"))
        self.connection.executemany(
            f"""INSERT INTO image(path, folder, class, size, mtime_ns, run, reason, detail) VALUES(?,?,?,?,?,?,?,?)
            ON CONFLICT(path) DO UPDATE SET {keep},
            reason = CASE WHEN {same} THEN reason ELSE excluded.reason END,
            detail = CASE WHEN {same} THEN detail ELSE excluded.detail END,
            folder = excluded.folder, class = excluded.class, size = excluded.size, mtime_ns = excluded.mtime_ns,
            run = excluded.run""",
            ((f.path, f.split, f.class_name, f.size, f.mtime_ns, run, f.reason or None, f.detail) for f in files),
        )
        self.sql("DELETE FROM image WHERE run <> ?", (run,))
        self.set_fact("run", run)

    def reconsider(self, max_pixels: int) -> None:
        """Takes back verdicts that say nothing about the file as it is now: another limit, or a passing trouble."""
        self.sql(
            f"""UPDATE image SET reason = NULL WHERE reason IN {PASSING}
            OR (reason = 'too_large' AND width * height <= ?)""",
            (max_pixels,),
        )

    def passing_troubles(self) -> int:
        """Counts the files whose trouble may pass without their changing."""
        return self.sql(f"SELECT count(*) FROM image WHERE reason IN {PASSING}").fetchone()[0]

    def unjudged(self) -> int:
        """Counts the files without a verdict."""
        return self.sql("SELECT count(*) FROM image WHERE reason IS NULL").fetchone()[0]

    def unjudged_batches(self, files: int, size_bytes: int) -> Iterator[list[tuple[int, bytes]]]:
        """Cuts the files without a verdict into batches of (id, path): so many files or so many bytes at most."""
        batch, filled, last = [], 0, 0
        while rows := self.sql(
            "SELECT id, path, size FROM image WHERE reason IS NULL AND id > ? ORDER BY id LIMIT 4096", (last,)
        ).fetchall():
            last = rows[-1][0]
            for number, path, size in rows:
                batch.append((number, path))
                filled += size
                if len(batch) >= files or filled >= size_bytes:
                    yield batch
                    batch, filled = [], 0
        if batch:
            yield batch

    def remember(self, rows: Iterable[tuple[int, "Verdict"]]) -> None:
        """Writes verdicts down."""
        columns = ", ".join(f"{name} = ?" for name in JUDGED)
        self.connection.executemany(
            f"UPDATE image SET {columns} WHERE id = ?",
            ((*(getattr(verdict, name) for name in JUDGED), number) for number, verdict in rows),
        )


@contextmanager
def open_store(folder: Path, data_dir: Path, fresh: bool) -> Iterator[Store]:
    """Opens the memory of a lists folder, for one run at a time.

    Args:
        fresh: Forgets what is remembered.

    Raises:
        UserError: Another run has it, or the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        connection = _lock(folder / NAME)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror}); set lists_dir to a folder of yours") from None
    store = Store(connection)
    # A memory that lies in the data folder moves with it; elsewhere it belongs to the folder it was made for.
    inside = os.path.realpath(folder) == os.path.realpath(data_dir)
    about = [FORMAT, PIL.__version__, "." if inside else os.path.realpath(data_dir)]
    try:
        if fresh or store.fact("about") != about:
            store.forget()
            store.set_fact("about", about)
            store.commit()
        yield store
    finally:
        connection.close()


def _lock(file: Path) -> sqlite3.Connection:
    try:
        return _connect(file)
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise UserError(f"{file.parent}: another annotate.py is at work here; wait until it has ended") from None
        raise UserError(f"{file.parent}: cannot be written to ({error}); set lists_dir to a folder of yours") from None
    except sqlite3.DatabaseError:
        # A memory that a power cut spoilt holds nothing that cannot be found out again.
        file.unlink()
        return _connect(file)


def _connect(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=0.2)
    try:
        # The lock is held until the connection closes, or the process dies.
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


def sql_function(store: Store, name: str, arguments: int, function: Callable[..., Any]) -> None:
    """Lets SQL call a Python function."""
    store.connection.create_function(name, arguments, function, deterministic=True)
