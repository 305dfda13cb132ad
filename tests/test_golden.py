"""Golden texts: what users read, in full; a change of it is seen, and made on purpose (`python make.py golden`)."""

import ast
import contextlib
import difflib
import html.parser
import io
import os
import re
import sys
from pathlib import Path

import pytest

import config
from annotation.layout import Layout
from annotation.splits import Summary
from annotation.summary import print_summary

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = Path(__file__).parent / "golden"
COMMANDS = [path.stem for path in sorted(ROOT.glob("*.py")) if "cli.command(" in path.read_text("utf-8")]
PAGES = sorted(
    [
        *ROOT.glob("annotation/*.html"),
        *ROOT.glob("evaluation/*.html"),
        *ROOT.glob("exploration/*.html"),
        *ROOT.glob("reviewing/page/*.html"),
        *ROOT.glob("serving/page/*.html"),
        *ROOT.glob("system/pages/*.html"),
    ]
)
# Calls whose text a user reads, or a client of the server.
ERRORS = ("UserError", "problems", "ImageError", "RefusalError")
pytestmark = pytest.mark.golden


def check(name: str, text: str) -> None:
    """Compares a text with the one that was kept; writes it where GOLDEN=write."""
    file = GOLDEN / f"{name}.txt"
    if os.environ.get("GOLDEN") == "write":
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8", newline="\n")
    kept = file.read_text(encoding="utf-8")
    changed = "\n".join(difflib.unified_diff(kept.splitlines(), text.splitlines(), "kept", "now", lineterm="", n=0))
    # Releases of Python break lines of a help in other places.
    assert kept.split() == text.split(), f"{changed}\nif this is meant: make.py golden, and look at the difference"


def words(node: ast.expr) -> str:
    """The text of an argument, with what is filled in as {...}."""
    if isinstance(node, ast.Constant):
        return str(node.value) if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(words(part) if isinstance(part, ast.Constant) else "{...}" for part in node.values)
    if isinstance(node, ast.BinOp):
        return words(node.left) + words(node.right)
    if isinstance(node, ast.IfExp):
        return f"[{words(node.body)}|{words(node.orelse)}]"
    return "{...}"


def messages() -> list[str]:
    """Every error of the project as `module: text`, in the order of modules and lines."""
    found = []
    for file in sorted({*ROOT.glob("*.py"), *(path for room in rooms() for path in (ROOT / room).rglob("*.py"))}):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS:
                text = " | ".join(filter(None, (words(argument) for argument in node.args)))
                found.append((file.relative_to(ROOT).as_posix(), node.lineno, f"{node.func.id}: {text}"))
    return [f"{name}: {text}" for name, _, text in sorted(found)]


def rooms() -> list[str]:
    return [path.parent.name for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests"]


def test_errors():
    """Guards against an error whose words, or whose remedy, were lost in a change of something else."""
    check("errors", "\n".join(messages()) + "\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_help(name, monkeypatch):
    """Guards against an option that has gone from the help, or that says what another one does."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    command, text = __import__(name), io.StringIO()
    with contextlib.redirect_stdout(text), pytest.raises(SystemExit):
        command.main()
    check(f"help-{name}", text.getvalue())


class Structure(html.parser.HTMLParser):
    """Lists the elements of a page with what scripts, styles and screen readers know them by."""

    KNOWN_BY = ("id", "class", "role", "aria-label", "aria-live", "name", "type", "for", "href", "lang", "data-text")

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = " ".join(f'{key}="{value}"' for key, value in attrs if key in self.KNOWN_BY)
        self.lines.append(f"{tag} {known}".rstrip())


class Outline(Structure):
    """What a filled page shows, each once: its elements, and the words of its headings."""

    HEADINGS = ("title", "h1", "h2", "h3", "th", "summary", "button")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.heading = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        super().handle_starttag(tag, attrs)
        self.heading = tag if tag in self.HEADINGS else ""

    def handle_data(self, data: str) -> None:
        if self.heading and data.strip():
            # Temporary folders have one level more where several processes test.
            text = re.sub("/popen-gw[0-9]+", "", data.strip())
            self.lines.append(f"  {self.heading}: {re.sub('[0-9]+', 'N', text)}")
        self.heading = ""

    def __str__(self) -> str:
        return "\n".join(dict.fromkeys(self.lines)) + "\n"


def dead_links(page: str) -> list[str]:
    """Links within a page that lead nowhere."""
    return [name for name in re.findall(r'href="#([^"]*)"', page) if f'id="{name}"' not in page]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages(page):
    """Guards against an element that a script, a style or a screen reader no longer finds."""
    structure = Structure()
    structure.feed(page.read_text("utf-8"))
    check(f"page-{page.parent.name}-{page.stem}", "\n".join(structure.lines) + "\n")


def test_summary_of_annotate(capsys):
    """Guards against a count under another heading, and against advice that is given no more."""
    summary = Summary(
        kept={"train": {"cat": 1200, "狗": 7}, "valid": {"cat": 30}, "test": {"cat": 20, "狗": 2}},
        left_out={"truncated": {"train": {"cat": 3}}, "greyscale": {"test": {"狗": 1}}, "leak": {"train": {"狗": 2}}},
        remarks={"exif_rotated": 5, "dark": 1}, convertible=1, leaks={"test in train": 2, "valid in train": 1},
        copies={"same_bytes": 4, "near_copy": 3}, conflicts=1, skipped={"hidden or created by an operating system": 2},
        files=1265, made={"valid": 0.1}, folders={".thumbs": "hidden"}, groups=12, ungrouped=3,
        divided={"test in train": 6}, divided_groups=["p1", "p2"],
    )  # fmt: skip
    layout = Layout(Path("data"), {"train": "train", "test": "test"}, ["cat", "狗", "empty"], False, [], {}, ["a note"])
    print_summary(summary, layout, config.load(None, ["data_dir=data", "group_by=folder"]), 40)
    check("annotate", capsys.readouterr().out)
