"""Fuzzer of files of labels: whatever is in one, its rows are used, or named with a reason, or it is refused."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_fuzz import IN_PROCESS, accepted_or_refused, fuzz, write

import config
from annotation import labels_file
from annotation.layout import find_layout
from annotation.walk import Walk, walk

CELLS = st.sampled_from(
    [
        *("a.png", "b/a.png", "./x.png", "no.png", "..", "/", "C:\\a.png", "a.png\0", "http://[x/a.png", "\u5b57.png"),
        *("/data/upload/1/aaaaaaaa-a.png", "/data/local-files/?d=%ff", '{"choices": [[]]}', '"', '""', "9" * 5000),
        *("cat", "dog", "train", "val", "\udcff", "\ufeff", "a\tb", "=1", "0", "-1", "0,1", "\u0664", "n" * 9000),
    ]
) | st.text(max_size=12)  # fmt: skip
# A good row first, so that most files are read to their end.
ROWS = st.lists(st.lists(CELLS, min_size=1, max_size=5), max_size=5).map(
    lambda rows: [["a.png", "cat", "train"], *rows]
)
TABLES = st.builds(
    lambda header, rows, delimiter: "\n".join(delimiter.join(row) for row in ([header, *rows] if header else rows)),
    st.sampled_from(["path label", "path label split group", "file_name class subset"]).map(str.split) | st.just([])
    | st.lists(CELLS, max_size=3), ROWS, st.sampled_from([",", ";", "\t", " "]),
)  # fmt: skip
VALUES = st.recursive(
    CELLS | st.just("\ud800") | st.none() | st.booleans() | st.floats() | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["choices", "image", "result"]), inner),
    max_leaves=6,
)
KEYS = st.sampled_from(["path", "label", "split", "group"])
TASK = {"data": {"image": "b/a.png"}, "annotations": [{"result": [{"value": {"choices": ["dog"]}}]}]}
RECORDS = st.lists(st.dictionaries(KEYS, VALUES, min_size=1), max_size=4).map(
    lambda rows: [{"path": "a.png", "label": "cat"}, *rows]
) | st.lists(st.fixed_dictionaries({"data": VALUES, "annotations": VALUES}), max_size=4).map(lambda rows: [TASK, *rows])


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder with files that the cells name."""
    folder = tmp_path_factory.mktemp("labels")
    for name in ("data/a.png", "data/b/a.png", "data/x.png", "data/\u5b57.png", "out.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    (folder / "label.txt").write_text("cat\ndog\n")
    return folder


def check(folder, file) -> None:
    def read() -> None:
        values = [f"data_dir={folder / 'data'}", f"lists_dir={folder / 'lists'}", f"labels_file={file}"]
        layout, seen = find_layout(config.load(None, values)), Walk()
        found = [*walk(layout, seen)]
        labels = labels_file.read(str(file))
        counts = Counter(bool(one.reason) for one in found)
        # Every file once, and every row is an image's or has a reason.
        assert len({one.path for one in found}) == len(found) == 4 + len(layout.labelled.strays)
        assert counts[False] <= len(labels.rows) and counts[False] > 0
        assert all(one.class_name in layout.class_names and one.split for one in found if not one.reason)
        for one in found:
            (one.split + one.class_name + one.detail).encode()

    accepted_or_refused(read)


@fuzz(IN_PROCESS)
@given(text=TABLES, name=st.sampled_from(["t.csv", "t.txt", "t.tsv"]))
def test_tables(images, text, name):
    """Guards against a traceback, or a row without an end, for a table of any cells."""
    check(images, write(images / name, text))


@fuzz(IN_PROCESS)
@given(records=RECORDS, as_lines=st.booleans())
def test_json(images, records, as_lines):
    """Guards against a traceback for JSON of any shape."""
    lines = [json.dumps(record) for record in records]
    check(images, write(images / "t.json", "\n".join(lines) if as_lines else f"[{','.join(lines)}]"))


@fuzz(IN_PROCESS)
@given(content=st.binary(max_size=200))
def test_bytes(images, content):
    """Guards against a traceback for a file that is no text."""
    for name in ("t.csv", "t.json", "t.txt"):
        (images / name).write_bytes(content)
        check(images, images / name)
