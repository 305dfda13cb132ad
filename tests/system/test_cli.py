"""Command lines: what becomes of output that cannot be written or encoded."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from system import cli

ROOT = Path(__file__).resolve().parents[2]
PRINT = "import sys; from system import cli; cli.command(lambda: {body})"


def run(body: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", PRINT.format(body=body)], cwd=ROOT, stderr=subprocess.PIPE, text=True, **options
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    "body", ["print('x')", "print('x' * 100000)", "print('x', flush=True)", "sys.exit(print('x'))"]
)
def test_full_stdout_is_one_line(body):
    """Guards against a traceback, and against success, where the output is lost: at once, at a flush, or at the end."""
    with open("/dev/full", "w") as full:
        ended = run(body, stdout=full)
    assert ended.returncode == 1
    assert ended.stderr.startswith("stdout: cannot be written (No space left on device); ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("body", ["print('x')", "print('x' * 100000)"])
def test_reader_that_left_is_no_error(body):
    """Guards against a message where `| head` has read enough."""
    reader, writer = os.pipe()
    os.close(reader)
    ended = run(body, stdout=writer)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, "")


@pytest.mark.parametrize("encoding", ["ascii", "gbk", "utf-8:strict"])
def test_characters_that_the_terminal_lacks_are_escaped(encoding):
    """Guards against UnicodeEncodeError for names of classes and files."""
    ended = run(r"print('\udcff\u00f1')", stdout=subprocess.PIPE, env=os.environ | {"PYTHONIOENCODING": encoding})
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("\\udcff")


def test_message_with_line_breaks_is_one_line():
    """Guards against messages that a name with a line break tears apart."""
    ended = run(r"cli.parse_overrides(['a\nb'])", stdout=subprocess.PIPE)
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)


def test_settings_are_taken_as_paddlex_writes_them(monkeypatch):
    """Guards against -o that swallows a file name, or loses one of several settings."""
    parser = cli.parser("A command.")
    parser.add_argument("settings", nargs="*")
    monkeypatch.setattr(sys, "argv", ["a.py", "-c", "b.yaml", "-o", "epochs=3", "seed=2", "-o", "run_name=x"])
    found = parser.parse_intermixed_args()
    assert (found.config, found.settings) == ("b.yaml", ["epochs=3", "seed=2", "run_name=x"])
    for line in (["-o"], ["-o", "image.jpg"]):
        with pytest.raises(SystemExit) as ended:
            parser.parse_intermixed_args(line)
        assert ended.value.code == 2
