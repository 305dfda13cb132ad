"""Windows and macOS, emulated on whatever system runs the tests: flags, missing modules and code pages are set by hand.

docs/systems.md says what was emulated only, and what was not tried.
"""

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from test_structure import MODULES, tree_of

import annotate
import export
import predict
from annotation.worker import limit_memory
from inference.sorting import Sorter
from system import machine, publishing, windows, workers
from system.errors import UserError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def on_windows(monkeypatch):
    """The flags of system/windows.py as they are there."""
    monkeypatch.setattr(windows, "IS_WINDOWS", True)
    monkeypatch.setattr(windows, "IGNORES_CASE", True)
    monkeypatch.setattr(windows, "PAUSES", (0.0, 0.0))


def split_by_windows(line: str) -> list[str]:
    """Divides a command line as programs of Windows do that are built with Microsoft's C runtime."""
    found, word, quoted, begun = [], "", False, False
    for backslashes, other in re.findall(r"(\\*)(.?)", line):
        if other == '"':
            word += "\\" * (len(backslashes) // 2)
            if len(backslashes) % 2:
                word += '"'
            else:
                quoted = not quoted
            begun = True
        elif other in ("", " ") and not quoted:
            word, begun = word + backslashes, begun or bool(backslashes)
            found += [word] if begun else []
            word, begun = "", False
        else:
            word, begun = word + backslashes + other, True
    return found


@pytest.mark.parametrize(
    "words",
    [
        ["python", "train.py", "data_dir=my photos"],
        ["python", "export.py", "C:\\Users\\张三\\runs & more\\", "image_shape=[3,96,96]"],
        ["a,b", "c|d", "e(f)", "g'h", 'say "hi"', "", "%", "plain"],
    ],
)
def test_hints_are_quoted_for_cmd_and_powershell(on_windows, words):
    """Guards against a hint in single quotes, which cmd takes as they are, or one divided at & (emulated)."""
    line = windows.quoted(words)
    assert split_by_windows(line) == words
    outside = re.sub(r'"(?:\\.|[^"\\])*"', "", line)
    assert not re.search(r"[&|,()']", outside)


def test_no_hint_is_quoted_for_one_shell_only():
    """Guards against a new hint that only the shells of Linux and macOS understand."""
    users = [name for name in MODULES if "shlex" in ast.unparse(tree_of(name))]
    assert users == ["system.windows"]


def test_ports_are_claimed_in_one_place():
    """Guards against a second server whose port another program of Windows may share."""
    assert [name for name in MODULES if "SO_REUSEADDR" in MODULES[name].read_text("utf-8")] == ["system.windows"]


def test_hints_follow_the_system(on_windows):
    """Guards against a helper that a command does not use (emulated)."""
    line = annotate.next_command("my settings.yaml", ["data_dir=D:\\my photos", "epochs=3"])
    assert line == 'python train.py --config "my settings.yaml" "data_dir=D:\\my photos"'


@pytest.mark.parametrize("name", ["CON", "nul", "aux.old", "COM1", "lpt9.jpg", "a:b", "a?", "dog.", "dog ", "a|b"])
def test_names_that_windows_cannot_have_are_known(on_windows, name):
    """Guards against images copied into a device or a stream instead of a folder (emulated)."""
    assert windows.name_fault(name)


@pytest.mark.parametrize("name", ["console", "狗", "dog.v2", ".hidden", "com", "com10", "a b", "nullable"])
def test_names_that_windows_can_have_are_not_refused(on_windows, name):
    """Guards against a refusal of names that only begin like a device's (emulated)."""
    assert windows.name_fault(name) == ""


@pytest.fixture
def sorter():
    """Returns a function: class names and options -> inference.sorting.Sorter."""

    def build(class_names: list[str], folder: str = "sorted", link: bool = False) -> Sorter:
        return Sorter(folder, SimpleNamespace(class_names=class_names, threshold=None), 0.0, link)

    return build


def test_sort_refuses_classes_that_folders_cannot_hold(on_windows, sorter, monkeypatch):
    """Guards against two classes in one folder, and a class in none (emulated)."""
    with pytest.raises(UserError, match=r"class 'nul' cannot be the name of a folder .Windows keeps this name"):
        sorter(["dog", "nul"])
    with pytest.raises(UserError, match=r"differ in case only .dog. share a folder here; rename"):
        sorter(["Dog", "dog"])
    monkeypatch.setattr(windows, "IS_WINDOWS", False)
    monkeypatch.setattr(windows, "IGNORES_CASE", False)
    sorter(["Dog", "dog", "nul"])


def test_links_without_rights_are_an_error_in_words(sorter, drawn, tmp_path, monkeypatch):
    """Guards against a traceback, or advice to free space, where an account may make no links (emulated)."""

    def refuse(*_: object) -> None:
        raise OSError(1314, "A required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    image = next((drawn / "train").rglob("*.jpg"))
    with pytest.raises(UserError, match=r"privilege is not held by the client.; leave out --link"):
        sorter(["ox", "dog"], str(tmp_path / "sorted"), True).add(
            SimpleNamespace(path=str(image)), np.array([0.9, 0.1], np.float32)
        )


def test_a_file_in_use_is_tried_again(on_windows, tmp_path, monkeypatch):
    """Guards against a training that ends because a virus scanner looked at its checkpoint (emulated)."""
    calls, replace = [], os.replace

    def busy(source: str, target: str) -> None:
        calls.append(target)
        if len(calls) < 3:
            raise PermissionError(13, "Permission denied", str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", busy)
    publishing.write_text(tmp_path / "state.json", "new")
    assert (tmp_path / "state.json").read_text() == "new" and len(calls) == 3
    with publishing.publishing(tmp_path) as new:
        new.open("history.csv").write("1\n")
    assert (tmp_path / "history.csv").read_text() == "1\n"

    def always(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", always)
    with pytest.raises(UserError, match=r"state.json: cannot be written .Permission denied.; "):
        publishing.write_text(tmp_path / "state.json", "newer")
    assert (tmp_path / "state.json").read_text() == "new"


def test_paddle_gets_no_path_that_windows_would_garble(on_windows, call, trained, drawn, tmp_path, monkeypatch):
    """Guards against an export in a folder called 张三 that Paddle's C++ code cannot write or read (emulated)."""
    given = []
    config, save = paddle.inference.Config, paddle.jit.save

    def note_config(*names: str) -> paddle.inference.Config:
        given.extend(names)
        return config(*names)

    def note_save(layer: object, path: str, **options: object) -> None:
        given.append(path)
        save(layer, path, **options)

    monkeypatch.setattr(paddle.inference, "Config", note_config)
    monkeypatch.setattr(paddle.jit, "save", note_save)
    monkeypatch.chdir(drawn.parent)
    place = tmp_path / "张三"
    exported = call(export, str(trained.path), f"export_dir={place}")
    assert exported.status == 0, exported.err
    assert f'--model "{place}' in exported.out or f"--model {place}" in exported.out
    image = next((drawn / "test").rglob("*.jpg"))
    predicted = call(predict, str(image), "--model", str(place / trained.name))
    assert predicted.status == 0, predicted.err
    assert len(given) >= 6 and all(name.isascii() for name in given), given
    assert os.getcwd() == str(drawn.parent)


# As Python starts where these modules and functions are missing, and new processes do not inherit memory.
WITHOUT_POSIX = """
import asyncio, multiprocessing, os, signal, sys
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
for name in ("sched_getaffinity", "sched_setaffinity", "pread", "nice", "statvfs", "sysconf", "fork"):
    delattr(os, name)
for name in ("SIGHUP", "SIGQUIT"):
    delattr(signal, name)
def refuse(*_): raise NotImplementedError
asyncio.unix_events._UnixSelectorEventLoop.add_signal_handler = refuse
multiprocessing.set_start_method("spawn")
"""


def test_the_commands_run_without_what_windows_lacks(draw_data, arguments_for, tmp_path):
    """Guards against fcntl, resource, fork or SIGHUP on the path of a command, and against a line that a console of
    Windows cannot print: an emoji in code page 936, Chinese in 1252 (emulated).
    """
    data = draw_data(tmp_path / "数据", ["ox", "dog"], {"train": 4, "valid": 2, "test": 2}, (24, 24))
    for split in ("train", "valid", "test"):
        (data / split / "dog").rename(data / split / "狗🐕")
    (data / "labels.txt").unlink()
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_POSIX)
    here = ["output_dir=output", "threads=1", "device=cpu"]
    image = next((data / "test").rglob("*.jpg")).relative_to(tmp_path)
    for encoding, line in (
        ("cp1252", ["annotate.py", *arguments_for("数据", epochs=1)]),
        ("cp936", ["train.py", *arguments_for("数据", epochs=1)]),
        ("cp1252", ["predict.py", str(image), "--run", "output/short", "--sort", "sorted", *here]),
    ):
        environment = {"PYTHONPATH": str(tmp_path), "PYTHONIOENCODING": encoding}
        ended = subprocess.run(
            [sys.executable, str(ROOT / line[0]), *line[1:]],
            cwd=tmp_path, env=os.environ | environment, capture_output=True, timeout=120,
        )  # fmt: skip
        assert ended.returncode == 0, (line[0], ended.stderr.decode(encoding, "replace"))
    assert (data / "train.txt").read_text(encoding="utf-8").splitlines()[0].startswith("数据/train/ox/")


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_processes_that_paddle_cannot_start_are_refused(settings_for, drawn, monkeypatch, system):
    """Guards against num_workers that Paddle sets to 0 by itself on Windows and macOS (emulated)."""
    monkeypatch.setattr(workers.sys, "platform", system)
    with pytest.raises(
        UserError, match=r"num_workers=2: Paddle reads in processes on Linux only; use num_workers=auto"
    ):
        workers.choose_workers(settings_for(drawn, num_workers=2), "cpu")
    assert workers.choose_workers(settings_for(drawn, num_workers="auto"), "gpu:0") == 0


def test_lists_on_another_drive_are_refused_in_words(call, data, arguments_for, monkeypatch):
    """Guards against a traceback where no relative path leads from one drive of Windows to another (emulated)."""
    real = os.path.relpath

    def refuse(path: str, start: str = ".") -> str:
        if os.path.isabs(start):
            raise ValueError("path is on mount 'C:', start on mount 'D:'")
        return real(path, start)

    Path("lists").mkdir()
    monkeypatch.setattr(os.path, "relpath", refuse)
    refused = call(annotate, "--format", "paddlex", *arguments_for("data", lists_dir="lists"))
    refused.refused("lists: it is on another drive than data", "set lists_dir to a folder on that drive")


def test_paths_have_slashes(on_windows):
    """Guards against lists and tables of Windows that no other system reads (emulated)."""
    assert windows.slashed("signs\\test\\ox\\1.jpg") == "signs/test/ox/1.jpg"


def test_both_builds_of_paddle_are_noticed(monkeypatch, capsys):
    """Guards against a GPU that stays idle because the CPU build was installed over the GPU build (emulated)."""
    machine.warn_of_two_builds()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "3.2.2")
    machine.warn_of_two_builds()
    assert "paddlepaddle 3.2.2 and paddlepaddle-gpu 3.2.2 are both installed" in capsys.readouterr().err


def test_memory_without_limits_is_no_error(monkeypatch):
    """Guards against an annotate.py that needs the module resource (emulated)."""
    monkeypatch.setattr("annotation.worker.resource", None)
    limit_memory(1)


def test_every_text_file_is_opened_with_its_encoding():
    """Guards against text in the code page of the system, which is another on each Windows."""
    line = [
        "ruff",
        "check",
        "--preview",
        "--select",
        "PLW1514",
        "--exclude",
        "tests,bench",
        "--output-format",
        "concise",
    ]
    ended = subprocess.run([sys.executable, "-m", *line, "."], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout


def test_requirements_are_ascii():
    """Guards against a file that pip cannot read on Windows, where it takes the code page of the system."""
    assert all(path.read_bytes().isascii() for path in ROOT.glob("requirements*.txt"))


def test_line_ends_are_the_same_everywhere():
    """Guards against sources that a checkout on Windows changes, and digests and golden texts with them."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    asked = ["make.py", "tests/golden/errors.txt", "signs/labels.txt", "docs/explore.png", ".ci/run"]
    line = ["git", "check-attr", "text", "eol", "--", *asked]
    said = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.count("eol: lf") == len(asked) and "explore.png: text: unset" in said, said
