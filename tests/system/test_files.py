"""Files are replaced whole or not at all, one or several together, and locks end with their holder."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from system import files
from system.errors import UserError
from system.files import HAS_LOCKS, finish_publishing, locked, publishing, replacing, write_text

ROOT = Path(__file__).resolve().parents[2]


def test_a_file_is_replaced_when_the_block_has_ended(tmp_path):
    """Guards against readers that see half a file."""
    file = tmp_path / "a.txt"
    write_text(file, "old\r\n")
    with replacing(file) as temporary:
        temporary.write_text("new")
        assert temporary.parent == tmp_path and file.read_bytes() == b"old\r\n"
    assert file.read_text() == "new" and os.listdir(tmp_path) == ["a.txt"]


def test_a_failing_block_replaces_nothing(tmp_path):
    """Guards against half-written files and leftovers after an error."""
    file = tmp_path / "a.txt"
    write_text(file, "old")
    with pytest.raises(ZeroDivisionError), replacing(file) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), publishing(tmp_path) as open_new:
        open_new("a.txt").write("half")
        raise ZeroDivisionError
    assert file.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_errors_name_the_path_and_the_callers_remedy(tmp_path):
    """Guards against advice about lists_dir where a checkpoint could not be written."""
    (tmp_path / "occupied").write_text("a file, not a folder")
    with (
        pytest.raises(UserError, match=r"occupied.*; free some space$"),
        publishing(tmp_path / "occupied", "free some space"),
    ):
        pass
    with pytest.raises(UserError, match=r"a\.txt: cannot be written .*; choose another --out$"):
        write_text(tmp_path / "occupied" / "a.txt", "text", "choose another --out")


@pytest.mark.skipif(not HAS_LOCKS, reason="this operating system has no such locks")
@pytest.mark.parametrize("kind", ["folder", "file", "missing file"])
def test_one_process_holds_a_lock(tmp_path, kind):
    """Guards against two processes that both take a path for theirs, and against locks that outlive their block."""
    path = tmp_path / "a"
    if kind == "folder":
        path.mkdir()
    elif kind == "file":
        path.write_text("content")
    with locked(path) as first, locked(path) as second:
        assert first and not second
    with locked(path) as again:
        assert again
    assert kind != "file" or path.read_text() == "content"


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from system import files
left = int(sys.argv[3])
def until_killed(function):
    def call(*arguments, **options):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call
os.replace, os.fsync, files.Path.unlink = map(until_killed, (os.replace, os.fsync, files.Path.unlink))
with files.publishing(sys.argv[2]) as open_new:
    for name in ("a.txt", "b.txt", "c.txt"):
        open_new(name).write("new")
"""


def test_killed_at_every_step_all_files_are_old_or_all_are_new(tmp_path):
    """Guards against a train list of one run beside a test list of another."""
    seen = set()
    for step in range(40):
        with publishing(tmp_path) as open_new:
            for name in ("a.txt", "b.txt", "c.txt"):
                open_new(name).write("old")
        done = subprocess.run([sys.executable, "-c", KILLED, str(ROOT), str(tmp_path), str(step)], check=False)
        finish_publishing(tmp_path)
        texts = {(tmp_path / name).read_text() for name in ("a.txt", "b.txt", "c.txt")}
        assert len(texts) == 1
        seen |= texts
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
    assert done.returncode == 0 and seen == {"old", "new"}
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "b.txt", "c.txt"]


def test_a_rename_is_followed_by_a_flush_of_its_folder(tmp_path, monkeypatch):
    """Guards against a power cut that undoes a replacement, or a plan that goes before its renames are safe."""
    calls = []
    replace, sync = os.replace, files.sync_folder
    monkeypatch.setattr(os, "replace", lambda *names: (calls.append("rename"), replace(*names)))
    monkeypatch.setattr(files, "sync_folder", lambda folder: (calls.append("sync"), sync(folder)))
    files.write_text(tmp_path / "a.txt", "a")
    assert calls == ["rename", "sync"]
    with files.publishing(tmp_path) as open_new:
        open_new("b.txt").write("b")
        open_new("c.txt").write("c")
    assert calls[2:] == ["rename", "sync", "rename", "rename", "sync"]
