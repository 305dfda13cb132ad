"""Groups: images of one patient, clip or burst are never divided, and what was given divided is said."""

import sqlite3
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import annotate
import config
from annotation import groups, splits
from annotation.layout import Layout
from annotation.store import TABLES, Store
from system.errors import UserError


def store_of(images: list[tuple[str, str, int | None]], split: str = "all") -> Store:
    """A store of images that were never on a disk: class, path below it, copy group."""
    store = Store(sqlite3.connect(":memory:"))
    store.connection.executescript(TABLES)
    store.connection.executemany(
        """INSERT INTO image(path, folder_split, class, split, outcome, copy_group) VALUES(?, ?, ?, 'train', '', ?)""",
        [(f"{name}/{path}".encode(), split, name, copies) for name, path, copies in images],
    )
    return store


def layout(folder: str = "") -> Layout:
    return Layout(Path("data"), {"all": folder}, ["a", "b", "c"], False, [])


def lists(store: Store) -> dict[str, str]:
    return {path.decode(): split for path, split in store.sql("SELECT path, split FROM image")}


# Class, patient, number within it, and whether it is a copy of others.
IMAGES = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 12), st.integers(0, 40), st.sampled_from([None, 7, 8])),
    min_size=1, max_size=120, unique_by=lambda one: one[:3],
)  # fmt: skip


@given(IMAGES, st.floats(0.05, 0.4), st.floats(0.05, 0.4), st.integers(0, 5))
def test_no_group_and_no_copies_are_divided(images, valid, test, seed):
    """Guards against a patient whose images are in train and in test, in whichever classes they are."""
    store = store_of([(name, f"p{patient:02}/{number}.jpg", copies) for name, patient, number, copies in images])
    groups.assign(store, layout(), "folder")
    splits.decide_splits(store, {"valid": valid, "test": test}, seed)
    assert splits.leaks(store, "grouped") == splits.leaks(store, "copy_group") == {}
    sizes = Counter(name for name, *_ in images)
    kept = Counter(path[0] for path, split in lists(store).items() if split == "train")
    assert all(2 * kept[name] >= size or kept[name] >= size - 2 - (valid + test) * size for name, size in sizes.items())


def test_groups_that_are_all_larger_than_a_split_make_one(monkeypatch):
    """Guards against an empty valid list because every clip is longer than a tenth of its class."""
    images = [(name, f"clip{clip}/{n}.jpg", None) for name in "ab" for clip in range(8) for n in range(10 + clip)]
    store = store_of(images)
    groups.assign(store, layout(), r"clip\d+/")
    splits.decide_splits(store, {"valid": 0.05, "test": 0.05}, 1)
    found = {(split, path.split("/")[1]) for path, split in lists(store).items()}
    # The shortest clips; a name that is the same in both classes is one group.
    assert {name for split, name in found if split == "valid"} == {"clip0"}
    assert {name for split, name in found if split == "test"} == {"clip1"}


def test_without_groups_the_splits_are_what_they_were():
    """Guards against lists that change for everybody because some group their images."""
    images = [(name, f"{number}.jpg", None) for name in "ab" for number in range(50)]
    one, other = store_of(images), store_of(images)
    groups.assign(one, layout(), "none")
    groups.assign(other, layout(), r"b/9.*")
    for store in (one, other):
        splits.decide_splits(store, {"valid": 0.1, "test": 0.2}, 3)
    counts = Counter((path[0], split) for path, split in lists(one).items())
    assert counts == {(name, split): n for name in "ab" for split, n in (("train", 35), ("valid", 5), ("test", 10))}
    assert {path: split for path, split in lists(other).items() if path[0] == "a"} == {
        path: split for path, split in lists(one).items() if path[0] == "a"
    }


@pytest.mark.parametrize(
    "group_by, path, expected",
    [
        ("folder", "p1/x.jpg", "p1"), ("folder", "p1/day 2/x.jpg", "p1"), ("folder", "x.jpg", None),
        (r"patient(\d+)", "patient12_3.jpg", "12"), (r"IMG_\d{8}", "IMG_20260101_1.jpg", "IMG_20260101"),
        (r"^a/(?:s(\d)|t(\d))", "t4.jpg", "4"), ("没有", "x.jpg", None),
    ],
)  # fmt: skip
def test_the_group_is_a_part_of_the_path(group_by, path, expected):
    """Guards against a group of another part of the path than the one that was named."""
    assert groups.rule(group_by)(f"a/{path}", path) == expected


def test_a_pattern_that_is_none_is_refused():
    """Guards against a traceback of Python's regular expressions."""
    for text in ("(", "*", "a{99999999999}", "(?P<a>.)(?P<a>.)"):
        with pytest.raises(UserError, match=r"group_by=.*must be none, folder or a regular expression"):
            config.load(None, [f"group_by={text}"])


def write(data: Path, names: list[str]) -> None:
    for shade, name in enumerate(names):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        image = Image.effect_noise((40, 40), 90 + shade).convert("RGB")
        image.save(data / name)


def test_groups_across_given_splits_are_a_leak(tmp_path, call):
    """Guards against a patient in train and in test that nobody hears of."""
    data = tmp_path / "data"
    write(data, [f"{split}/{name}/p{p}_{n}.png" for split, p in (("train", 1), ("train", 2), ("valid", 2), ("test", 3))
                 for name in "ab" for n in range(3)])  # fmt: skip
    arguments = [f"data_dir={data}", r"group_by=/(p\d)_", "scan_workers=1"]
    ended = call(annotate, *arguments)
    assert ended.status == 0 and "3 groups" in ended.out
    assert "leak: 6 of 6 valid images have one of their group in train (p2)" in ended.out
    ended = call(annotate, *arguments, "on_leak=drop_from_train")
    assert len((data / "train.txt").read_text().splitlines()) == 6 and "leak" in (data / "rejects.tsv").read_text()
    call(annotate, *arguments, "on_leak=error").refused("6 valid images have one of their group in train (p2)")
    # Another grouping decides again; one that groups nothing is a mistake.
    assert "leak" not in call(annotate, *arguments[:1], "scan_workers=1").out
    call(annotate, *arguments[:1], "group_by=folder", "scan_workers=1").refused(
        "no image is in a group", "group_by=none"
    )


@pytest.mark.effect("group_by")
def test_images_in_no_group_are_said(tmp_path, call):
    """Guards against a pattern that misses half of the images without a word."""
    data = tmp_path / "data"
    write(data, [f"{name}/{group}{n}.png" for name in "ab" for group in ("s1_", "s2_", "other") for n in range(4)])
    ended = call(annotate, f"data_dir={data}", r"group_by=s\d", "scan_workers=1")
    assert "group_by=s\\d: 2 groups; 8 images are in none and stand alone" in ended.out
