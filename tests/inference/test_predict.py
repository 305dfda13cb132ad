"""Prediction: every image gets one prediction in order, printed in one line, or one line that says why not."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shade_model import ShadeModel, write_image

import config
from evaluation import gallery, plots
from imaging.images import ImageError, read_image
from inference.pipeline import predict_images
from inference.ranking import columns_of_classes, is_rejected
from inference.sorting import Sorter, check_apart
from inference.sources import ImageSource, SkippedFiles, find_images, have_labels
from inference.terminal import print_predictions
from system.errors import UserError

ROOT = Path(__file__).parents[2]


def test_one_line_per_image_is_printed(tmp_path, monkeypatch, capsys):
    """Guards against a line without its path, a rejected image that looks accepted, and a failure on stdout."""
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "a.png", shade=51)
    write_image(tmp_path / "b.png", shade=102)
    seen = []
    model = ShadeModel()
    model.threshold = 0.7
    inputs = ["a.png", "b.png", "gone.png"]
    failed = print_predictions(inputs, model, config.load(), lambda source, probabilities: seen.append(source.path))
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "a.png: dark 0.8000, bright 0.2000",
        "b.png: none of these (dark 0.6000, bright 0.4000)",
    ]
    assert [line.partition(": ")[0] for line in err.splitlines()] == [
        "gone.png",
        "2 images predicted, 1 could not be read",
    ]
    assert (failed, seen) == (1, ["a.png", "b.png"])


@pytest.fixture
def labelled(tmp_path, monkeypatch):
    """A list of three images of ShadeModel's classes: right, wrong and rejected at 0.7; and one that is missing."""
    monkeypatch.chdir(tmp_path)
    rows = [
        (write_image(Path(f"{name}.png"), shade), label)
        for name, shade, label in (("a", 51, 0), ("b", 204, 0), ("c", 102, 0))
    ]
    Path("list.txt").write_text("".join(f"{name}\t{label}\n" for name, label in rows) + "gone.png\t1\n")
    return "list.txt"


def test_labels_stand_beside_predictions(labelled, capsys):
    """Guards against labels that are read and dropped, and a count in which a rejected image is right."""
    model = ShadeModel()
    model.threshold = 0.7
    write_image(Path("plain.png"), 51)
    print_predictions([labelled, "plain.png"], model, config.load(), lambda source, probabilities: None)
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "a.png: dark 0.8000, bright 0.2000 (label: dark)",
        "b.png: bright 0.8000, dark 0.2000 (label: dark, WRONG)",
        "c.png: none of these (dark 0.6000, bright 0.4000) (label: dark, WRONG)",
        "plain.png: dark 0.8000, bright 0.2000",
    ]
    assert err.splitlines()[-1] == "1 of 3 predictions matches its label (33.3%)"


@pytest.mark.parametrize("index", ["2", "02", "9" * 5000])
def test_labels_of_other_classes_are_refused(labelled, index):
    """Guards against thousands of predictions before a label that is none, and against other classes' indices."""
    Path("list.txt").write_text(f"gone.png\t1\ngone.png\t{index}\n")
    with pytest.raises(UserError, match=r"list\.txt: line 2 has index .*, but the model's classes are 0 to 1; .*"):
        have_labels([labelled], ["dark", "bright"])
    Path("list.txt").write_text("a.png\t1\n")
    Path("labels.txt").write_text("bright\ndark\n")
    with pytest.raises(UserError, match="whose classes are not the model's; list paths without indices"):
        have_labels([labelled], ["dark", "bright"])
    assert have_labels([labelled], ["bright", "dark"])
    Path("list.txt").write_text("a.png\n")
    assert not have_labels([labelled], ["dark", "bright"])


def test_figures_say_what_the_terminal_says(labelled, capsys, monkeypatch):
    """Guards against a grid without file names and labels, one that hides rejections, or how few images it shows."""
    drawn = []
    monkeypatch.setattr(
        plots, "grid", lambda images, captions, file, title, marked: drawn.append((captions, marked, title))
    )
    model = ShadeModel()
    model.threshold = 0.7
    monkeypatch.setattr(gallery, "SHOWN", 3)
    figure = gallery.Gallery("grid.png", None)
    write_image(Path("长" * 20 + "/名.png"), 0)
    print_predictions([labelled, "长" * 20], model, config.load(), figure.add)
    figure.draw(model, config.load())
    assert drawn == [
        (
            ("a.png\ndark 0.80\nlabel: dark", "b.png\nbright 0.80\n✗ WRONG, label: dark",
             "c.png\nnone of these\n(dark 0.60)\n✗ WRONG, label: dark"),
            (False, True, True),
            "the first 3 of 4 images",
        )
    ]  # fmt: skip
    assert capsys.readouterr().err.splitlines()[-1] == "grid.png: the first 3 of 4 images"
    assert gallery._end("长" * 20 + "/名.png") == "…" + "长" * 9 + "/名.png"
    assert gallery._end("a\udcff\n.png") == r"a\udcff\n.png"


