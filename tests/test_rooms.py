"""The parts that docs/rooms.md calls removable: removed as the page says, in a copy, the rest works."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_readme import tables

ROOT = Path(__file__).resolve().parent.parent
MOST_MARKED_LINES = 3
# These list packages and commands by name, those three among them; docs/rooms.md says to delete them there.
NAME_COMMANDS = (
    "test_the_root_holds_the_doors_only",
    "test_every_module_has_its_place_in_the_order",
    "test_help_loads_no_library_that_takes_long[serve]",
    "test_help_loads_no_library_that_takes_long[explore]",
    "test_help_loads_no_library_that_takes_long[review]",
)


def parts() -> dict[str, tuple[list[str], int]]:
    """Paths that `git rm` removes and the number of marked lines, by name, from the table in docs/rooms.md."""
    (rows,) = (rows for _, *rows in tables((ROOT / "docs" / "rooms.md").read_text("utf-8")))
    commands = {row[0].strip("`"): (row[2].strip("`").split(), int(row[3])) for row in rows}
    assert all(words[:2] == ["git", "rm"] for words, _ in commands.values())
    return {name: (words[2:], count) for name, (words, count) in commands.items()}


def git(*arguments: str, cwd: Path) -> str:
    identity = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false")
    ended = subprocess.run(["git", *identity, *arguments], cwd=cwd, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def marked(name: str, folder: Path) -> dict[Path, list[str]]:
    """Lines that carry the mark of a part, by file."""
    found = {}
    for path in sorted({*folder.glob("*.py"), *folder.glob("[a-z]*/**/*.py")}):
        lines = [line for line in path.read_text("utf-8").splitlines() if re.search(rf"# optional: {name}$", line)]
        found |= {path: lines} if lines else {}
    return found


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """A repository with every file of this checkout that git does not ignore, except the images in signs/."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    folder = tmp_path_factory.mktemp("rooms") / "original"
    for name in git("ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0"):
        if name and (ROOT / name).is_file() and not name.endswith(".jpg"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    git("init", "-q", cwd=folder)
    git("add", "-A", cwd=folder)
    git("commit", "-q", "-m", "all", cwd=folder)
    return folder


@pytest.fixture
def remove(original, tmp_path):
    """Returns a function that clones the project and removes parts from the clone as docs/rooms.md says."""

    def build(*names: str) -> Path:
        clone = tmp_path / "clone"
        git("clone", "-q", str(original), str(clone), cwd=tmp_path)
        for name in names:
            git("rm", *parts()[name][0], cwd=clone)
            for path, lines in marked(name, clone).items():
                kept = [line for line in path.read_text("utf-8").splitlines() if line not in lines]
                path.write_text("\n".join(kept) + "\n", encoding="utf-8")
        return clone

    return build


@pytest.fixture
def walk(command, arguments_for, draw_data, tmp_path):
    """Returns a function that checks data, trains, evaluates, exports and predicts with a clone."""

    def run(clone: Path) -> None:
        place = tmp_path / "work"
        draw_data(place / "data", ["ox", "dog"], {"train": 4, "valid": 2, "test": 2}, (24, 24))
        short = arguments_for("data", epochs=1)
        here = ["output_dir=output", "export_dir=infer", "threads=1"]
        for line in (
            ["annotate.py", *short],
            ["train.py", *short],
            ["evaluate.py", *here],
            ["export.py", *here],
            ["predict.py", "data/test/ox/00000001.jpg", "--run", "output/short", *here],
            ["predict.py", "data/test/ox/00000001.jpg", "--model", "infer/short", *here],
        ):
            ended = command(*line, cwd=place, root=clone)
            assert ended.status == 0, (line, ended.out, ended.err)

    return run


@pytest.mark.parametrize("name", parts())
def test_the_page_is_up_to_date(name):
    """Guards against paths that were moved, lines that lost their mark, and a part that has grown into the rest."""
    paths, count = parts()[name]
    assert [path for path in paths if path != "-r" and not (ROOT / path).exists()] == []
    assert sum(map(len, marked(name, ROOT).values())) == count <= MOST_MARKED_LINES


def test_everything_optional_can_be_removed_at_once(remove, walk):
    """Guards against a core that needs one of its optional parts."""
    walk(remove(*parts()))


@pytest.mark.slow
@pytest.mark.parametrize("name", parts())
def test_one_part_can_be_removed(name, remove, walk):
    """Guards against optional parts that need one another, and against imports of what is gone."""
    clone = remove(name)
    walk(clone)
    line = [sys.executable, "-m", "pytest", "tests/test_structure.py"]
    if name in ("serving", "exploration", "reviewing"):
        line += [f"--deselect=tests/test_structure.py::{test}" for test in NAME_COMMANDS]
    ended = subprocess.run(line, cwd=clone, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stdout
