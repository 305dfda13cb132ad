"""Folders: every folder that holds images is used, or named as left out."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, example, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from PIL import Image

import annotate
import config
from annotation.folders import SPLIT_NAMES
from annotation.layout import find_layout, sort_classes
from annotation.lists import name_fault
from system.errors import UserError

SPLIT_WORDS = [(split, name) for split, names in SPLIT_NAMES.items() for name in names]
folder_names = st.text(st.characters(codec="utf-8", exclude_characters="/\\\0\t\n\r"), min_size=1, max_size=8).filter(
    lambda name: name.strip(" .") and not name.startswith("\ufeff")
)


def make(root: Path, *places: str) -> Path:
    """Puts an image into every place."""
    for number, place in enumerate(places):
        (root / place).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 12), (number * 20 % 256, number * 50 % 256, 90)).save(root / place / f"{number}.png")
    return root


def settings(data: Path):
    return config.load(None, [f"data_dir={data}", "duplicates=none", "scan_workers=1"])


def spelled(name: str, upper: list[bool]) -> str:
    return "".join(c.upper() if up else c for c, up in zip(name, upper, strict=False)) + name[len(upper) :]


@examples(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(SPLIT_WORDS), st.lists(st.booleans(), max_size=10))
def test_a_splits_name_is_known_in_any_case(tmp_path_factory, word, upper):
    """Guards against a split that lies there without a word while another is cut out of train."""
    split, name = word
    name = spelled(name, upper)
    others = {"train": "train", "valid": "val", "test": "test"} | {split: name}
    data = make(tmp_path_factory.mktemp("d"), *(f"{one}/{c}" for one in others.values() for c in "ab"))
    layout = find_layout(settings(data))
    assert layout.folders == others and layout.left_out == {}
    if name != split:
        assert any(f"{name} is taken as {split}" in note for note in layout.notes)


@pytest.mark.parametrize("split", SPLIT_NAMES)
def test_two_folders_of_one_split_are_refused(tmp_path, split):
    """Guards against images left out because another folder of the split was found first."""
    one, other = SPLIT_NAMES[split][0], SPLIT_NAMES[split][-1].upper()
    data = make(tmp_path, *(f"{name}/{c}" for name in {"train", one, other} for c in "ab"))
    with pytest.raises(UserError, match="are the same split"):
        find_layout(settings(data))


@examples(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sets(folder_names, min_size=1, max_size=4), st.booleans())
@example({".22 LR", ".45 ACP", "9mm"}, False)
@example({"__MACOSX", "extra"}, True)
def test_every_folder_with_images_is_used_or_named(tmp_path_factory, names, has_splits):
    """Guards against images that are in no list, and of which nobody hears."""
    root = tmp_path_factory.mktemp("d")
    places = [f"train/{c}" for c in "ab"] if has_splits else ["a", "b"]
    try:
        data = make(root, *places, *names)
        layout = find_layout(settings(data))
    except (UserError, OSError):
        return
    used = set(layout.class_names) | set(layout.folders.values())
    assert {name for name in names if name not in used} == set(layout.left_out) - set(used)


def test_images_beside_the_splits_and_hidden_among_the_classes_are_named(tmp_path, capsys, monkeypatch):
    """Guards against a summary that leaves out a folder."""
    data = make(tmp_path, "train/a", "train/b", "extra", "train/.c", ".", "train/a/.deep")
    monkeypatch.setattr("sys.argv", ["annotate.py", f"data_dir={data}", "duplicates=none"])
    annotate.main()
    out = capsys.readouterr().out
    for name in ("extra", "train/.c", "train/a/.deep", "."):
        assert f"left out: the images in {name}: " in out
    annotate.main()
    assert "left out: the images in train/a/.deep: " in capsys.readouterr().out, "forgotten in a re-run"


@pytest.mark.parametrize("places", [("train/{}", "valid/{}"), ("Training/{}",), ("{}",)])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_an_archive_in_a_folder_of_its_own_name_is_looked_into(tmp_path, places, depth):
    """Guards against one class, named like the archive, that holds every split."""
    inner = "/".join(["set"] * depth)
    data = make(tmp_path / "set", *(f"{inner}/{place.format(c)}" for place in places for c in ("cat", "dog")))
    make(data, "__MACOSX/set")
    (data / "README.txt").write_text("about")
    summary, layout, _ = annotate.annotate(settings(data))
    assert layout.class_names == ["cat", "dog"] and summary.files == 2 * len(places)
    assert any("is taken as the data folder" in note for note in layout.notes)
    assert annotate.annotate(settings(data))[1].folders == layout.folders, "labels.txt changed what is taken"


@pytest.mark.parametrize("places", [("cat/train", "cat/test", "dog/train"), ("one/Train/cat", "two/Train/cat")])
def test_splits_below_classes_are_refused(tmp_path, places):
    """Guards against splits that are joined and split again."""
    with pytest.raises(UserError, match="folder of a split below another folder"):
        find_layout(settings(make(tmp_path, *places)))


@given(st.lists(st.integers(-(10**6), 10**30), unique=True, min_size=1))
def test_numeric_classes_sort_by_number(numbers):
    """Guards against class 10 before class 2."""
    assert sort_classes(map(str, numbers)) == [str(number) for number in sorted(numbers)]
    assert sort_classes([*map(str, numbers), "x"]) == sorted([*map(str, numbers), "x"])


def test_an_existing_label_map_keeps_its_order(tmp_path):
    """Guards against classes renumbered where labels.txt was written by an earlier release."""
    data = make(tmp_path, "1", "2", "10")
    assert find_layout(settings(data)).class_names == ["1", "2", "10"]
    (data / "labels.txt").write_text("1\n10\n2\n")
    assert find_layout(settings(data)).class_names == ["1", "10", "2"]


@examples(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(folder_names, st.sampled_from(["NFC", "NFD", "upper", "space"]))
@example("caf\u00e9", "NFD")
@example("cat", "upper")
@example("cat", "space")
def test_names_that_look_alike_are_said(tmp_path_factory, name, how):
    """Guards against two classes of one name, and against `caf\u00e9 is missing; caf\u00e9 is no class of train`."""
    assume(not name.startswith(".") and name != "tea" and not name_fault(name))
    other = {"upper": name.upper(), "space": name + " "}.get(how) or unicodedata.normalize(how, name)
    assume(other != name and other.casefold() != "tea")
    root = tmp_path_factory.mktemp("d")
    try:
        one = make(root / "one", name, other, "tea")
        across = make(root / "two", f"train/{name}", "train/tea", f"valid/{other}", "valid/tea")
    except OSError:  # this file system does not take these characters
        return
    assume(len(list(one.iterdir())) == 3)
    with pytest.raises(UserError, match="Unicode form"):
        find_layout(settings(across))
    try:
        assert any("Unicode form" in note for note in find_layout(settings(one)).notes)
        assert how == "upper"
    except UserError as error:
        assert "Unicode form" in str(error)
    (one / "labels.txt").write_text(f"{name}\n{other}\ntea\n", encoding="utf-8", newline="\n")
    assert len(find_layout(settings(one)).class_names) == 3
