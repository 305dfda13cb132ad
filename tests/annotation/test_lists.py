"""Lists and labels: what is written is read back, and errors name the line."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from annotation.lists import (
    GROUPS,
    Sample,
    list_digest,
    name_fault,
    read_groups,
    read_labels,
    read_list,
    read_split,
    write_list,
)  # fmt: skip
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
        ("a.jpg\t0\na.jpg\t0\na.jpg\t1\n", "line 3 gives a.jpg index 1, an earlier line 0"),
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


def test_lists_that_were_copied_with_their_folder_are_refused(data, settings_for, monkeypatch):
    """Guards against data_dir=B that trains on the images of A, because B is a copy of A with A's lists."""
    assert len(read_split(settings_for("data"), "train")[0]) == 18
    shutil.copytree("data", "B")
    with pytest.raises(UserError, match=r"18 of 18 images lie outside data_dir=B .*python annotate.py data_dir=B"):
        read_split(settings_for("B"), "train")
    # Whoever names the lists gets them.
    assert len(read_split(settings_for("B", lists_dir="B"), "train")[0]) == 18
    # A link, another spelling and an absolute path are the same folder.
    Path("link").symlink_to("data", target_is_directory=True)
    for spelling in ("link", "./data/../data/", str(data.resolve())):
        assert len(read_split(settings_for(spelling), "train")[0]) == 18
    # So is a data folder whose classes lie elsewhere, behind links.
    shutil.move("data/train/ox", "oxen")
    Path("data/train/ox").symlink_to(Path("oxen").resolve(), target_is_directory=True)
    assert len(read_split(settings_for("data"), "train")[0]) == 18


def test_a_digest_tells_lists_apart(tmp_path):
    """Guards against a resumed training on other labels, or in another order, of lists that are equally long."""
    samples = [Sample(f"{number}.jpg", Path(), number % 2) for number in range(4)]
    others = [samples[::-1], samples[:3], [*samples[:3], replace(samples[3], label=0)], [samples[0], *samples[:3]]]
    digests = [list_digest(rows) for rows in (samples, *others)]
    assert len(set(digests)) == len(digests) and list_digest(list(samples)) == digests[0]


@pytest.mark.parametrize(
    ("index", "label"),
    [("0", 0), ("00", 0), ("007", 7), ("11", 11), ("0000000011", 11), (" 3 ", 3), ("12", None), ("", None),
     ("+3", None), ("3.0", None), ("\u0663", 3), ("\u00b2", None), ("9" * 5000, None), ("1e1", None)],
)  # fmt: skip
def test_an_index_is_digits_and_a_class(tmp_path, index, label):
    """Guards against an index of no class, and against digits that Python refuses, or takes for a number."""
    (tmp_path / "a.jpg").touch()
    (tmp_path / "train.txt").write_text(f"a.jpg\t{index}\n", encoding="utf-8")
    if label is None:
        with pytest.raises(UserError, match=r"line 1 has index .*, not 0 to 11"):
            read_list(tmp_path / "train.txt", 12)
    else:
        assert read_list(tmp_path / "train.txt", 12)[0].label == label
        assert label > 9 or read_list(tmp_path / "train.txt", 9)[0].label == label


def test_groups_are_those_of_the_file(data, settings_for):
    """Guards against copies that are counted as images that stand alone, and against a group of all that do."""
    samples, _ = read_split(settings_for("data"), "train")
    assert read_groups(settings_for("data"), samples) == list(range(18))
    (data / GROUPS).write_text(f"{samples[4].path}\t7\n{samples[2].path}\t7\nelsewhere.jpg\t0\n")
    found = read_groups(settings_for("data"), samples)
    assert found[4] == found[2] and len(set(found)) == 17
    (data / GROUPS).write_text("no group\n")
    with pytest.raises(UserError, match="line 1 is not PATH<TAB>GROUP"):
        read_groups(settings_for("data"), samples)
    (data / GROUPS).unlink()
    assert read_groups(settings_for("data"), samples) == list(range(18))
    with pytest.raises(UserError, match=r"groups\.tsv: no such file"):
        read_groups(settings_for("data", group_by="folder"), samples)
