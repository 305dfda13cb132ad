"""Lists and labels: what is written is read back, and errors name the line."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from annotation.lists import name_fault, read_labels, read_list, write_list
from system.errors import UserError
from system.publishing import write_text

names = st.text(min_size=1, max_size=30)


@given(st.sets(names, min_size=1, max_size=8))
@example({"a\x0cb", "a\x85b", "a\u2028b", " a ", "中文 名.jpg", "a\\b", '"q"', "#x"})
def test_every_name_is_read_back_or_refused(tmp_path_factory, paths):
    """Guards against a list that cuts, trims or loses a file name."""
    file = tmp_path_factory.mktemp("lists") / "train.txt"
    rows = [(path, index % 3) for index, path in enumerate(sorted(paths))]
    wrong = [path for path in paths if name_fault(path)]
    if wrong:
        with pytest.raises(UserError):
            write_list(file, rows)
        assert not file.exists()
        return
    write_list(file, rows)
    written = file.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    assert [tuple(line.rsplit("\t", 1)) for line in written] == [(path, str(label)) for path, label in sorted(rows)]


@given(st.lists(names, min_size=1, max_size=8, unique=True))
def test_labels_are_read_back_or_refused(tmp_path_factory, class_names):
    """Guards against class ids that shift because a name was split or dropped."""
    file = tmp_path_factory.mktemp("lists") / "labels.txt"
    if any(name_fault(name) for name in class_names):
        return
    write_text(file, "".join(f"{name}\n" for name in class_names))
    assert read_labels(file) == class_names


def test_a_list_of_the_public_notebook_is_read(tmp_path, monkeypatch):
    """Guards against refusing the zodiac lists: forward slashes, a tab, CRLF or LF, with or without a last line end."""
    monkeypatch.chdir(tmp_path)
    Path("signs/train/rabbit").mkdir(parents=True)
    for name in ("00000132.jpg", "b c.JPG"):
        Path("signs/train/rabbit", name).touch()
    for text in (
        "signs/train/rabbit/00000132.jpg\t3\nsigns/train/rabbit/b c.JPG\t3",
        "signs/train/rabbit/00000132.jpg\t3\r\n",
    ):
        Path("signs/train.txt").write_bytes(text.encode())
        assert {sample.label for sample in read_list("signs/train.txt", 12)} == {3}
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert read_list("../signs/train.txt", 12)[0].file.is_file()


@pytest.mark.parametrize(
    "text, message",
    [
        ("a.jpg 0\n", "line 1 is not PATH<TAB>INDEX"),
        ("a.jpg\t0\na.jpg\t2\n", "line 2 has index '2', not 0 to 1"),
        ("a.jpg\t-1\n", "line 1 has index '-1'"),
        ("gone.jpg\t0\n", "gone.jpg is missing"),
        ("", "no image is listed"),
    ],
)
def test_wrong_lines_are_named(tmp_path, text, message):
    """Guards against a list that is half read, or an error that does not say where."""
    (tmp_path / "a.jpg").touch()
    (tmp_path / "train.txt").write_text(text)
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        read_list(tmp_path / "train.txt", 2)


def test_wrong_labels_are_named(tmp_path):
    """Guards against two ids for one class."""
    file = tmp_path / "labels.txt"
    for text, message in (("a\nb\na\n", "line 3 repeats a"), ("a\n\nb\n", "line 2 is blank"), ("", "no class")):
        file.write_text(text)
        with pytest.raises(UserError, match=message):
            read_labels(file)
    file.write_bytes(b"\xff\n")
    with pytest.raises(UserError, match="not UTF-8"):
        read_labels(file)
