"""Fuzzer: whatever the input, a command takes or refuses it in one line (`make fuzz`; a part in `make test`)."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, seed
from hypothesis import settings as examples
from hypothesis import strategies as st

import config
from annotation.lists import read_list
from system.cli import parse_overrides
from system.errors import UserError
from system.yaml_files import MAX_NESTING, parse_yaml

ROOT = Path(__file__).resolve().parents[2]
# Examples of each test in process, and through the command line; `make fuzz` raises both.
IN_PROCESS = int(os.environ.get("FUZZ_EXAMPLES", "100"))
COMMANDS = int(os.environ.get("FUZZ_COMMANDS", "0"))

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


@pytest.mark.skipif(not COMMANDS, reason="commands are fuzzed by `make fuzz`")
def test_commands(tmp_path):
    """Guards against a traceback on the way from the command line to the settings."""

    @fuzz(COMMANDS)
    @given(arguments=ARGUMENTS)
    def run(arguments: list[str]) -> None:
        # No command line has a null character; names without `=` are options or files, which argparse handles.
        given = [os.fsencode(text.replace("\0", "")) for text in arguments if "=" in text and not text.startswith("-")]
        command = [sys.executable, str(ROOT / "train.py"), *given, b"lists_dir=/nonexistent"]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=100)
        assert ended.returncode in (1, 2), ended.stderr
        assert b"Traceback" not in ended.stderr, ended.stderr

    run()


@pytest.mark.parametrize("text", ["!!int ''", "!!timestamp x", "!!bool x", "2024-99-99", "[" * 3000, "9" * 5000])
def test_yaml_that_does_not_fit_is_refused(text):
    """Guards against errors of conversions that are no YAMLError."""
    with pytest.raises(yaml.YAMLError):
        parse_yaml(text)
    with pytest.raises(UserError):
        parse_overrides([f"epochs={text}"])
    assert parse_yaml("[" * (MAX_NESTING - 1) + "]" * (MAX_NESTING - 1))
