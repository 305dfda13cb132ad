"""How the project is built: doors at the root, rooms behind them, one-way imports, and no work on import."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# A room or module imports only what stands before it. README.md shows the same order.
ORDER = """
system config imaging annotation dataset models inference features evaluation exploration training reviewing serving
annotate explore review train evaluate predict export serve
""".split()
COMMANDS = ("annotate", "explore", "review", "train", "evaluate", "predict", "export", "serve")
# What has to answer at once, or has to work where paddle is not installed.
WITHOUT_PADDLE = ("system", "config", "imaging", "annotation", "reviewing", *COMMANDS)
# system.machine sets what must stand before paddle is imported, and then imports it; a worker of the server calls it,
# and so does a replica of Ray.
# export.py --help and predict.py --help read the options of what the last two load late.
MAY_IMPORT_LATE = {
    "system.machine",
    "serving.worker",
    "serving.ray_app",
    "inference.quantisation",
    "inference.batch.options",
}
# Libraries that take long to load; a --help loads none, nor the quick ones after them.
HEAVY = set("paddle scipy sklearn pandas matplotlib visualdl cleanlab fastapi uvicorn".split())
NOT_FOR_HELP = HEAVY | {"numpy", "jinja2", "tqdm"}
# What an ordinary run calls or imports, without what it imports under an `if`: the heavy libraries that it uses.
USED = {
    "annotate._annotate": "",
    "review.main": "uvicorn",
    "explore.explore": "paddle scipy sklearn matplotlib cleanlab",
    "train.train": "paddle scipy matplotlib visualdl",
    "evaluate.evaluate": "paddle scipy sklearn matplotlib cleanlab",
    "predict.main predict.load_exported": "paddle",
    "predict.main evaluation.predictors models.runs": "paddle",
    "predict.main evaluation.gallery": "paddle matplotlib",
    "export.export": "paddle scipy",
    "serve.main": "fastapi uvicorn",
    "serving.worker serving.batch_classifier": "paddle",
    "serving.worker serving.explainer": "paddle matplotlib",
}
NO_ROOMS = {"tests", "bench", "signs"}


def modules() -> dict[str, Path]:
    """Every module of the project by its dotted name: those at the root but make.py, and those in rooms."""
    found = {path.stem: path for path in ROOT.glob("*.py") if path.stem != "make"}
    for init in ROOT.glob("*/__init__.py"):
        if init.parent.name not in NO_ROOMS:
            for path in init.parent.rglob("*.py"):
                found[".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


MODULES = modules()


def tree_of(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text("utf-8"))


def at_import(body: list[ast.stmt]):
    """Statements that run on import: none in functions, nor under `if TYPE_CHECKING` or `if __name__`."""
    for node in body:
        late = isinstance(node, ast.If) and re.search("TYPE_CHECKING|__name__", ast.unparse(node.test))
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not late:
            yield node
            yield from at_import([child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)])


def imports(name: str, everywhere: bool = True) -> set[str]:
    """Names what a module imports: modules of ours in full, first names of others.

    Args:
        everywhere: Also what is imported in functions and for type checkers.
    """
    tree = tree_of(name)
    return imported(ast.walk(tree) if everywhere else at_import(tree.body))


def imported(nodes: Iterable[ast.AST]) -> set[str]:
    """Names what statements import, as `imports` does."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & MODULES.keys()) or {node.module}
    return {one if one in MODULES else one.split(".")[0] for one in found}


def reachable(names: set[str], everywhere: bool = False) -> set[str]:
    """Everything that importing some modules imports, followed through the project."""
    seen, waiting = set(names), list(names)
    while waiting:
        for other in imports(waiting.pop(), everywhere) - seen:
            seen.add(other)
            if other in MODULES:
                waiting.append(other)
    return seen


def in_every_run(body: list[ast.stmt]):
    """Statements that run whatever was asked for: none under an `if`."""
    for node in body:
        if not isinstance(node, ast.If):
            yield node
            yield from in_every_run([child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)])


def loaded_by(names: str) -> set[str]:
    """Everything that a run loads which imports these modules and calls these functions of commands."""
    found = set()
    for name in names.split():
        command, _, function = name.partition(".")
        if command in COMMANDS:
            (called,) = (one for one in tree_of(command).body if getattr(one, "name", "") == function)
            found |= {command} | imported(in_every_run(called.body))
        else:
            found.add(name)
    return found | reachable(found & MODULES.keys())


def room(name: str) -> str:
    return name.partition(".")[0]


def within(*rooms: str) -> set[str]:
    return {name for name in MODULES if room(name) in rooms}


def test_the_root_holds_the_doors_only():
    """Guards against a first page of modules that nobody runs."""
    assert {path.stem for path in ROOT.glob("*.py")} == {"config", "dataset", "make", *COMMANDS}


def test_every_module_has_its_place_in_the_order():
    """Guards against a new room that nobody has put into the order, and against one that takes everything."""
    assert {room(name) for name in MODULES} == set(ORDER)
    assert not {"data", "core", "utils", "common", "helpers", "misc"} & set(ORDER)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_imports_only_what_stands_before_it(name):
    """Guards against circles between rooms, for types too."""
    later = set(ORDER[ORDER.index(room(name)) + 1 :])
    assert sorted(other for other in imports(name) & MODULES.keys() if room(other) in later) == []


def test_no_module_imports_itself_on_a_detour():
    """Guards against circles within a room."""
    graph = {name: imports(name) & MODULES.keys() - {name} for name in MODULES}
    circles = [name for name in MODULES if name in reachable(graph[name], everywhere=True)]
    assert circles == []


@pytest.mark.parametrize("name", sorted(MODULES))
def test_nothing_imports_from_a_command(name):
    """Guards against commands that serve as libraries."""
    assert imports(name) & set(COMMANDS) == set()


