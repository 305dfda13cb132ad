"""Fuzzer: whatever the input, a command takes or refuses it in one line (`make.py fuzz`; a part in `make.py test`)."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, seed
from hypothesis import settings as examples
from hypothesis import strategies as st

import config
import export
from annotation.lists import read_list
from inference import description
from models import runs
from models.checkpoint import Run
from system.cli import parse_overrides
from system.errors import UserError
from system.yaml_files import MAX_NESTING, parse_yaml

ROOT = Path(__file__).resolve().parents[2]
# Examples of each test in process, and through the command line; `make.py fuzz` raises both.
IN_PROCESS = int(os.environ.get("FUZZ_EXAMPLES", "100"))
COMMANDS = int(os.environ.get("FUZZ_COMMANDS", "3"))

# What YAML, Python, paths and arithmetic stumble over; each stands for its kind.
ODD = [
    *("", "~", "[]", "{}", "!!int ''", "!!timestamp x", "!!bool x", "!!binary x", "!!float x", "2024-99-99", "&a [*a]"),
    *(
        "9" * 20,
        "9" * 5000,
        "0x" + "f" * 5000,
        "1e308",
        "-1e308",
        "1e-320",
        ".inf",
        "-.inf",
        ".nan",
        "1:2:3",
        "-1",
        "0",
    ),
    *(
        "n" * 300,
        "字" * 200,
        "a/" * 3000,
        "a" * 5000,
        '"a\\0b"',
        "\udcff",
        "\x07",
        "$0_$50",
        "..",
        "/",
        "on",
        "*a",
        "'",
    ),
    *("[" * 3000, "{a: " * 3000, "- " * 3000, "[1, 2]", "[1e-320, 1e308]", "[3, 1e9, 1]", "{a: 1}", "? [a]", "<<: 1"),
    *("!!set {a}", "!!omap [a]", "!!pairs [a]", "!!int 1_", "!!python/none", "%", "@", "a: b: c", "--- 1\n--- 2"),
]
ODD_KEYS = ["augment", "format", "AUGMENT.HUE", "a.b", "augment.hue.x", "." * 50, "a" * 5000]
VALUES = st.sampled_from(ODD) | st.text(max_size=40) | st.integers().map(str) | st.floats().map(str)
KEYS = st.sampled_from([*config.known_keys(), *ODD_KEYS]) | st.text(max_size=20)
ARGUMENTS = st.lists(st.builds("{}={}".format, KEYS, VALUES) | VALUES, min_size=1, max_size=3)
FILES = st.lists(st.builds("{}: {}".format, KEYS, VALUES) | VALUES, max_size=4).map("\n".join)
PATHS = st.sampled_from(["a.jpg", "a" * 5000, "a/" * 3000, "a\0b", "", " ", "..", "/"]) | st.text(max_size=20)
INDICES = st.sampled_from(["0", "1", "-1", "9" * 5000, "0" * 5000, "²", "१", "1.0", "", "x"]) | st.text(max_size=8)
LISTS = st.lists(st.builds("{}\t{}".format, PATHS, INDICES) | PATHS, max_size=5).map("\n".join)


def fuzz(count: int) -> Callable[[Callable], Callable]:
    quiet = examples(
        max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=False
    )
    return lambda test: seed(1)(quiet(test))


def accepted_or_refused(call: Callable[[], object]) -> None:
    try:
        call()
    except UserError as error:
        assert len(str(error)) < 10_000


def write(file: Path, text: str) -> Path:
    file.write_bytes(text.encode("utf-8", "surrogateescape" if "\udcff" in text else "replace"))
    return file


@fuzz(IN_PROCESS)
@given(arguments=ARGUMENTS)
def test_settings(arguments):
    """Guards against a traceback for a value on the command line."""
    accepted_or_refused(lambda: config.load(None, arguments))


@fuzz(IN_PROCESS)
@given(text=FILES)
def test_files_of_settings(tmp_path_factory, text):
    """Guards against a traceback for a file of settings, or for the damaged settings of a run."""
    file = write(tmp_path_factory.getbasetemp() / "fuzz.yaml", text)
    accepted_or_refused(lambda: config.load(file))
    accepted_or_refused(lambda: config.load(base=file))


@fuzz(IN_PROCESS)
@given(text=LISTS)
def test_lists(tmp_path_factory, text):
    """Guards against a traceback for a list of images."""
    file = write(tmp_path_factory.getbasetemp() / "fuzz.txt", text)
    accepted_or_refused(lambda: read_list(file, 3))


# What may happen to a file of a folder: the file, how it is changed, where, and with what.
CHANGES = st.tuples(
    st.integers(0, 30),
    st.sampled_from(["line", "value", "cut", "byte", "whole", "removed", "folder", "doubled"]),
    st.floats(0, 1, exclude_max=True),
    VALUES,
)


def change(folder: Path, number: int, how: str, where: float, text: str) -> None:
    """Damages one file of a folder, the same one for the same arguments."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    file = files[number % len(files)]
    data = file.read_bytes()
    place, odd = int(where * len(data)), text.encode("utf-8", "surrogateescape" if "\udcff" in text else "replace")
    start, end = data.rfind(b"\n", 0, place) + 1, data.find(b"\n", place) % (len(data) + 1)
    key = data[start:end].partition(b":")[0]
    file.unlink()
    if how == "folder":
        file.mkdir()
    elif how != "removed":
        changed = {
            "line": data[:start] + odd + data[end:],
            "value": data[:start] + key + b": " + odd + data[end:],
            "cut": data[:place],
            "byte": data[:place] + bytes([data[place] ^ 0x41]) + data[place + 1 :] if data else odd,
            "whole": odd,
            "doubled": data[:end] + b"\n" + data[start:],
        }
        file.write_bytes(changed[how])


