"""The public zodiac lists are read unchanged, wherever the photos are."""

import os
from collections import Counter
from pathlib import Path

import draw
import pytest

from annotation.lists import read_split
from dataset import ListDataset
from imaging.transforms import EvalTransform

ROOT = Path(__file__).resolve().parent.parent
SPLITS = ("train", "valid", "test")
# Rows in the form of the public notebook's lists: not sorted, several suffixes, indices in the order of labels.txt.
ROWS = {
    "train": "signs/train/rabbit/00000132.jpg\t3\nsigns/train/ratt/00000377.jpeg\t0\nsigns/train/pig/pig12.png\t11\n",
    "valid": "signs/valid/rabbit/00000241.jpeg\t3\nsigns/valid/dragon/00000007.JPG\t4\n",
    "test": "signs/test/rabbit/krolik154.jpg\t3\nsigns/test/dog/00000011.jpg\t10",
}
SHARED = Path(os.environ.get("SHARED_DATA") or ROOT.parent / "shared" / "data") / "zodiac_lists"


def stand_in(folder: Path, lists: dict[str, str]) -> Path:
    """Creates the folders of the notebook, with one small image in place of every photo."""
    data = folder / "signs"
    data.mkdir()
    (data / "labels.txt").write_text("".join(f"{name}\n" for name in draw.CLASS_NAMES))
    image = draw.jpeg_bytes("dog", "train", 1, (32, 32), 0)
    for split, text in lists.items():
        (data / f"{split}.txt").write_bytes(text.encode())
        for line in text.splitlines():
            file = folder / line.split("\t")[0]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(image)
    return data


def check(data: Path, lists: dict[str, str], settings) -> dict[str, Counter]:
    """Reads every list and compares it row by row; returns the images of each class."""
    counts = {}
    for split, text in lists.items():
        samples, class_names = read_split(settings, split)
        rows = [line.split("\t") for line in text.splitlines()]
        assert [(sample.path, sample.label) for sample in samples] == [(path, int(index)) for path, index in rows]
        # The folder's name is the class, so the indices must be those of our labels.txt.
        assert all(class_names[sample.label] == Path(sample.path).parent.name for sample in samples)
        image, label = ListDataset(samples[:1], EvalTransform.from_settings(settings), 10**8)[0]
        assert image.shape == (3, 24, 24) and label == samples[0].label
        counts[split] = Counter(class_names[sample.label] for sample in samples)
    return counts


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("where", ["inside", "outside"])
def test_rows_of_the_public_lists_are_read_as_they_are(tmp_path, monkeypatch, settings_for, ends, where):
    """Guards against lists that users would have to rewrite."""
    lists = {split: text.replace("\n", ends) for split, text in ROWS.items()}
    data = stand_in(tmp_path, lists)
    monkeypatch.chdir(tmp_path if where == "inside" else "/")
    counts = check(data, lists, settings_for("signs" if where == "inside" else data))
    assert {split: sum(found.values()) for split, found in counts.items()} == {"train": 3, "valid": 2, "test": 2}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the public lists are not here")
def test_the_whole_public_lists_are_read(tmp_path, monkeypatch, settings_for, capsys):
    """Guards against one row among eight thousand that is different."""
    lists = {split: (SHARED / f"{split}.txt").read_bytes().decode() for split in SPLITS}
    data = stand_in(tmp_path, lists)
    monkeypatch.chdir(tmp_path)
    counts = check(data, lists, settings_for("signs"))
    with capsys.disabled():
        print(f"\n{'class':<8}" + "".join(f"{split:>7}" for split in SPLITS))
        for name in draw.CLASS_NAMES:
            print(f"{name:<8}" + "".join(f"{counts[split][name]:>7}" for split in SPLITS))
    assert {split: sum(found.values()) for split, found in counts.items()} == {"train": 7096, "valid": 639, "test": 601}
    assert all(set(found) == set(draw.CLASS_NAMES) for found in counts.values())