@pytest.mark.parametrize("name", sorted(MODULES.keys() - set(COMMANDS) - MAY_IMPORT_LATE))
def test_modules_import_at_their_top(name):
    """Guards against imports in functions; only commands import late, once the machine is prepared."""
    tree = tree_of(name)
    early = {id(node) for node in at_import(tree.body)} | {
        id(inner) for node in tree.body if isinstance(node, ast.If) for inner in ast.walk(node)
    }
    late = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom)) and id(node) not in early]
    assert [ast.unparse(node) for node in late] == []


@pytest.mark.parametrize("name", WITHOUT_PADDLE)
def test_paddle_is_not_imported_where_nobody_computes(name):
    """Guards against a --help that takes seconds, and a paddle that is loaded before its threads are set."""
    assert not {"paddle", "paddle.inference"} & reachable(within(name))


@pytest.mark.parametrize(("names", "used"), USED.items())
def test_a_command_loads_only_the_libraries_that_it_uses(names, used):
    """Guards against seconds for libraries that a run never calls, behind a module that needs them for another."""
    assert loaded_by(names) & HEAVY == set(used.split())


def test_an_exported_model_needs_no_training_code():
    """Guards against a server that has to bring the networks and the training along."""
    own = within("inference")
    assert {room(name) for name in reachable(own, everywhere=True)} & {
        "models",
        "dataset",
        "training",
        "evaluation",
    } == set()


def test_only_figures_import_matplotlib():
    """Guards against figures drawn in the midst of other code."""
    assert [name for name in MODULES if "matplotlib" in imports(name)] == ["evaluation.fonts", "evaluation.plots"]


def test_only_machine_sets_environment_variables():
    """Guards against settings of the machine that depend on the order of imports."""
    setters = set()
    for name in MODULES:
        for node in ast.walk(tree_of(name)):
            text = ast.unparse(node) if isinstance(node, (ast.Assign, ast.AugAssign, ast.Call)) else ""
            sets = text.startswith(("os.putenv(", "os.environ.setdefault(", "os.environ.update("))
            if sets or (isinstance(node, ast.Assign) and "os.environ[" in ast.unparse(node.targets[0])):
                setters.add(name)
    assert setters <= {"system.machine"}


def test_only_models_reads_or_writes_weights():
    """Guards against a second place that knows how a run's weights are kept."""
    users = set()
    for name in MODULES:
        calls = {ast.unparse(node.func) for node in ast.walk(tree_of(name)) if isinstance(node, ast.Call)}
        if calls & {"paddle.load", "paddle.save"}:
            users.add(room(name))
    assert users == {"models"}


# Longest function, and longest module, in lines: what fits a screen, and what is read in one go.
MOST_LINES, MOST_LINES_MODULE = 50, 300


@pytest.mark.parametrize("name", sorted(MODULES))
def test_functions_fit_a_screen(name):
    """Guards against functions and modules that only their author can follow."""
    assert len(MODULES[name].read_text("utf-8").splitlines()) <= MOST_LINES_MODULE
    functions = [node for node in ast.walk(tree_of(name)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    assert [node.name for node in functions if node.end_lineno - node.lineno + 1 > MOST_LINES] == []


def without(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """An environment in which importing these fails; what makes it fail lies in a folder."""
    (folder / "blocked").mkdir()
    for name in names:
        (folder / "blocked" / f"{name}.py").write_text(f"raise ImportError('{name} must not be imported here')\n")
    return {"PYTHONPATH": str(folder / "blocked")}


def test_annotate_works_without_paddle(command, draw_data, tmp_path):
    """Guards against a check of images that needs a gigabyte of framework."""
    no_paddle = without(tmp_path, ["paddle"])
    draw_data(tmp_path / "data", ["ox", "dog"], {"train": 3, "valid": 1, "test": 1}, (24, 24))
    ended = command("annotate.py", "data_dir=data", "scan_workers=1", "--show", "grid.png", cwd=tmp_path, **no_paddle)
    assert ended.status == 0, ended.err
    assert len((tmp_path / "data" / "train.txt").read_text().splitlines()) == 6


@pytest.mark.parametrize("name", COMMANDS)
def test_help_loads_no_library_that_takes_long(command, tmp_path, name):
    """Guards against --help that takes seconds, or fails before the installation is complete."""
    shown = command(f"{name}.py", "--help", cwd=tmp_path, **without(tmp_path, NOT_FOR_HELP))
    assert shown.status == 0 and "usage:" in shown.out, shown.err


IMPORT_ALL = """
import os, sys, threading
sys.path.insert(0, sys.argv[1])
sys.dont_write_bytecode = True
import config
from system import machine
machine.prepare(config.load(None, ["threads=1"]))
import numpy, paddle.inference, matplotlib.pyplot, sklearn.metrics, scipy.special
before, threads = dict(os.environ), threading.active_count()
for name in sys.argv[2:]:
    __import__(name)
changed = {key for key in os.environ.keys() | before.keys() if os.environ.get(key) != before.get(key)}
assert not changed, changed
assert threading.active_count() == threads
"""


def test_importing_does_nothing(tmp_path):
    """Guards against work on import: files read or written, words on the terminal, threads, environment variables."""
    script = tmp_path / "imports.py"
    script.write_text(IMPORT_ALL)
    place = tmp_path / "empty"
    place.mkdir()
    names = [name for name in MODULES if MODULES[name].name not in ("__init__.py", "__main__.py")]
    line = [sys.executable, "-W", "ignore", str(script), str(ROOT), *sorted(names)]
    ended = subprocess.run(
        line, cwd=place, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": ""}, timeout=240
    )
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
    assert list(place.iterdir()) == []