@contextlib.contextmanager
def damaged(folder: Path, changes: tuple) -> Iterator[Path]:
    """A damaged copy of a folder, which goes away again."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(shutil.copytree(folder, Path(place) / folder.name, copy_function=os.link))
        change(copy, *changes)
        yield copy


@fuzz(IN_PROCESS)
@given(changes=CHANGES)
def test_run_folders(trained, changes):
    """Guards against a traceback for a run whose files are damaged, or were edited by hand."""
    with damaged(trained.path, changes) as folder:
        for call in (
            lambda: runs.open_run(str(folder), "output", ["threads=1"]),
            lambda: Run(folder).load_network(),
            lambda: (Run(folder).state, Run(folder).history(), Run(folder).threshold),
            lambda: runs.find_run(None, folder.parent),
        ):
            accepted_or_refused(call)


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory) -> Path:
    """An export of `trained`."""
    output = tmp_path_factory.mktemp("fuzzed")
    return export.export(trained, trained.settings.model_copy(update={"export_dir": str(output)}))


@fuzz(IN_PROCESS)
@given(changes=CHANGES, signed=st.booleans())
def test_export_folders(exported, changes, signed):
    """Guards against a traceback for an export that is damaged, also where its own digest is right again."""
    with damaged(exported, changes) as folder, pytest.MonkeyPatch.context() as patch:
        if signed:
            patch.setattr(description, "_check_digests", lambda *arguments: None)
        accepted_or_refused(lambda: description.read(folder))


def run_command(folder: Path, *arguments: str | bytes) -> None:
    """Runs a command, which has to end in success or in one line."""
    ended = subprocess.run(
        [sys.executable, str(ROOT / os.fsdecode(arguments[0])), *arguments[1:]],
        cwd=folder, capture_output=True, timeout=200,
    )  # fmt: skip
    assert b"Traceback" not in ended.stderr, ended.stderr
    assert ended.returncode in (0, 1, 2), ended.stderr


by_command = pytest.mark.slow


@by_command
def test_settings_of_commands(tmp_path):
    """Guards against a traceback on the way from the command line to the settings."""

    @fuzz(COMMANDS)
    @given(arguments=ARGUMENTS)
    def run(arguments: list[str]) -> None:
        # No command line has a null character; names without `=` are options or files, which argparse handles.
        given = [os.fsencode(text.replace("\0", "")) for text in arguments if "=" in text and not text.startswith("-")]
        run_command(tmp_path, "train.py", *given, b"lists_dir=/nonexistent")

    run()


@by_command
def test_lists_of_commands(data, arguments_for, tmp_path):
    """Guards against a traceback for a list that was edited, in the command that reads it first."""
    names = ("labels.txt", "train.txt", "valid.txt")

    @fuzz(COMMANDS)
    @given(name=st.sampled_from(names), text=LISTS)
    def run(name: str, text: str) -> None:
        for each in names:
            shutil.copy(data / each, tmp_path / each)
        write(tmp_path / name, text)
        run_command(tmp_path, "train.py", *arguments_for(data, epochs=1, lists_dir=str(tmp_path), overwrite=True))

    run()


@by_command
@pytest.mark.parametrize("command", ["evaluate.py", "predict.py", "export.py"])
def test_run_folders_of_commands(trained, drawn, command):
    """Guards against a traceback of any command that reads a damaged run."""

    @fuzz(COMMANDS // 3)
    @given(changes=CHANGES)
    def run(changes: tuple) -> None:
        with damaged(trained.path, changes) as folder:
            image = str(next((drawn / "test").rglob("*.jpg")))
            named = [image, "--run", str(folder)] if command == "predict.py" else [str(folder), "export_dir=infer"]
            run_command(folder.parent, command, *named, "threads=1", "device=cpu")

    run()


@by_command
def test_export_folders_of_commands(exported, drawn):
    """Guards against a traceback of predict.py for a damaged export."""

    @fuzz(COMMANDS)
    @given(changes=CHANGES)
    def run(changes: tuple) -> None:
        with damaged(exported, changes) as folder:
            image = str(next((drawn / "test").rglob("*.jpg")))
            run_command(folder.parent, "predict.py", image, "--model", str(folder), "threads=1", "device=cpu")

    run()


@pytest.mark.parametrize("text", ["!!int ''", "!!timestamp x", "!!bool x", "2024-99-99", "[" * 3000, "9" * 5000])
def test_yaml_that_does_not_fit_is_refused(text):
    """Guards against errors of conversions that are no YAMLError."""
    with pytest.raises(yaml.YAMLError):
        parse_yaml(text)
    with pytest.raises(UserError):
        parse_overrides([f"epochs={text}"])
    assert parse_yaml("[" * (MAX_NESTING - 1) + "]" * (MAX_NESTING - 1))
