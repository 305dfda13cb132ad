"""Labels from files: the same lists as from class folders, and no row, image or cell is dropped without a word."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image
from test_annotate import table

import annotate
import config
from annotation import labels_file
from annotation.layout import find_layout
from annotation.outputs import is_formula
from annotation.walk import Walk, refuse_vanished, walk
from system.errors import UserError

CLASSES = ["dog", "ox", "狗"]
LISTS = ("labels.txt", "train.txt", "valid.txt", "test.txt", "groups.tsv")


def write(data: Path, names: list[str]) -> Path:
    for name in names:
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        seed = np.frombuffer(name.encode(), np.uint8)
        small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
        Image.fromarray(small).resize((24, 20), Image.Resampling.BICUBIC).save(data / name, "PNG")
    return data


def settings(data: Path, *arguments: str):
    return config.load(None, [f"data_dir={data}", "scan_workers=1", *arguments])


def lists(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text("utf-8") for name in LISTS}


def rows_of(data: Path) -> list[dict[str, str]]:
    """A row per image below SPLIT/CLASS/ or CLASS/."""
    paths = sorted(file.relative_to(data).as_posix() for file in data.rglob("*.png"))
    return [
        {"path": path, "label": path.split("/")[-2], "split": path.split("/")[0] if path.count("/") == 2 else ""}
        for path in paths
    ]


@pytest.fixture(scope="module")
def trees(tmp_path_factory) -> dict[str, tuple[Path, dict[str, str]]]:
    """A data folder with splits and one without, and the lists that annotate makes of their class folders."""
    found = {}
    for kind, places in (("splits", {"train": 3, "valid": 1, "test": 1}), ("classes", {"": 6})):
        root = tmp_path_factory.mktemp(kind)
        names = [
            f"{split}{'/' if split else ''}{name}/{name} {split}{number}.png"
            for split, count in places.items() for name in CLASSES for number in range(count)
        ]  # fmt: skip
        data = write(root / "data", names)
        annotate.annotate(settings(data, f"lists_dir={root / 'lists'}"))
        found[kind] = (data, lists(root / "lists"))
    return found


def as_csv(rows: list[dict[str, str]], delimiter: str = ",", **names: str) -> str:
    text = io.StringIO(newline="")
    columns = [column for column in rows[0] if rows[0][column]]
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerows([[names.get(one, one) for one in columns], *([row[one] for one in columns] for row in rows)])
    return text.getvalue()


def save(file: Path, text: str, encoding: str = "utf-8") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode(encoding))
    return file


def _semicolons(rows, folder):
    return save(folder / "labels.csv", as_csv(rows, ";", path="File Name", label="Category"), "utf-8-sig")


def _tabs(rows, folder):
    return save(folder / "labels.tsv", as_csv(rows, "\t", path="image-path", label="class", split="subset"), "utf-16")


def _chinese(rows, folder):
    return save(folder / "表.csv", as_csv(rows, path="文件名", label="标签", split="划分"), "gbk")


def _json_lines(rows, folder):
    return save(folder / "labels.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def _json_list(rows, folder):
    return save(
        folder / "labels.json", json.dumps([{"file_name": r["path"], "label": [r["label"]]} for r in rows], indent=1)
    )


def _loose(rows, folder):
    """Spaces after delimiters, another encoding without a mark, and a name of one split over a column of all."""
    return save(folder / "train.csv", "\n" + as_csv(rows).replace(",", ", "), "utf-16-le")


def _metadata(rows, folder):
    return save(folder / "metadata.csv", as_csv(rows, path="file_name")).parent


def _studio_csv(rows, folder):
    rows = [
        {"choice": r["label"], "id": "1", "image": f"/data/upload/1/{n:08x}-{quote(r['path'].split('/')[-1])}"}
        for n, r in enumerate(rows)
    ]
    return save(folder / "project.csv", as_csv(rows))


def _studio_json(rows, folder):
    tasks = [
        {
            "id": n,
            "data": {"image": f"/data/local-files/?d={quote('photos/' + row['path'])}"},
            "annotations": [
                {"was_cancelled": True, "result": [{"value": {"choices": ["no choice"]}}]},
                {"result": [{"type": "choices", "value": {"choices": [row["label"]]}, "from_name": "choice"}]},
            ],
        }
        for n, row in enumerate(rows)
    ]
    return save(folder / "project.json", json.dumps(tasks))


def _studio_short_json(rows, folder):
    short = [{"image": f"/data/upload/{quote(r['path'].split('/')[-1])}", "choice": r["label"], "id": 1} for r in rows]
    return save(folder / "short.json", json.dumps(short))


def _paddle(names: dict[str, str], label_map: str, line: str, start: str = "") -> Callable:
    def build(rows, folder):
        for split, name in names.items():
            lines = [f"{start}{r['path']}{line}{CLASSES.index(r['label'])}\n" for r in rows if r["split"] == split]
            save(folder / name, "".join(lines))
        name, numbered = label_map.split()
        save(
            folder / name, "".join(f"{n} {one}\n" if numbered == "yes" else f"{one}\n" for n, one in enumerate(CLASSES))
        )
        return folder

    return build


FORMATS = {
    "comma": ("splits", lambda rows, folder: save(folder / "a.csv", as_csv(rows))),
    "semicolon": ("splits", _semicolons),
    "tab": ("splits", _tabs),
    "loose": ("splits", _loose),
    "gbk": ("splits", _chinese),
    "jsonl": ("splits", _json_lines),
    "metadata": ("splits", _metadata),
    "paddleclas": ("splits", _paddle({"train": "train_list.txt", "valid": "val_list.txt", "test": "test_list.txt"},
                                     "label_list.txt no", " ")),
    "paddlex": ("splits", _paddle({"train": "train.txt", "valid": "val.txt", "test": "test.txt"},
                                  "label.txt yes", " ")),
    "own": ("splits", _paddle({"train": "train.txt", "valid": "valid.txt", "test": "test.txt"}, "labels.txt no", "\t",
                              "data/")),
    "json": ("classes", _json_list),
    "label studio csv": ("classes", _studio_csv),
    "label studio json": ("classes", _studio_json),
    "label studio short json": ("classes", _studio_short_json),
    "no split": ("classes", lambda rows, folder: save(folder / "a.csv", as_csv(rows))),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_the_lists_are_those_of_the_class_folders(trees, tmp_path, monkeypatch, name):
    """Guards against a label, a split or a path of a file that is read otherwise than the folders that say the same."""
    kind, build = FORMATS[name]
    data, expected = trees[kind]
    monkeypatch.chdir(data.parent)
    file = build(rows_of(data), tmp_path / "labels")
    summary, layout, _ = annotate.annotate(settings(data, f"labels_file={file}", f"lists_dir={tmp_path / 'out'}"))
    assert lists(tmp_path / "out") == expected
    assert summary.left_out == {} and layout.labelled.repeated == {}


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """A data folder without class folders: 0.png to 7.png and two of one name."""
    monkeypatch.chdir(tmp_path)
    return write(Path("data"), [*(f"all/{number}.png" for number in range(8)), "one/x.png", "two/x.png"])


def run(call, data: Path, text: str, *arguments: str, name: str = "labels.csv"):
    save(Path(name), text)
    return call(annotate, f"data_dir={data}", f"labels_file={name}", "scan_workers=1", *arguments)


FAULTS = """path,label,split,note
all/0.png,cat,train,
all/1.png,dog,training,
all/2.png,,train,
all/3.png,cat,train,
all/3.png,dog,train,
all/4.png,cat,train,
all/4.png,cat,Train,
all/5.png,cat,fold7,
all/6.png,cat,,
all/gone.png,cat,train,
all/gone.png,cat,train,
x.png,cat,train,
,cat,train,
all/7.png,a	b,train,
outside.png,cat,train,
all/a,b.png,cat,train,x
C:\\photos\\8.png,dog,val,
all/4.png,cat,test,
all/9.png,"{""choices"": [""cat"", ""dog""]}",train,
"""
REASONS = {
    "data/all/2.png": "no_label", "data/all/3.png": "label_conflict", "data/all/4.png": "split_conflict",
    "data/all/5.png": "unknown_split", "data/all/6.png": "unknown_split", "data/all/gone.png": "not_found",
    "data/all/gone.png (labels.csv line 12)": "not_found", "data/x.png": "several_files",
    "data/../labels.csv line 14": "no_path", "data/all/7.png": "bad_cell", "data/outside.png": "outside",
    "data/../labels.csv line 17": "bad_row", "data/one/x.png": "unlabelled", "data/two/x.png": "unlabelled",
    "data/all/9.png": "multi_label",
}  # fmt: skip


def test_every_fault_is_counted_and_named(data, call):
    """Guards against a row or an image that is left aside without a word."""
    write(Path(), ["outside.png", "data/8.png", "data/all/9.png"])
    save(data / "notes.txt", "about")
    ended = run(call, data, FAULTS)
    assert ended.status == 0, ended.err
    rejects = table(data / "rejects.tsv")
    assert {row["path"]: row["reason"] for row in rejects} == REASONS
    details = {row["path"]: row["detail"] for row in rejects}
    assert "labels.csv line 5: cat; labels.csv line 6: dog" in details["data/all/3.png"]
    assert "'x.png' fits 2 files (one/x.png, two/x.png)" in details["data/x.png"]
    counts = {reason: list(REASONS.values()).count(reason) for reason in REASONS.values()}
    assert all(f"{count} {reason}" in ended.out for reason, count in counts.items())
    assert "1 files beside the images, which no row names" in ended.out
    assert (
        "path from column 'path', label from column 'label', split from column 'split'; not used: 'note'" in ended.out
    )
    assert "1 path of other places was found below data by its end (the first: C:\\photos\\8.png is 8.png)" in ended.out
    assert (data / "train.txt").read_text() == "data/all/0.png\t0\ndata/all/1.png\t1\n"
    assert (data / "valid.txt").read_text() == "data/8.png\t1\n"
    report = (data / "annotate.html").read_text("utf-8")
    assert all(f"<h3>{reason}: " in report for reason in counts)


def test_rows_that_agree_count_once_and_are_named(data, call):
    """Guards against an image that is in a list twice, or whose second row is dropped without a word."""
    ended = run(call, data, "path,label\nall/0.png,cat\nall/1.png,dog\n0.png,cat\n")
    assert "1 image has several rows with the same label, which count once (the first: all/0.png" in ended.out
    (row,) = table(data / "remarks.tsv")
    assert (row["path"], row["reason"]) == ("data/all/0.png", "repeated_row")
    assert row["detail"] == "2 rows with the same label: labels.csv line 2, labels.csv line 4"
    assert (data / "train.txt").read_text().count("all/0.png") == 1


def test_faults_of_lists_are_named(data, call):
    """Guards against an index that names another class, or the first of several labels."""
    save(Path("label.txt"), "0 cat\n1 dog\n")
    lines = (
        "all/0.png 0\nall/1.png 1\nall/2.png 2\nall/3.png -1\nall/4.png 0,1\nall/5.png\nall/6.png cat\nall/7.png 00\n"
    )
    assert run(call, data, lines, name="train_list.txt").status == 0
    found = {row["path"]: row["reason"] for row in table(data / "rejects.tsv")}
    assert {path: reason for path, reason in found.items() if "x.png" not in path} == {
        "data/all/2.png": "bad_index", "data/all/3.png": "bad_index", "data/all/4.png": "multi_label",
        "data/all/5.png": "no_label", "data/all/6.png": "bad_index",
    }  # fmt: skip


def test_annotations_that_differ_are_named(data, call):
    """Guards against the first annotator's label where the second gave another one, and against skipped tasks."""
    answers = [[["cat"]], [["dog"], ["dog"]], [["cat"], ["dog"]], [["cat", "dog"]], []]
    tasks = [
        {
            "data": {"image": f"all/{n}.png"},
            "annotations": [{"result": [{"value": {"choices": one}}]} for one in answer],
        }
        for n, answer in enumerate(answers)
    ]
    assert run(call, data, json.dumps(tasks), name="tasks.json").status == 0
    found = {row["path"]: row["reason"] for row in table(data / "rejects.tsv") if row["reason"] != "unlabelled"}
    names = ("label_conflict", "multi_label", "no_label")
    assert found == {f"data/all/{n}.png": reason for n, reason in enumerate(names, 2)}


