"""corrections.tsv: decisions about single images reach the lists, can be taken back, and never go unsaid."""

import concurrent.futures
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from test_annotate import ROOT, folder, image, listed, settings, table

import annotate
import evaluate
from annotation import corrections
from annotation.corrections import Correction
from annotation.lists import read_split
from system.errors import UserError
from system.files import file_digest
from system.settings import Settings

HEADER = "\t".join(corrections.COLUMNS)


@pytest.fixture
def photos(tmp_path) -> Path:
    """Four images of two classes in each split."""
    return folder(tmp_path / "photos", {f"{s}/{c}": 4 for s in ("train", "valid", "test") for c in ("cat", "dog")})


def write(data: Path, *rows: str) -> None:
    (data / "corrections.tsv").write_text("\n".join([HEADER, *rows]) + "\n", encoding="utf-8")


def labels(data: Path, split: str) -> dict[str, str]:
    samples, class_names = read_split(settings(data), split)
    return {sample.path.removeprefix(f"{data}/"): class_names[sample.label] for sample in samples}


def test_the_lists_hold_what_people_decided(photos):
    """Guards against corrections that do not reach the lists, and against lists that a deleted row still changes."""
    annotate.annotate(settings(photos))
    before = listed(photos)
    digest = file_digest(photos / "test/cat/0.jpg")
    write(
        photos,
        f"test/cat/0.jpg\t{digest}\trelabel\tdog\tli\t2026-11-27\t",
        f"{photos}/train/dog/1.jpg\t\tdrop\t\tli\t2026-11-27\tonly a kennel",
        "train/dog/2.jpg\t\tkeep",
    )
    summary, *_ = annotate.annotate(settings(photos))
    assert summary.corrections == {"relabel": 1, "drop": 1, "keep": 1}
    assert labels(photos, "test")["test/cat/0.jpg"] == "dog"
    assert "train/dog/1.jpg" not in labels(photos, "train")
    assert listed(photos)["train"] == before["train"] - {f"{photos}/train/dog/1.jpg"}
    (row,) = table(photos / "rejects.tsv")
    assert (row["reason"], row["detail"]) == ("dropped", "dropped by li; only a kennel")
    assert (photos / "corrected.tsv").read_text("utf-8").splitlines()[1:] == [
        f"{photos}/test/cat/0.jpg\ttest\tcat\tdog",
        f"{photos}/train/dog/1.jpg\ttrain\tdog\t",
    ]
    write(photos)
    annotate.annotate(settings(photos))
    assert listed(photos) == before and labels(photos, "test")["test/cat/0.jpg"] == "cat"
    assert not (photos / "corrected.tsv").exists()


def test_what_is_not_applied_is_named(photos, capsys):
    """Guards against decisions about an image that has other bytes by now, and against some that vanish unsaid."""
    write(
        photos,
        "test/cat/0.jpg\t" + 64 * "0" + "\tdrop",
        "test/cat/9.jpg\t\tdrop",
        "test/cat/broken.jpg\t\trelabel\tdog",
        "test/dog/broken.jpg\t\tkeep",
        "test/cat/1.jpg\t\trelabel\tdog\tli",
        "test/cat/1.jpg\t\tdrop\t\twang",
        "test/cat/2.jpg\t\trelabel\tdog\tli",
        "test/cat/2.jpg\t\tundo\t\twang",
    )
    for name in ("cat", "dog"):
        (photos / f"test/{name}/broken.jpg").write_text("no image")
    sys.argv = ["annotate.py", f"data_dir={photos}", "scan_workers=1"]
    annotate.main()
    out = capsys.readouterr().out
    assert "corrections: 1 dropped\n" in out
    assert "not applied: 4 (test/cat/0.jpg has changed since; test/cat/9.jpg is not there; " in out
    assert "test/cat/broken.jpg is left out (not_a_picture); test/dog/broken.jpg is left out (not_a_picture))" in out
    assert "differently about: 1 (test/cat/1.jpg: li says relabel to dog, then wang says drop, which counts)" in out
    assert labels(photos, "test")["test/cat/2.jpg"] == "cat"


def test_no_other_image_moves(tmp_path):
    """Guards against made splits that corrections change, so that a test image becomes one of the next training."""
    data = folder(tmp_path / "photos", {"cat": 30, "dog": 30})
    annotate.annotate(settings(data))
    before = listed(data)
    train, test = sorted(before["train"]), sorted(before["test"])
    write(data, *(f"{path}\t\tdrop" for path in train[:9]), *(f"{path}\t\trelabel\tdog" for path in train[9:15]),
          f"{test[0]}\t\tdrop")  # fmt: skip
    annotate.annotate(settings(data))
    assert listed(data) == before | {"train": set(train[9:]), "test": set(test[1:])}


