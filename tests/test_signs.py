"""The included images: reproducible byte by byte with signs/draw.py, and hard enough to need a network."""

import hashlib
import importlib.metadata
import io
import re
from pathlib import Path

import draw
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
SIGNS = ROOT / "signs"
IMAGES = sorted(path for split in draw.SPLITS for path in (SIGNS / split).rglob("*.jpg"))


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pinned(package: str) -> bool:
    """Returns True if the installed release is the one that requirements.txt names."""
    releases = re.findall(rf"^{package}==([\d.]+)", (ROOT / "requirements-no-paddle.txt").read_text(), re.MULTILINE)
    return importlib.metadata.version(package) in releases[:1]


def test_the_set_is_complete():
    """Guards against images that are missing from a commit, or in no class."""
    expected = {
        f"{split}/{name}/{number:08d}.jpg"
        for split, count in draw.DEFAULT_COUNTS.items()
        for name in draw.CLASS_NAMES
        for number in range(1, count + 1)
    }
    assert {path.relative_to(SIGNS).as_posix() for path in IMAGES} == expected
    assert (SIGNS / "labels.txt").read_text().split() == list(draw.CLASS_NAMES)
    assert list(draw.CLASS_NAMES) == "ratt ox tiger rabbit dragon snake horse goat monkey rooster dog pig".split()


@pytest.mark.skipif(not (pinned("pillow") and pinned("numpy")), reason="another release may round differently")
def test_the_images_are_redrawn_byte_by_byte():
    """Guards against a drawing script that no longer draws the included images."""
    for path in IMAGES:
        split, class_name, name = path.parts[-3:]
        assert path.read_bytes() == draw.jpeg_bytes(class_name, split, int(name[:-4]), (96, 96), 0), path


def test_no_image_occurs_twice():
    """Guards against a test image in the training set: equal pixels, or equal once reduced."""
    exact, small = set(), set()
    for path in IMAGES:
        image = Image.open(path)
        assert image.mode == "RGB" and image.size == (96, 96)
        exact.add(hashlib.sha256(image.tobytes()).digest())
        small.add(image.resize((12, 12), Image.Resampling.BOX).tobytes())
    assert len(exact) == len(small) == len(IMAGES)


def test_the_images_are_small():
    """Guards against a clone that takes minutes."""
    assert sum(path.stat().st_size for path in IMAGES) < 4_000_000


def test_colour_alone_does_not_separate_the_classes():
    """Guards against a set that needs no network: a linear classifier on 8x8 thumbnails must stay under one half."""
    from sklearn.linear_model import LogisticRegression

    def thumbnails(split: str) -> tuple[np.ndarray, list[str]]:
        paths = [path for path in IMAGES if path.parts[-3] == split]
        images = [Image.open(path).resize((8, 8), Image.Resampling.BOX) for path in paths]
        return np.stack([np.asarray(image).ravel() / 255 for image in images]), [path.parent.name for path in paths]

    accuracy = LogisticRegression(max_iter=2000).fit(*thumbnails("train")).score(*thumbnails("test"))
    assert 1 / 12 < accuracy < 0.5


def test_more_images_leave_the_earlier_ones_unchanged(tmp_path):
    """Guards against a larger set that is another set, and against splits that share images."""
    for folder, count in (("few", 2), ("more", 3)):
        draw.main(
            ["--out", str(tmp_path / folder), "--train", str(count), "--valid", "1", "--test", "1", "--size", "40x30"]
        )
    few, more = files_in(tmp_path / "few"), files_in(tmp_path / "more")
    assert few.keys() < more.keys() and all(more[name] == few[name] for name in few)
    images = [content for name, content in more.items() if name.endswith(".jpg")]
    assert len(set(images)) == len(images) == 5 * 12
    assert Image.open(io.BytesIO(images[0])).size == (40, 30)
    line = ["--out", str(tmp_path / "other"), "--train", "1", "--valid", "0", "--test", "0", "--size", "40x30"]
    draw.main([*line, "--seed", "9"])
    assert not set(files_in(tmp_path / "other").values()) - {more["labels.txt"]} & set(images)


def test_force_overwrites_drawn_images_and_no_others(tmp_path):
    """Guards against a user's photos being overwritten by drawings."""
    line = ["--out", str(tmp_path), "--train", "2", "--valid", "0", "--test", "0", "--size", "24", "--classes", "ox"]
    draw.main(line)
    before = files_in(tmp_path)
    with pytest.raises(SystemExit, match="--force"):
        draw.main(line)
    draw.main([*line, "--force"])
    assert files_in(tmp_path) == before
    photo = tmp_path / "train" / "ox" / "00000001.jpg"
    Image.new("RGB", (24, 24), "red").save(photo)
    before = files_in(tmp_path)
    for options in ([], ["--force"], ["--force", "--seed", "3"]):
        with pytest.raises(SystemExit, match=r"00000001\.jpg.*; choose another --out"):
            draw.main([*line, *options])
        assert files_in(tmp_path) == before


@pytest.mark.parametrize(
    "options", [["--size", "0"], ["--size", "axb"], ["--train", "-1"], ["--classes", "cat"], ["--sheet", "a.jpg"]]
)
def test_wrong_options_are_usage_errors(options, tmp_path, capsys):
    """Guards against a traceback, or a half-written folder, for a mistyped option."""
    with pytest.raises(SystemExit) as ended:
        draw.main(["--out", str(tmp_path / "out"), *options])
    assert ended.value.code == 2 and "usage:" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