def test_a_marked_image_has_a_frame(tmp_path):
    """Guards against wrong predictions that a page of sixty images hides, and against a caption that is cut off."""
    black = [Image.new("RGB", (20, 20))] * 3
    plots.grid(
        black, ["one\ntwo\nthree\n(four)"] * 3, tmp_path / "a.png", title="all 3 images", marked=[False, True, False]
    )
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
    red = np.argwhere((np.abs(pixels - (214, 39, 40)) < 9).all(axis=-1))
    third = pixels.shape[1] / 3
    assert (pixels[-4:] == 255).all()
    assert len(red) > 100 and third * 0.97 < red[:, 1].min() < red[:, 1].max() < third * 2.03


def test_sources_are_lists_folders_and_patterns(tmp_path, monkeypatch):
    """Guards against a list whose paths, tabs or class numbers are taken for something else."""
    names = [write_image(tmp_path / "data" / "a" / name) for name in ("1.png", "2.png")]
    text = "﻿data/a/1.png\t0\r\na/2.png\t1\n\nmissing.png\n"
    (tmp_path / "data" / "list.txt").write_text(text, encoding="utf-8", newline="")
    monkeypatch.chdir(tmp_path / "data")
    found = list(find_images([str(tmp_path / "data" / "list.txt")]))
    assert [os.path.realpath(path) for path in found[:2]] == [os.path.realpath(name) for name in names]
    assert found[2:] == ["missing.png"]
    assert list(find_images([str(tmp_path / "data")])) == names
    assert list(find_images([str(tmp_path / "data" / "a" / "?.png")])) == names
    (tmp_path / "bad.tsv").write_text("a.png\tcat\n")
    for argument, words in (("*.nothing", "no file matches"), (str(tmp_path / "bad.tsv"), "PATH<TAB>INDEX")):
        with pytest.raises(UserError, match=words):
            list(find_images([argument]))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes")
def test_a_folder_holds_for_predict_what_it_holds_for_annotate(command, tmp_path):
    """Guards against images that vanish for want of a suffix, a pipe that is waited for, and silence about it."""
    folder = tmp_path / "data" / "cat"
    names = {"photo.png", "3fa9c1", "b.dat"}
    for number, name in enumerate(("photo.png", "3fa9c1", "deep/er/b.dat")):
        place = Path(write_image(tmp_path / f"{number}.png", shade=80 * number))
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        place.rename(folder / name)
    (folder / "._photo.png").write_bytes(b"\0\5\26\7")
    (folder / "notes.md").write_text("no image")
    os.mkfifo(folder / "x.jpg")
    (folder / "deep" / "again").symlink_to(folder, target_is_directory=True)
    (folder / "gone.png").symlink_to("nowhere")
    assert command("annotate.py", "data_dir=data", "valid_fraction=0", "test_fraction=0", cwd=tmp_path).status == 0
    listed = {Path(line.split("\t")[0]).name for line in (tmp_path / "data/train.txt").read_text("utf-8").splitlines()}
    skipped = SkippedFiles()
    found = list(find_images([str(folder)], skipped))
    assert listed == names and {Path(path).name for path in found} == names | {"x.jpg", "gone.png"}
    for words in ("._photo.png", "1 not images", "notes.md", "1 linked folders"):
        assert words in str(skipped)
    with pytest.raises(ImageError, match="pipe"):
        read_image(folder / "x.jpg", 100)


def test_several_processes_need_a_file(command, tmp_path):
    """Guards against processes that each print all predictions, and are launched for nothing."""
    ended = command("predict.py", "a.png", cwd=tmp_path, PADDLE_TRAINERS_NUM="2")
    assert ended.status == 2 and "several processes need --out FILE" in ended.err


@pytest.mark.parametrize("workers", [1, 4])
def test_predictions_keep_order_and_failures(tmp_path, workers):
    """Guards against rows that are another image's when decoding runs beside inference, or failures that vanish."""
    names = [write_image(tmp_path / f"{i:02}.png", shade=i * 10) for i in range(20)]
    Path(names[3]).write_bytes(b"no image")
    names.insert(11, str(tmp_path / "missing.png"))
    got = [
        item
        for batch in predict_images(enumerate(map(ImageSource, names)), ShadeModel(), 4, 10**6, workers)
        for item in batch
    ]
    assert [(index, source.path) for index, source, _ in got] == list(enumerate(names))
    assert [index for index, _, result in got if isinstance(result, ImageError)] == [3, 11]
    for _, source, result in got:
        if not isinstance(result, ImageError):
            assert abs(result[1] - int(Path(source.path).stem) * 10 / 255) < 1e-6


