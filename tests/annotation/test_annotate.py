"""annotate.py as a user runs it: every file has a verdict, and the lists contain the images that are kept."""

import contextlib
import csv
import io
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from PIL import Image
from test_golden import Outline, check, dead_links

import annotate
import config
from annotation import scan
from annotation.lists import SPLITS, read_labels, read_split
from annotation.store import open_store
from evaluation import plots
from imaging.images import read_image
from system.errors import UserError
from system.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def image(number: int, size: tuple[int, int] = (24, 20)) -> Image.Image:
    """A different image for every number: smooth random blobs."""
    small = np.random.default_rng(number).integers(0, 256, (5, 6, 3), np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def encode(image: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def folder(root: Path, counts: dict[str, int], first: int = 0) -> Path:
    """Makes root/KEY/0.jpg ... for every key of counts, all different."""
    for key, count in counts.items():
        (root / key).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image(first + number).save(root / key / f"{number}.jpg")
        first += count
    return root


def settings(data: Path, **overrides) -> Settings:
    return config.load(
        None, [f"data_dir={data}", "scan_workers=2", *(f"{key}={value}" for key, value in overrides.items())]
    )


def command(*arguments: str, **options) -> subprocess.CompletedProcess:
    line = [sys.executable, str(ROOT / "annotate.py"), *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False, **options)


def table(file: Path) -> list[dict[str, str]]:
    with open(file, encoding="utf-8", newline="\n") as lines:
        return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


def reasons(file: Path) -> dict[str, str]:
    return {row["path"].rsplit("/", 1)[1]: row["reason"] for row in table(file)}


def listed(data: Path) -> dict[str, set[str]]:
    return {
        split: {line.split("\t")[0] for line in (data / f"{split}.txt").read_text(encoding="utf-8").splitlines()}
        for split in SPLITS
    }


@pytest.fixture
def data(tmp_path) -> Path:
    return folder(tmp_path / "data", {f"{split}/{name}": 2 for split in SPLITS for name in ("ox", "dog")})


@pytest.mark.effect("data_dir")
def test_the_lists_are_written_as_they_are_read(tmp_path, data):
    """Guards against paths that training cannot find from the folder in which the command was started."""
    done = command("data_dir=data", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.splitlines()[-1] == "next: python train.py data_dir=data"
    assert (data / "train.txt").read_text() == (
        "data/train/dog/0.jpg\t0\ndata/train/dog/1.jpg\t0\ndata/train/ox/0.jpg\t1\ndata/train/ox/1.jpg\t1\n"
    )
    for split in SPLITS:
        samples, class_names = read_split(settings(data), split)
        assert class_names == ["dog", "ox"] and len(samples) == 4


def test_an_existing_labels_txt_decides_the_ids(data):
    """Guards against classes renumbered in alphabetical order."""
    (data / "labels.txt").write_text("ox\ndog\n")
    annotate.annotate(settings(data))
    assert (data / "train.txt").read_text().splitlines()[0].endswith("train/dog/0.jpg\t1")


def bad_files(place: Path) -> dict[str, str]:
    """Puts one file of every bad kind into a folder; returns the reason of each."""
    rgb, jpeg = image(900), encode(image(900), "JPEG", quality=95)
    frames = [image(n).convert("P") for n in range(902, 905)]
    contents = {
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "corrupt.gif": (b"GIF89a\0\0\0\0", "corrupt"),
        "empty.jpg": (b"", "empty"),
        "text.jpg": (b"<html>not found</html>", "not_a_picture"),
        "pointer.jpg": (b"version https://git-lfs.github.com/spec/v1\n", "lfs_pointer"),
        "drawing.svg": (b"<svg></svg>", "unsupported_format"),
        "moving.gif": (encode(frames[0], "GIF", save_all=True, append_images=frames[1:]), "palette"),
        "grey16.png": (
            encode(Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20) * 99), "PNG"),
            "sixteen_bit",
        ),
        "cmyk.jpg": (encode(rgb.convert("CMYK"), "JPEG"), "cmyk"),
        "palette.png": (encode(rgb.convert("P"), "PNG"), "palette"),
        "alpha.png": (encode(rgb.convert("RGBA"), "PNG"), "alpha"),
        "grey.jpg": (encode(rgb.convert("L"), "JPEG"), "greyscale"),
        "large.png": (encode(Image.new("RGB", (1001, 1000)), "PNG"), "too_large"),
        "tab\there.jpg": (jpeg, "bad_name"),
        "line\nbreak.jpg": (jpeg, "bad_name"),
    }
    for name, (content, _) in contents.items():
        (place / name).write_bytes(content)
    with open(os.fsencode(place) + b"/latin\xe9.jpg", "wb") as file:
        file.write(jpeg)
    os.mkfifo(place / "pipe.jpg")
    (place / "nowhere.jpg").symlink_to(place / "gone")
    expected = {name.replace("\t", "\\t").replace("\n", "\\n"): reason for name, (_, reason) in contents.items()}
    return expected | {"latin\\xe9.jpg": "bad_name", "pipe.jpg": "not_a_file", "nowhere.jpg": "missing"}


def test_every_kind_of_bad_file_has_its_reason(data):
    """Guards against a bad file that is kept, lost, or reported with another reason."""
    expected = bad_files(data / "train" / "ox")
    summary, _, _ = annotate.annotate(settings(data, max_pixels=1_000_000))
    assert reasons(data / "rejects.tsv") == expected
    rows = {row["path"].rsplit("/", 1)[1]: row for row in table(data / "rejects.tsv")}
    assert (
        rows["cmyk.jpg"]["format"] == "JPEG"
        and rows["cmyk.jpg"]["mode"] == "CMYK"
        and rows["cmyk.jpg"]["size"] == "24x20"
    )
    assert "max_pixels=1001000" in rows["large.png"]["detail"]
    assert "frames" in rows["moving.gif"]["detail"]
    assert (rows["grey.jpg"]["split"], rows["grey.jpg"]["class"]) == ("train", "ox")
    assert summary.total("train") == 4 and summary.convertible == 6
    assert summary.files == 12 + len(expected)


def test_a_folder_without_a_usable_image_is_reported(tmp_path):
    """Guards against a traceback where nothing is left to hash, show or split."""
    (tmp_path / "train/ox").mkdir(parents=True)
    (tmp_path / "train/ox/a.jpg").write_bytes(b"no image")
    done = command(f"data_dir={tmp_path}")
    assert done.returncode == 0 and done.stderr == "" and "no training image is kept of ox" in done.stdout


@pytest.mark.effect("non_rgb")
def test_convert_keeps_what_can_be_converted(data):
    """Guards against an image that convert should keep and does not, and against decoding again for another setting."""
    expected = bad_files(data / "train" / "ox")
    annotate.annotate(settings(data, max_pixels=1_000_000))
    kinds = {"greyscale", "cmyk", "palette", "alpha", "sixteen_bit"}
    _, _, decoded = annotate.annotate(settings(data, max_pixels=1_000_000, non_rgb="convert"))
    assert decoded == 0, "another setting needs no decoding"
    assert reasons(data / "rejects.tsv") == {name: reason for name, reason in expected.items() if reason not in kinds}
    summary, _, decoded = annotate.annotate(settings(data, max_pixels=2_000_000))
    assert decoded == 1 and summary.total("train") == 5


def test_kept_images_with_a_wrong_suffix_an_orientation_or_damage_have_a_remark(data):
    """Guards against images that surprise a user because no report mentions them."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image(910).save(data / "train/ox/turned.jpg", exif=exif)
    (data / "train/ox/png.jpg").write_bytes(encode(image(911), "PNG"))
    png = bytearray(encode(image(901, (200, 200)), "PNG"))
    png[len(png) // 2] ^= 0xFF
    (data / "train/ox/damaged.png").write_bytes(png)
    annotate.annotate(settings(data))
    assert reasons(data / "remarks.tsv") == {
        "turned.jpg": "exif_rotated",
        "png.jpg": "wrong_suffix",
        "damaged.png": "damaged",
    }
    assert not reasons(data / "rejects.tsv")


def test_hidden_and_system_files_are_skipped_and_counted(data):
    """Guards against .ipynb_checkpoints as a class, endless links, and links that add other classes' images."""
    for name in (".ipynb_checkpoints", "__MACOSX"):
        shutil.copytree(data / "train/ox", data / "train" / name)
        shutil.copytree(data / "train/ox", data / "train/ox" / name)
    for name in ("Thumbs.db", ".DS_Store", "._0.jpg", "desktop.ini"):
        (data / "train/ox" / name).write_bytes(b"x")
    (data / "train/ox/loop").symlink_to(data / "train/ox")
    (data / "train/ox/above").symlink_to(data / "train")
    (data / "train/ox/deeper").mkdir()
    image(920).save(data / "train/ox/deeper/a.jpg")
    summary, layout, _ = annotate.annotate(settings(data))
    assert layout.class_names == ["dog", "ox"] and summary.files == 13 and summary.total("train") == 5
    assert summary.skipped == {"hidden or created by an operating system": 6, "linked folders seen already": 2}


QUICK = """
import sys
sys.path.insert(0, sys.argv[1])
import annotate
sys.argv[:2] = ["annotate.py"]
annotate.main()
assert not {"PIL.Image", "numpy", "jinja2", "tqdm"} & set(sys.modules), "loaded a decoder"
"""


@pytest.mark.parametrize("split", ["", "train/"])
def test_a_re_run_that_finds_nothing_new_loads_no_decoder(tmp_path, split):
    """Guards against a re-run of 0.2 s that becomes one of a second, by an import or by files beside the classes."""
    data = folder(tmp_path / "data", {f"{split}ox": 4, f"{split}dog": 4})
    (data / split / "notes.txt").write_text("about these images")
    annotate.annotate(settings(data))
    done = subprocess.run([sys.executable, "-c", QUICK, str(ROOT), f"data_dir={data}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "8 files, 0 decoded now" in done.stdout
    image(950).save(data / split / "loose.jpg")
    with pytest.raises(UserError, match=r"loose\.jpg is in no class folder"):
        annotate.annotate(settings(data))


def test_a_re_run_decodes_only_what_has_changed(data):
    """Guards against a scan of an hour for one new image, and against an old verdict for a new file."""
    assert annotate.annotate(settings(data))[2] == 12
    first = (data / "train.txt").read_text()
    assert annotate.annotate(settings(data))[2] == 0
    (data / "train/ox/0.jpg").write_bytes(b"")
    assert annotate.annotate(settings(data))[2] == 1
    assert reasons(data / "rejects.tsv") == {"0.jpg": "empty"}
    (data / "train/ox/0.jpg").unlink()
    (data / "train.txt").write_text("edited")
    assert annotate.annotate(settings(data))[2] == 0
    assert (data / "train.txt").read_text() == first.replace(f"{data.as_posix()}/train/ox/0.jpg\t1\n", "")
    assert not table(data / "rejects.tsv")
    assert annotate.annotate(settings(data), fresh=True)[2] == 11


def test_transient_failures_are_tried_again(data):
    """Guards against remembering a failure whose cause lay outside the file."""
    (data / "train/ox/link.jpg").symlink_to(data / "later")
    annotate.annotate(settings(data))
    assert reasons(data / "rejects.tsv") == {"link.jpg": "missing"}
    image(930).save(data / "later", "JPEG")
    annotate.annotate(settings(data))
    assert not table(data / "rejects.tsv")


SABOTAGE = """
import os, sys, time
if sys.argv[:1] == ["-c"]:
    import PIL.Image
    decode = PIL.Image.open
    def open(file, *rest, **options):
        start = file.getvalue()[:4]
        if start == b"ABRT":
            os.abort()
        if start == b"EATS":
            bytearray(1 << 50)
        if start == b"HANG":
            time.sleep(60)
        return decode(file, *rest, **options)
    PIL.Image.open = open
"""


def test_a_decoder_that_crashes_hangs_or_eats_memory_is_named(tmp_path, data, monkeypatch):
    """Guards against one file that ends the scan, or spoils the verdicts of the files in its batch."""
    for name in ("ABRT", "EATS", "HANG"):
        (data / "train/ox" / f"{name}.jpg").write_text(name)
    (tmp_path / "sitecustomize.py").write_text(SABOTAGE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("annotation.worker_pool.Pool.__init__.__defaults__", (1.5,))
    summary, _, _ = annotate.annotate(settings(data))
    assert reasons(data / "rejects.tsv") == {
        "ABRT.jpg": "decoder_crash",
        "EATS.jpg": "too_much_memory",
        "HANG.jpg": "decoder_timeout",
    }
    assert summary.total("train") == 4
    assert "SIGABRT" in {row["reason"]: row["detail"] for row in table(data / "rejects.tsv")}["decoder_crash"]


def test_a_file_that_vanishes_during_the_scan_is_missing(data, monkeypatch):
    """Guards against a traceback when files are deleted during the scan."""
    verify_files = scan.verify_files

    def vanish(*arguments):
        (data / "train/ox/0.jpg").unlink()
        return verify_files(*arguments)

    monkeypatch.setattr(scan, "verify_files", vanish)
    annotate.annotate(settings(data))
    assert reasons(data / "rejects.tsv") == {"0.jpg": "missing"}


@examples(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sets(st.binary(min_size=1, max_size=12).filter(lambda name: not {47, 0} & set(name)), min_size=8, max_size=30)
)
def test_every_name_that_the_file_system_allows_is_listed_or_left_out(tmp_path_factory, names):
    """Guards against a file that is neither in a list nor in rejects.tsv."""
    data = folder(tmp_path_factory.mktemp("names"), {"train/ox": 1, "valid/ox": 1, "test/ox": 1})
    content, expected = (data / "train/ox/0.jpg").read_bytes(), 1
    for name in names - {b".", b"..", b"0.jpg"}:
        with open(os.fsencode(data / "train/ox") + b"/" + name, "wb") as file:
            file.write(content)
        expected += 1
    summary, _, _ = annotate.annotate(settings(data, duplicates="none"))
    samples, _ = read_split(settings(data), "train")
    left_out = table(data / "rejects.tsv")
    assert len(samples) + len(left_out) + sum(summary.skipped.values()) == expected
    assert {row["reason"] for row in left_out} <= {"bad_name"}
    assert all(sample.file.read_bytes() == content for sample in samples)


@pytest.mark.parametrize(
    "break_it, message",
    [
        (lambda d: shutil.rmtree(d), "no such folder"),
        (lambda d: shutil.rmtree(d / "train"), "but no train folder"),
        (lambda d: (shutil.rmtree(d / "train"), (d / "train").mkdir()), "no class folder in it"),
        (lambda d: shutil.rmtree(d / "valid/ox"), "valid/ox is missing"),
        (lambda d: (d / "valid/cat").mkdir(), "valid/cat is not a class of train"),
        (lambda d: [p.unlink() for p in (d / "train/ox").iterdir()], "train/ox has no image"),
        (lambda d: image(1).save(d / "train/loose.jpg"), "loose.jpg is in no class folder"),
        (lambda d: (d / "labels.txt").write_text("ox\ndog\nox\n"), "line 3 repeats ox"),
        (lambda d: (d / "labels.txt").write_text("ox\ndog\ncat\n"), "train/cat is missing"),
        (lambda d: (d / "val").mkdir(), "valid and val are the same split"),
    ],
)
def test_inconsistent_folders_are_named_in_one_line(data, break_it, message):
    """Guards against a traceback, a half-written list, or class ids that silently shift."""
    break_it(data)
    with pytest.raises(UserError, match=message) as caught:
        annotate.annotate(settings(data))
    assert "\n" not in str(caught.value) and "; " in str(caught.value)
    assert not (data / "train.txt").exists()


def test_a_users_mistake_is_one_line_and_an_exit_status(tmp_path):
    """Guards against a traceback for what the user can fix."""
    done = command(f"data_dir={tmp_path}/none")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and done.stdout == ""
    assert command("data_dir").returncode == 2


@pytest.mark.effect("lists_dir")
def test_read_only_data_needs_another_lists_folder(tmp_path, data):
    """Guards against a traceback, or a file left behind, where nothing may be written."""
    data.chmod(0o555)
    try:
        if os.access(data, os.W_OK):
            (tmp_path / "occupied").write_text("a file, no folder")
            assert "cannot be" in command(f"data_dir={data}", f"lists_dir={tmp_path}/occupied/lists").stderr
        else:
            assert "set lists_dir" in command(f"data_dir={data}").stderr
        before = sorted(os.listdir(data))
        done = command(f"data_dir={data}", f"lists_dir={tmp_path}/lists")
        assert done.returncode == 0 and sorted(os.listdir(data)) == before
    finally:
        data.chmod(0o755)
    assert len(read_split(settings(data, lists_dir=tmp_path / "lists"), "test")[0]) == 4


def test_two_runs_at_once_do_not_mix(data):
    """Guards against the lists of one run beside those of another."""
    with open_store(data, data, fresh=False):
        done = command(f"data_dir={data}")
    assert done.returncode == 1 and "another annotate.py is running here" in done.stderr
    assert command(f"data_dir={data}").returncode == 0


def test_a_damaged_or_older_store_is_begun_anew(data):
    """Guards against a power cut, or a new release with other columns, that makes annotate unusable."""
    (data / ".annotate.db").write_bytes(b"no data base" * 400)
    assert annotate.annotate(settings(data))[2] == 12
    (data / ".annotate.db").unlink()
    with contextlib.closing(sqlite3.connect(data / ".annotate.db")) as older, older:
        older.execute("CREATE TABLE fact(name TEXT PRIMARY KEY, value TEXT)")
        older.execute("CREATE TABLE image(id INTEGER PRIMARY KEY, path BLOB, copies INTEGER)")
        older.execute("INSERT INTO fact VALUES('about', '[2, \"13.0.0\", \".\"]')")
    assert annotate.annotate(settings(data))[2] == 12


def test_kill_9_twenty_times_leaves_lists_of_one_run(tmp_path, moments):
    """Guards against an image in train and test at once after a crash: old lists or new ones, never both."""
    data = folder(tmp_path / "data", {"ox": 12, "dog": 12})
    whole = {}
    for seed in (1, 2):
        annotate.annotate(settings(data, seed=seed))
        whole[seed] = listed(data)
    assert whole[1] != whole[2]
    for turn in range(20):
        line = [sys.executable, str(ROOT / "annotate.py"), f"data_dir={data}", f"seed={1 + turn % 2}", "--fresh"]
        running = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moments.uniform(0.05, 0.8))
        running.send_signal(signal.SIGKILL)
        running.wait()
        read_labels(data / "labels.txt")
        assert listed(data) in whole.values()
    assert command(f"data_dir={data}", "seed=1").returncode == 0 and listed(data) == whole[1]


def test_paddlex_lists_are_what_its_reader_takes(data):
    """Guards against a line that PaddleX splits in three, or a path that it does not find."""
    assert command(f"data_dir={data}", "--format", "paddlex").returncode == 0
    for name in ("train.txt", "val.txt"):
        for line in (data / name).read_text(encoding="utf-8").splitlines():
            path, label = line.split(" ")
            assert (data / path).is_file() and int(label) in (0, 1)
    assert (data / "label.txt").read_text() == "0 dog\n1 ox\n"
    image(940).save(data / "train/ox/a b.jpg")
    done = command(f"data_dir={data}", "--format", "paddlex")
    assert done.returncode == 1 and "a b.jpg" in done.stderr and "at its space" in done.stderr


@pytest.mark.golden
def test_the_report_is_one_file_with_chinese_names_and_escapes(tmp_path):
    """Guards against a page that needs a network, and against markup in a file name."""
    data = folder(tmp_path / "data", {"train/老虎": 3, "train/ox": 3})
    (data / "train/ox/<b>&.jpg").write_bytes(b"no image")
    summary, _, _ = annotate.annotate(settings(data))
    page = (data / "annotate.html").read_text(encoding="utf-8")
    assert "老虎" in page and "&lt;b&gt;&amp;.jpg" in page and "<b>&.jpg" not in page
    assert page.count("data:image/jpeg;base64,") == summary.total("train") == 2
    assert "http://" not in page and "https://" not in page and 'src="data:' in page
    assert page.count('href="#') >= 3 and dead_links(page) == []
    check("annotate-page", str(Outline(page.replace(str(tmp_path), "FOLDER"))))


@pytest.mark.parametrize("what", ["data", "class", "files", "remembered files"])
def test_nothing_is_published_once_the_images_have_gone(tmp_path, monkeypatch, what):
    """Guards against good lists replaced by short ones when a share goes away during the run."""
    data, lists = folder(tmp_path / "data", {"ox": 20, "dog": 20}), tmp_path / "lists"
    annotate.annotate(settings(data, lists_dir=lists))
    before = {path.name: path.read_bytes() for path in lists.glob("[!.]*")}
    image(700).save(data / "ox/new.jpg")
    verify_files = scan.verify_files

    def vanish(*arguments):
        if what == "remembered files":
            done = verify_files(*arguments)
        if what in ("data", "class"):
            shutil.rmtree(data / "ox" if what == "class" else data)
        else:
            [path.unlink() for path in sorted((data / "ox").iterdir())[:5]]
        return done if what == "remembered files" else verify_files(*arguments)

    monkeypatch.setattr(scan, "verify_files", vanish)
    with pytest.raises(UserError, match=r"(gone|no process can start there).*; .*nothing was written"):
        annotate.annotate(settings(data, lists_dir=lists, duplicates="none"), fresh=what == "files")
    assert {path.name: path.read_bytes() for path in lists.glob("[!.]*")} == before


@pytest.mark.parametrize("counts, works", [({"ox": 2, "dog": 2}, False), ({"ox": 6, "dog": 6}, True)])
def test_the_next_command_is_only_said_when_it_would_work(tmp_path, counts, works):
    """Guards against advice to train on an empty list."""
    done = command(f"data_dir={folder(tmp_path / 'data', counts)}", "duplicates=none")
    assert done.returncode == 0 and ("next: python train.py" in done.stdout) == works
    assert works or "no image in valid" in done.stdout.splitlines()[-1]


@examples(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(where=st.floats(0, 1), length=st.integers(1, 60_000), value=st.sampled_from([0, 255]), fresh=st.booleans())
@example(where=0.1, length=10**6, value=0, fresh=False)
@example(where=0.1, length=10**6, value=0, fresh=True)
@example(where=0.0, length=1000, value=255, fresh=True)
def test_a_store_damaged_anywhere_is_begun_again(tmp_path_factory, where, length, value, fresh):
    """Guards against a traceback that --fresh does not help against."""
    data = folder(tmp_path_factory.mktemp("damaged") / "data", {"ox": 4, "dog": 4})
    annotate.annotate(settings(data, scan_workers=1))
    expected = listed(data)
    content = bytearray((data / ".annotate.db").read_bytes())
    start = int(where * (len(content) - 1))
    end = min(start + length, len(content))
    content[start:end] = bytes([value]) * (end - start)
    (data / ".annotate.db").write_bytes(content)
    (data / "train.txt").write_text("")
    summary, _, decoded = annotate.annotate(settings(data, scan_workers=1), fresh=fresh)
    assert summary.files == 8 and listed(data) == expected
    assert decoded == 8 or not fresh


@pytest.mark.parametrize("text", ["database or disk is full", "disk I/O error", "attempt to write a readonly database"])
def test_a_disk_that_fails_is_one_line(data, monkeypatch, text):
    """Guards against a traceback where there is no room for the store, and against removing a good one."""
    annotate.annotate(settings(data))
    before = (data / "train.txt").read_bytes()

    def fail(*_):
        raise sqlite3.OperationalError(text)

    monkeypatch.setattr(scan, "verify_files", fail)
    (data / "labels.txt").unlink()
    with pytest.raises(UserError, match=rf"cannot be written to \({text}\); make room"):
        annotate.annotate(settings(data))
    assert (data / "train.txt").read_bytes() == before and (data / ".annotate.db").stat().st_size


def test_labelled_images_are_shown_before_any_training(draw_data, tmp_path, call, monkeypatch):
    """Guards against a first look at one class only, and at images beside another label."""
    draw_data(tmp_path / "data", ["ox", "dog", "pig"], {"train": 9, "valid": 1, "test": 1}, (30, 40))
    monkeypatch.chdir(tmp_path)
    drawn = []
    monkeypatch.setattr(plots, "grid", lambda *given, **options: drawn.append((*given, options)))
    ended = call(annotate, "data_dir=data", "scan_workers=1", "duplicates=none", "--show", "grid.png")
    assert ended.status == 0 and "grid.png: 20 training images with their classes" in ended.out, ended
    ((images, captions, file, options),) = drawn
    assert captions[:3] == captions[3:6] == ["ox", "dog", "pig"] and len(images) == 20
    assert (file, options) == ("grid.png", {"columns": 5})
    files = {name: [read_image(path, 10**8) for path in Path("data/train", name).iterdir()] for name in captions}
    for image, name in zip(images, captions, strict=True):
        assert any((np.asarray(image) == np.asarray(one)).all() for one in files[name])
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert call(annotate, "data_dir=data", "scan_workers=1", "duplicates=none", "--show", "grid.png").status == 0
    assert Image.open("grid.png").width > 1000
    assert call(annotate, "data_dir=data", "--show", "grid.jpg").status == 2
    call(annotate, "data_dir=data", "--show", "nowhere/grid.png").refused("nowhere/grid.png: its folder does not exist")