def test_another_label_map_is_noticed(data, call):
    """Guards against yesterday's classes where only label_list.txt has changed."""
    save(Path("label_list.txt"), "cat\ndog\n")
    assert run(call, data, "all/0.png 0\nall/1.png 1\n", name="train_list.txt").status == 0
    save(Path("label_list.txt"), "dog\ncat\n")
    ended = run(call, data, "all/0.png 0\nall/1.png 1\n", name="train_list.txt")
    assert "0 decoded now" in ended.out and (data / "train.txt").read_text() == "data/all/0.png\t1\ndata/all/1.png\t0\n"


REFUSED = {
    "no header": ("a.csv", "all/0.png,cat\n", ["no column of paths and none of labels", "'all/0.png', 'cat'"]),
    "other header": ("a.csv", "path;species\nall/0.png;cat\n", ["no column of labels", "'path', 'species'", "label"]),
    "two columns": ("a.csv", "path,label,label\nall/0.png,cat,dog\n", ["two columns 'label'"]),
    "open quote": ("a.csv", 'path,label\n"all/0.png,cat\n', ["cannot be read as CSV", "close every quote"]),
    "empty": ("a.csv", "", ["no column of"]),
    "header only": ("a.csv", "path,label\n", ["there is no image in it"]),
    "no json": ("a.jsonl", '{"path": "all/0.png", "label": "cat"}\n{"path"\n', ["line 2 is not JSON"]),
    "json of texts": ("a.json", '["cat"]', ["'cat' is no object"]),
    "json columns": ("a.jsonl", '{"file": "all/0.png", "kind": "cat"}', ["no column of labels", "'file', 'kind'"]),
    "tasks": ("a.json", '[{"data": {"text": "x"}, "annotations": []}]', ["no column of paths", "'text'"]),
    "no label map": ("train.txt", "all/0.png 0\n", ["labels.txt or label.txt or label_list.txt beside it"]),
    "no train": ("a.csv", "path,label,split\nall/0.png,cat,test\n", ["test but no image of train"]),
    "nothing found": ("a.csv", "path,label\nb/0.png,cat\nb/1.png,\n", ["no row can be used", "2 not_found", "b/0.png"]),
    "alike": ("a.csv", "path,label\nall/0.png,cat\nall/1.png,cat \n", ["Unicode form, case or outer spaces"]),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_files_that_cannot_be_read_are_refused_in_words(data, call, name):
    """Guards against a traceback, and against a guess of what a column means."""
    file, text, words = REFUSED[name]
    run(call, data, text, name=file).refused(*words)


def test_other_refusals(data, call):
    """Guards against a traceback for a path, an encoding or a name that does not fit."""
    call(annotate, f"data_dir={data}", "labels_file=a.csv,b.csv").refused("a.csv is no file", "b.csv is no file")
    call(annotate, f"data_dir={data}", "labels_file=data").refused("no file of labels is known there")
    Path("odd.csv").write_bytes(b"path,label\n\xff\xff,\xff\n")
    call(annotate, f"data_dir={data}", "labels_file=odd.csv").refused("not text in UTF-8, UTF-16 or GB18030")
    text = "path,label\nall/0.png,cat\nall/1.png,dog\n"
    run(call, data, text, "group_by=folder").refused("group_by=folder: labels_file has no class folders")
    run(call, data, text, "lists_dir=.", "--format", "csv").refused("labels.csv would be overwritten", "lists_dir")
    assert Path("labels.csv").read_text() == text
    save(data / "train.txt", "all/0.png 0\n")
    save(data / "val.txt", "all/1.png 1\n")
    save(data / "label.txt", "cat\ndog\n")
    call(annotate, f"data_dir={data}", "labels_file=data").refused("train.txt would be overwritten")
    refused = call(annotate, f"data_dir={data}", f"labels_file={data}/val.txt,{data}/train.txt", "--format", "paddlex")
    refused.refused("train.txt would be overwritten", "label.txt would be overwritten")
    save(data / "metadata.csv", text)
    call(annotate, f"data_dir={data}", "labels_file=data").refused("train.txt, val.txt, metadata.csv may all be meant")


def test_labels_txt_decides_the_ids(data, call):
    """Guards against classes renumbered, or added, by a file of labels."""
    save(data / "labels.txt", "dog\ncat\n")
    assert run(call, data, "path,label\nall/0.png,cat\nall/1.png,dog\n").status == 0
    assert (data / "train.txt").read_text() == "data/all/0.png\t1\ndata/all/1.png\t0\n"
    text = "path,label\nall/0.png,cat\nall/1.png,cow\n"
    run(call, data, text).refused("'cow' is not a class of data/labels.txt", "delete")
    (data / "labels.txt").unlink()
    # The order of the label map that a list's indices stand for.
    save(Path("label_list.txt"), "dog\ncat\nrare\n")
    assert run(call, data, "all/0.png 1\nall/1.png 0\n", name="train_list.txt").status == 0
    assert (data / "labels.txt").read_text() == "dog\ncat\nrare\n"


@pytest.mark.effect("labels_file")
def test_a_changed_file_of_labels_is_noticed(data, call):
    """Guards against yesterday's labels, and against decoding again what nobody changed."""
    text = "path,label\n" + "".join(f"all/{n}.png,{'cat' if n % 2 else 'dog'}\n" for n in range(7))
    assert "7 decoded now" in run(call, data, text).out
    first = lists(data)
    assert "0 decoded now" in run(call, data, text).out
    ended = run(call, data, text.replace("0.png,dog", "0.png,cat"))
    assert "0 decoded now" in ended.out and "files beside the images" not in ended.out, "lists of annotate are counted"
    assert lists(data) != first
    assert "1 decoded now" in run(call, data, text + "7.png,cat\n").out, "an image that had no label has no verdict"
    run(call, data, text)
    assert lists(data) == first
    assert "all/7.png\t\t\tunlabelled" in (data / "rejects.tsv").read_text()


def test_a_split_with_bad_rows_only_is_not_made(data, call):
    """Guards against a valid split taken from train because the images of the given one are missing."""
    ended = run(call, data, "path,label,split\nall/0.png,cat,train\nall/1.png,dog,train\ngone.png,dog,valid\n")
    assert ended.status == 0 and "images are taken from train (valid_fraction" not in ended.out
    assert "no image in valid; give images that split" in ended.out


def test_the_group_column_keeps_images_together(data, call):
    """Guards against a patient in two splits, and against group_by that is ignored without a word."""
    write(data, [f"all/{number}.png" for number in range(40)])
    text = "path,label,group\n" + "".join(f"all/{n}.png,{'cat' if n % 2 else 'dog'},p{n // 4}\n" for n in range(40))
    ended = run(call, data, text, "group_by=x", "valid_fraction=0.2", "test_fraction=0.2")
    assert "labels_file: 10 groups" in ended.out and "group_by=x is not used" in ended.out
    split_of = {
        int(line.split("/")[-1].split(".")[0]): split
        for split in ("train", "valid", "test") for line in (data / f"{split}.txt").read_text().splitlines()
    }  # fmt: skip
    assert set(split_of.values()) == {"train", "valid", "test"}
    assert all(len({split_of[4 * group + n] for n in range(4)}) == 1 for group in range(10))
    text = "path,label,split,group\n" + "".join(
        f"all/{n}.png,{'ab'[n % 2]},{s},p\n" for n, s in enumerate(["train", "test"])
    )
    (data / "labels.txt").unlink()
    assert "1 of 1 test image has one of its group in train (p)" in run(call, data, text).out
    run(call, data, text + "all/0.png,a,train,q\nall/2.png,a,train,\n")
    assert "all/0.png\t\t\tgroup_conflict" in (data / "rejects.tsv").read_text()


def test_a_path_is_looked_up_in_a_fixed_order(tmp_path, monkeypatch):
    """Guards against an image of another folder with the same name."""
    monkeypatch.chdir(tmp_path)
    data = write(Path("data"), ["a.png", "sub/a.png", "sub/deep/b.png", "x/caf\u00e9.png"])
    file = save(data / "sub/labels.csv", "path,label\na.png,c\nb.png,c\nx\\cafe\u0301.png,c\ndata/a.png,c\n")
    images = find_layout(settings(data, f"labels_file={file}")).labelled.images
    assert {path.decode() for path in images} == {"sub/a.png", "sub/deep/b.png", "x/caf\u00e9.png", "a.png"}
    # A path whose folder has gone is no other file of that name.
    gone = [f"{data.absolute()}/gone/a.png", "gone/a.png", "/home/ann/gone/b.png"]
    file = save(data / "labels.csv", "path,label\nsub/a.png,c\n" + "".join(f"{path},c\n" for path in gone))
    labelled = find_layout(settings(data, f"labels_file={file}")).labelled
    assert [one.reason for one in labelled.strays.values()] == ["not_found"] * 3 and not labelled.repeated


def test_images_that_go_during_a_run_are_noticed(data):
    """Guards against lists of a share that was unmounted, where most images have no label."""
    save(Path("labels.csv"), "path,label\nall/0.png,cat\nall/1.png,dog\n")
    layout, seen = find_layout(settings(data, "labels_file=labels.csv")), Walk()
    assert len([*walk(layout, seen)]) == 10
    refuse_vanished(layout, seen)
    for number in range(2):
        (data / f"all/{number}.png").unlink()
    with pytest.raises(UserError, match="2 of 10 files have gone"):
        refuse_vanished(layout, seen)


ODD = [
    "=1+1.png",
    "-a.png",
    "@b.png",
    '"q".png',
    "a,b;c.png",
    " lead.png",
    "狗\u2028.png",
    "+1.png",
    "'x.png",
    "back\\s.png",
]


def test_csv_is_read_back_to_the_same_lists(tmp_path, monkeypatch, call):
    """Guards against names that quotes, delimiters or a spreadsheet change on their way."""
    monkeypatch.chdir(tmp_path)
    names = [f"{c}/p{n % 3}/{n}{odd}" if n % 2 else f"{c}/{odd}" for c in ("-1", " b ") for n, odd in enumerate(ODD)]
    data = write(Path("data"), names)
    arguments = ["data_dir=data", "scan_workers=1", r"group_by=p\d/", "valid_fraction=0.3", "test_fraction=0.2"]
    assert call(annotate, *arguments, "--format", "csv").status == 0
    content = (data / "labels.csv").read_bytes()
    assert content.startswith(b"\xef\xbb\xbf") and content.count(b"\r\n") == len(names) + 1
    rows = [*csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))]
    assert len(rows) == len(names) + 1 and not [cell for row in rows for cell in row if is_formula(cell)]
    assert call(annotate, *arguments[:2], "labels_file=data/labels.csv", "lists_dir=out").status == 0
    assert lists(Path("out")) == lists(data)
    # In another folder, and written once more.
    shutil.copytree(data, "moved", ignore=shutil.ignore_patterns("*.txt", ".*"))
    again = ["data_dir=moved", "labels_file=moved/labels.csv", "lists_dir=again", "--format", "csv"]
    assert call(annotate, *again).status == 0
    assert Path("again/labels.csv").read_bytes() == content
    assert call(annotate, "data_dir=moved", "labels_file=moved/labels.csv").status == 0
    # Up to date, without a second decode.
    assert "0 decoded now" in call(annotate, *again).out