def test_the_pipeline_reads_no_more_than_it_needs():
    """Guards against memory that grows with the number of images: an endless list must yield its first batch."""
    asked = []

    def endless():
        while True:
            asked.append(1)
            yield len(asked), ImageSource("missing.png")

    stream = predict_images(endless(), ShadeModel(), 8, 10**6, 2)
    assert len(next(stream)) == 8
    assert len(asked) <= 4 * 8
    stream.close()


def test_a_heat_map_is_drawn_for_a_run_and_refused_for_an_export(drawn, trained, tmp_path):
    """Guards against an overlay that is only the image, and a traceback where an export has no gradients."""
    image = next((drawn / "test").rglob("*.jpg"))
    plain, heated = tmp_path / "plain.png", tmp_path / "heated.png"
    command = [sys.executable, str(ROOT / "predict.py"), str(image)]
    done = subprocess.run([*command, "--run", str(trained.path), "--show", str(plain), "--explain", str(heated)])
    assert done.returncode == 0
    drawings = [np.asarray(Image.open(file).convert("RGB"), np.int32) for file in (plain, heated)]
    assert np.abs(drawings[0] - drawings[1]).max() > 40
    refused = subprocess.run(
        [*command, "--model", str(trained.path), "--explain", str(heated)], capture_output=True, text=True
    )
    assert refused.returncode == 2
    assert "an exported graph has no gradients" in refused.stderr


def test_a_class_called_like_a_column_gets_a_column_of_its_own():
    """Guards against two columns of one name, and against other classes renamed."""
    assert columns_of_classes(["path", "path_", "ox"], ["path", "label"]) == ["path__", "path_", "ox"]


@pytest.fixture
def shades(tmp_path, monkeypatch):
    """Images whose classes are known of ShadeModel: dark, bright, unsure, and one that is broken."""
    monkeypatch.chdir(tmp_path)
    for name, shade in (("pool/a.png", 25), ("pool/b.png", 230), ("pool/more/a.png", 26), ("pool/c.png", 130)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(tmp_path / name, shade)
    (tmp_path / "pool/d.jpg").write_bytes(b"no image")
    return Path("pool")


def _sorted(model, link=False, margin=0.2):
    sorter = Sorter("out", model, margin, link)
    print_predictions(["pool"], model, config.load(), sorter.add)
    return sorter, sorted(str(path) for path in Path("out").rglob("*.png"))


@pytest.mark.parametrize("link", [False, True])
def test_sorted_images_are_all_there_once(shades, link):
    """Guards against images that are lost by a name that two have, copied twice, or moved away."""
    before = {path: path.read_bytes() for path in shades.rglob("*.*")}
    sorter, found = _sorted(ShadeModel(), link)
    assert found == [
        "out/labelled/bright/b.png",
        "out/labelled/dark/a-2.png",
        "out/labelled/dark/a.png",
        "out/left/unsure/c.png",
    ]
    assert sum(sorter.counts.values()) == 4 and all(Path(path).is_symlink() == link for path in found)
    contents = sorted(Path(path).read_bytes() for path in found)
    assert contents == sorted(data for path, data in before.items() if path.suffix == ".png")
    assert {path: path.read_bytes() for path in before} == before
    assert "3 labelled (bright 1, dark 2), 1 unsure, 0 none of these; check them" in sorter.summary()
    again, same = _sorted(ShadeModel(), link)
    assert same == found and "4 of them were there already" in again.summary()


def test_what_lies_there_is_never_replaced(shades):
    """Guards against a file of the user's that is overwritten because it has the name of an image."""
    Path("out/labelled/dark").mkdir(parents=True)
    Path("out/labelled/dark/a.png").write_bytes(b"mine")
    model = ShadeModel()
    model.threshold = 0.95
    sorter, _ = _sorted(model)
    assert Path("out/labelled/dark/a.png").read_bytes() == b"mine"
    assert sorter.counts["left/none-of-these"] == len(list(Path("out/left/none-of-these").iterdir())) > 0
    assert sum(sorter.counts.values()) == 4


def test_a_folder_that_cannot_be_sorted_into_is_refused(shades):
    """Guards against copies that are sorted again, and class names that lead out of the folder."""
    for folder in ("pool", "pool/sorted", "."):
        with pytest.raises(UserError, match=f"--sort {re.escape(folder)}: pool holds it, or lies in it"):
            check_apart(folder, ["pool"])
    check_apart("pools", ["pool"])
    model = ShadeModel()
    for name in ("..", "a/b", ""):
        model.class_names = [name, "bright"]
        with pytest.raises(UserError, match="cannot be the name of a folder"):
            Sorter("out", model, 0.2, False)


def test_an_image_at_the_threshold_is_accepted():
    """Guards against an image rejected that the threshold was chosen to accept."""
    assert not is_rejected(0.5, 0.5) and is_rejected(0.4999, 0.5) and not is_rejected(0.0, None)
