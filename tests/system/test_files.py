"""Locks end with their holder."""

import pytest

from system.files import HAS_LOCKS, locked


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
