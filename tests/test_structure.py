"""How the project is built: which module may import which, and that importing does nothing."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# A module imports only what stands before it. Folders are packages of one part each; what is inside one may import
# each other. README.md shows the same order.
ORDER = """
errors config runtime pictures lists checking annotate
augmentation transforms cache dataset networks acceleration checkpoint
metrics deployment inference plots optimization training
report scoring evaluate train predict export serving serve
""".split()
# Modules that must be there before paddle is: they answer at once.
WITHOUT_PADDLE = ["errors", "config", "runtime", "pictures", "lists", "annotate", "checking"]
NOT_OURS_TO_ORDER = {"tests", "bench", "signs", "deployment_examples"}


def parts() -> dict[str, list[Path]]:
    """Every part of the project with its files: modules at the root, and packages."""
    found = {path.stem: [path] for path in ROOT.glob("*.py")}
    for package in ROOT.glob("*/__init__.py"):
        if package.parent.name not in NOT_OURS_TO_ORDER:
            found[package.parent.name] = sorted(package.parent.rglob("*.py"))
    return found


def imports(file: Path, everywhere: bool = True) -> set[str]:
    """First names of the modules that a file imports: anywhere in it, or only when it is imported itself."""
    tree = ast.parse(file.read_text("utf-8"))
    nodes = ast.walk(tree) if everywhere else _at_import(tree.body)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def _at_import(body: list[ast.stmt]):
    """Statements that run on import: none in functions, nor under `if __name__ == "__main__"`."""
    for node in body:
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and "__name__" not in ast.unparse(node)[:20]:
            yield from _at_import([child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)])


def test_every_module_has_its_place():
    """Guards against a new module that nobody has put into the order."""
    assert sorted(set(parts()) - set(ORDER)) == []
    assert len(set(ORDER)) == len(ORDER)


@pytest.mark.parametrize("name", sorted(parts()))
def test_a_module_imports_only_what_stands_before_it(name):
    """Guards against circles, and against nouns that import verbs."""
    own = parts()
    later = set(ORDER[ORDER.index(name) + 1 :])
    for file in own[name]:
        assert sorted(imports(file) & set(own) & later) == [], file


def reachable(name: str, everywhere: bool) -> set[str]:
    """Everything that importing a module imports, followed through the project."""
    own, seen, waiting = parts(), set(), [name]
    while waiting:
        part = waiting.pop()
        for file in own[part]:
            for other in imports(file, everywhere) - seen:
                seen.add(other)
                if other in own:
                    waiting.append(other)
    return seen


@pytest.mark.parametrize("name", WITHOUT_PADDLE)
def test_paddle_is_not_imported_where_nobody_computes(name):
    """Guards against commands that take seconds to say how they are used."""
    assert "paddle" not in reachable(name, everywhere=name not in ("runtime",))


@pytest.mark.parametrize("name", sorted({"train", "evaluate", "predict", "export"} & set(parts())))
def test_commands_import_paddle_only_once_they_compute(name):
    """Guards against a paddle that loads before runtime.prepare has set its threads, and a slow --help."""
    assert "paddle" not in reachable(name, everywhere=False)


def test_an_exported_model_needs_no_training_code():
    """Guards against a server that has to bring the networks and the training along."""
    assert not reachable("inference", everywhere=True) & {
        "networks", "checkpoint", "dataset", "cache", "acceleration", "optimization", "training", "report", "metrics"
    }  # fmt: skip


def test_only_plots_imports_matplotlib():
    """Guards against figures drawn in the midst of other code."""
    assert [name for name, files in parts().items() for file in files if "matplotlib" in imports(file)] == ["plots"]


def test_only_runtime_sets_environment_variables():
    """Guards against settings of the machine that depend on the order of imports."""
    setters = []
    for files in parts().values():
        for file in files:
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                text = ast.unparse(node) if isinstance(node, (ast.Assign, ast.AugAssign, ast.Call)) else ""
                sets = text.startswith(("os.putenv(", "os.environ.setdefault(", "os.environ.update("))
                if sets or (isinstance(node, ast.Assign) and "os.environ[" in ast.unparse(node.targets[0])):
                    setters.append(file.name)
    assert set(setters) <= {"runtime.py"}


def test_only_checkpoint_and_networks_read_or_write_weights():
    """Guards against a second place that knows how a run's weights are kept."""
    users = set()
    for files in parts().values():
        for file in files:
            calls = {
                ast.unparse(node.func)
                for node in ast.walk(ast.parse(file.read_text("utf-8")))
                if isinstance(node, ast.Call)
            }
            if calls & {"paddle.load", "paddle.save"}:
                users.add(file.name)
    assert users <= {"checkpoint.py", "networks.py"}


def test_there_are_no_dumps():
    """Guards against the module that takes everything nobody found a place for."""
    assert not {"utils", "common", "helpers", "misc"} & set(parts())


@pytest.fixture
def no_paddle(tmp_path) -> dict[str, str]:
    """An environment in which importing paddle fails."""
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "paddle.py").write_text("raise ImportError('paddle must not be imported here')\n")
    return {"PYTHONPATH": str(tmp_path / "blocked")}


def test_annotate_works_without_paddle(command, draw_data, no_paddle, tmp_path):
    """Guards against a check of pictures that needs a gigabyte of framework."""
    told = command("annotate.py", "--help", cwd=tmp_path, **no_paddle)
    assert told.status == 0 and "usage:" in told.out
    draw_data(tmp_path / "data", ["ox", "dog"], {"train": 3, "valid": 1, "test": 1}, (24, 24))
    ended = command("annotate.py", "data_dir=data", "scan_workers=1", cwd=tmp_path, **no_paddle)
    assert ended.status == 0, ended.err
    assert len((tmp_path / "data" / "train.txt").read_text().splitlines()) == 6


@pytest.mark.parametrize("name", sorted({"train", "evaluate", "predict", "export", "serve"} & set(parts())))
def test_help_works_without_paddle(command, no_paddle, tmp_path, name):
    """Guards against --help that takes seconds, or fails before the installation is complete."""
    told = command(f"{name}.py", "--help", cwd=tmp_path, **no_paddle)
    assert told.status == 0 and "usage:" in told.out, told.err


IMPORT_ALL = """
import os, sys, threading
sys.path.insert(0, sys.argv[1])
sys.dont_write_bytecode = True
import config, runtime
runtime.prepare(config.load(None, ["threads=1"]))
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
    names = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for files in parts().values()
        for file in files
        if file.name not in ("__init__.py", "worker.py", "__main__.py")
    ]
    script = tmp_path / "imports.py"
    script.write_text(IMPORT_ALL)
    place = tmp_path / "empty"
    place.mkdir()
    line = [sys.executable, "-W", "ignore", str(script), str(ROOT), *sorted(names, key=lambda name: name.split(".")[0])]
    ended = subprocess.run(
        line, cwd=place, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": ""}, timeout=240
    )
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
    assert list(place.iterdir()) == []
