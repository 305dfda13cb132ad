"""Files are replaced whole or not at all; several together are all old or all new, killed or refused at any step."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from system import publishing as module
from system.errors import UserError
from system.publishing import finish_publishing, publishing, replacing, write_text

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
    with pytest.raises(ZeroDivisionError), publishing(tmp_path) as publication:
        publication.open("a.txt").write("half")
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


NAMES = ("a.txt", "b.txt", "c.txt")
# What a process may do to a folder that holds a.txt and b.txt: replace them, remove one, add another.
PUBLISH = """
import errno, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from system import publishing
folder, left, action, refused = Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
def stepping(function):
    def call(*names, **options):
        global left
        left -= 1
        if left == -1 and action == "kill":
            os._exit(9)
        if left == -1 and action == "error":
            raise OSError(errno.EIO, "Input/output error", str(names[0]))
        if names and os.path.basename(str(names[-1])) == refused and function is not open:
            raise PermissionError(errno.EACCES, "open in another program", str(names[-1]))
        return function(*names, **options)
    return call
os.replace, os.fsync, os.link, Path.unlink = map(stepping, (os.replace, os.fsync, os.link, Path.unlink))
try:
    with publishing.publishing(folder) as publication:
        publication.open("a.txt").write("new")
        publication.remove("b.txt")
        publication.open("c.txt").write("new")
except publishing.UserError as error:
    sys.exit(str(error))
"""
OLD, FINISHED = {"a.txt": "old", "b.txt": "old"}, {"a.txt": "new", "c.txt": "new"}


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def publish(folder: Path, step: int, action: str, refused: str = "") -> subprocess.CompletedProcess:
    for path in folder.iterdir():
        path.unlink()
    for name, text in OLD.items():
        (folder / name).write_text(text)
    program = [sys.executable, "-c", PUBLISH, str(ROOT), str(folder), str(step), action, refused]
    return subprocess.run(program, check=False, capture_output=True, text=True)


@pytest.mark.parametrize("refused", ["", *NAMES])
def test_killed_at_every_step_all_files_are_old_or_all_are_new(tmp_path, refused):
    """Guards against a train list of one run beside the labels of another, whether or not a file is open elsewhere."""
    ends = []
    for step in range(60):
        ended = publish(tmp_path, step, "kill", refused)
        finish_publishing(tmp_path)
        left = {name: text for name, text in content(tmp_path).items() if not name.endswith(module.NEW)}
        assert left in (OLD, FINISHED), (step, left)
        ends.append(left)
        # The next publication removes what the killed one has left.
        with publishing(tmp_path):
            pass
        assert content(tmp_path) == left
        if ended.returncode != 9:
            break
    assert ended.returncode == bool(refused), ended.stderr
    assert ends[-1] == (OLD if refused else FINISHED) and OLD in ends and FINISHED in ends


@pytest.mark.parametrize("refused", NAMES)
def test_a_file_that_cannot_be_replaced_keeps_all_as_they_were(tmp_path, refused):
    """Guards against labels of today beside a list of yesterday, because a list was open in Excel."""
    ended = publish(tmp_path, -1, "", refused)
    assert ended.returncode == 1 and refused in ended.stderr and "open in another program" in ended.stderr
    assert content(tmp_path) == OLD


def test_an_error_at_any_step_keeps_all_old_or_makes_all_new(tmp_path):
    """Guards against a disk that fails once and leaves two halves."""
    for step in range(60):
        ended = publish(tmp_path, step, "error")
        finish_publishing(tmp_path)
        assert {n: t for n, t in content(tmp_path).items() if not n.endswith(module.NEW)} in (OLD, FINISHED), step
        if ended.returncode == 0:
            break
        assert "Traceback" not in ended.stderr, ended.stderr
    assert ended.returncode == 0


def test_a_folder_in_the_place_of_a_file_is_said(tmp_path):
    """Guards against a folder of the user's that is moved away."""
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(UserError, match=r"a\.txt: cannot be written"), publishing(tmp_path) as publication:
        publication.open("a.txt").write("new")
        publication.open("b.txt").write("new")
    assert os.listdir(tmp_path) == ["a.txt"]


def test_without_hard_links_the_old_files_are_copied(tmp_path, monkeypatch):
    """Guards against a stick or a share on which nothing can be published."""

    def no_links(*names):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    for text in ("old", "new"):
        with publishing(tmp_path) as publication:
            publication.open("a.txt").write(text)
    assert content(tmp_path) == {"a.txt": "new"}


def test_the_plan_of_an_earlier_release_is_carried_out(tmp_path):
    """Guards against lists that stay torn because the template was updated after the power cut."""
    (tmp_path / ".a.txt.1.new").write_text("new")
    (tmp_path / "a.txt").write_text("old")
    (tmp_path / module.PLAN).write_text(".a.txt.1.new\ta.txt\n")
    finish_publishing(tmp_path)
    assert content(tmp_path) == {"a.txt": "new"}


@given(st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES)))
def test_exactly_what_was_asked_for_changes(tmp_path_factory, before, opened, removed):
    """Guards against a file removed, or kept, beside those that were named."""
    folder = tmp_path_factory.mktemp("publishing")
    for name in before:
        (folder / name).write_text("old")
    with publishing(folder) as publication:
        for name in removed:
            publication.remove(name)
        for name in opened:
            publication.open(name).write("new")
    kept = dict.fromkeys(before - removed - opened, "old")
    assert content(folder) == kept | dict.fromkeys(opened, "new")


def test_a_rename_is_followed_by_a_flush_of_its_folder(tmp_path, monkeypatch):
    """Guards against a power cut that undoes a replacement, or a plan that goes before its renames are safe."""
    calls = []
    replace, sync = os.replace, module.sync_folder
    monkeypatch.setattr(os, "replace", lambda *names: (calls.append("rename"), replace(*names)))
    monkeypatch.setattr(module, "sync_folder", lambda folder: (calls.append("sync"), sync(folder)))
    write_text(tmp_path / "a.txt", "a")
    assert calls == ["rename", "sync"]
    with publishing(tmp_path) as publication:
        publication.open("b.txt").write("b")
        publication.open("c.txt").write("c")
    assert calls[2:] == ["rename", "sync", "rename", "rename", "sync"]