def test_a_kept_image_is_converted(photos):
    """Guards against a person's "keep" that cannot let in an image which non_rgb=skip leaves out."""
    image(99).convert("L").save(photos / "test/cat/grey.png")
    write(photos, "test/cat/grey.png\t\tkeep")
    annotate.annotate(settings(photos))
    assert "test/cat/grey.png" in labels(photos, "test")
    assert f"{photos}/test/cat/grey.png\ttest\t\tcat" in (photos / "corrected.tsv").read_text("utf-8")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("a.jpg\t\tremove", "line 2 has action 'remove', not relabel, drop, keep, undo"),
        ("a.jpg\t\trelabel\tdgo", "line 2 relabels to 'dgo', which is no class"),
        ("a.jpg\t\trelabel", "line 2 relabels to '', which is no class"),
        ("\t\tdrop", "line 2 has no path"),
        ("a.jpg\t\t", "line 2 has action ''"),
    ],
)
def test_rows_that_cannot_be_read(photos, row, words):
    """Guards against a mistyped row that is passed over, so that its decision is lost."""
    write(photos, row)
    with pytest.raises(UserError, match=r"corrections.tsv: .*correct or delete these lines") as raised:
        annotate.annotate(settings(photos))
    assert words in str(raised.value)


def test_a_spreadsheet_may_save_the_file(photos):
    """Guards against quoted cells, a byte order mark, other line ends and missing columns that a spreadsheet leaves."""
    text = 'path\tdigest\taction\tclass\r\n"test/cat/0.jpg"\t\trelabel\tdog\r\n'
    (photos / "corrections.tsv").write_bytes(text.encode("utf-8-sig"))
    annotate.annotate(settings(photos))
    assert labels(photos, "test")["test/cat/0.jpg"] == "dog"
    (photos / "corrections.tsv").write_text("test/cat/0.jpg\t\tdrop\n")
    with pytest.raises(UserError, match="line 1 names no column path, digest, action, class"):
        annotate.annotate(settings(photos))


def test_rows_are_read_as_they_were_written(tmp_path):
    """Guards against tabs, quotes and line ends in a reason that break the table."""
    odd = Correction(' a "b".jpg', "", "drop", "", "张三", "2026-11-27", 'a tab\tand a line\nand "quotes"')
    corrections.append(tmp_path, [odd, Correction('"c".jpg', "0f", "relabel", "d,e ")])
    first, second = corrections.read(tmp_path, tmp_path, ["d,e "])
    assert first == Correction(*[odd.path, "", "drop", "", "张三", odd.when, 'a tab and a line and "quotes"'])
    assert second == Correction('"c".jpg', "0f", "relabel", "d,e ")


APPEND = """
import sys
from pathlib import Path
from annotation.corrections import Correction, append
for batch in range(int(sys.argv[3])):
    append(Path(sys.argv[1]), [Correction(f"{sys.argv[2]}/{batch}-{number}.jpg", "", "keep") for number in range(5)])
"""


def append_in_a_process(target: Path, name: str, batches: int, **options) -> int:
    return subprocess.run([sys.executable, "-c", APPEND, target, name, str(batches)], cwd=ROOT, **options).returncode


def test_several_processes_append(tmp_path):
    """Guards against rows of two people that overwrite or break each other, and against a second header."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        assert list(pool.map(lambda name: append_in_a_process(tmp_path, name, 40), "abc")) == [0, 0, 0]
    rows = corrections.read(tmp_path, tmp_path, [])
    assert len({row.path for row in rows}) == len(rows) == 600


def test_a_full_disk_leaves_no_torn_row(tmp_path):
    """Guards against half a row, which would make the next annotate.py stop."""
    append_in_a_process(tmp_path, "a", 1)
    whole = (tmp_path / "corrections.tsv").read_bytes()
    limit = len(whole) + 20
    full = append_in_a_process(
        tmp_path, "b", 1, stderr=subprocess.DEVNULL,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert full == 1
    assert (tmp_path / "corrections.tsv").read_bytes() == whole


def test_the_score_before_corrections_is_told(data, trained, call):
    """Guards against a test set that was mended by looking at mistakes and then flatters, without a word."""
    call(evaluate, str(trained.path), "data_dir=data", "--out", "before")
    before = json.loads(Path("before/metrics.json").read_text("utf-8"))
    assert before["before_corrections"] is None
    rows = table(Path("before/predictions.tsv"))
    wrong = [row for row in rows if row["label"] != row["prediction"]]
    assert len(wrong) > 2
    write(
        Path("data"),
        f"{wrong[0]['path']}\t\tdrop",
        *(f"{row['path']}\t\trelabel\t{row['prediction']}" for row in wrong[1:]),
    )
    data_settings: Settings = settings(Path("data"))
    annotate.annotate(data_settings)
    outcome = call(evaluate, str(trained.path), "data_dir=data", "--out", "after")
    after = json.loads(Path("after/metrics.json").read_text("utf-8"))
    assert after["accuracy"] == 1 and after["num_pictures"] == len(rows) - 1
    told = after["before_corrections"]
    assert told["accuracy"] == pytest.approx(before["accuracy"]) and told["loss"] == pytest.approx(before["loss"])
    assert (told["relabelled"], told["dropped"], told["num_pictures"]) == (len(wrong) - 1, 1, len(rows))
    assert f"accuracy {before['accuracy']:.4f} on the {len(rows)} images before, 1.0000 now" in outcome.err
    Image.new("RGB", (9, 9)).save(wrong[0]["path"])
    os.remove(wrong[0]["path"])
    outcome = call(evaluate, str(trained.path), "data_dir=data", "--out", "gone")
    assert "1 dropped image has gone and does not count" in outcome.err