@pytest.mark.parametrize("name", ["=cmd|x", "+x", "@y", "-z", "+1", "\uff1da"])
def test_a_class_that_a_spreadsheet_computes_is_refused(tmp_path, call, name):
    """Guards against labels.csv whose cells run as formulas, or come back as another class."""
    data = write(tmp_path / "data", [f"{name}/0.png", "b/0.png"])
    call(annotate, f"data_dir={data}", "scan_workers=1", "--format", "csv").refused("would compute", "rename")
    assert not (data / "train.txt").exists()


def test_files_of_a_folder_are_found_by_their_names(tmp_path):
    """Guards against a split that is left out because its list has another usual name."""
    for name in ("train/metadata.csv", "validation/metadata.csv"):
        save(tmp_path / "hub" / name, "file_name,label\n")
    files = labels_file.find_files(str(tmp_path / "hub"))
    assert [labels_file.split_of_file(file) for file in files] == ["train", "valid"]
    for name in ("train_list.txt", "val_list.txt"):
        save(tmp_path / "lists" / name, "")
    assert [file.name for file in labels_file.find_files(str(tmp_path / "lists"))] == ["train_list.txt", "val_list.txt"]
    save(tmp_path / "lists" / "val.txt", "")
    with pytest.raises(UserError, match="may all be meant"):
        labels_file.find_files(str(tmp_path / "lists"))
