"""Mutants: one-line faults put into a copy of the code, each given to the tests that concern it (`make.py mutants`).

A mutant that no test notices is a change that a stranger could make unpunished. The sample is drawn from a seed, the
same one each time; survivors are printed with what was changed.
"""

import argparse
import ast
import importlib.util
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

ROOT = Path(__file__).resolve().parents[2]
RESUMING = [
    f"tests/training/test_resume.py::{name}"
    for name in (
        "test_a_training_that_broke_off_goes_on_bit_for_bit", "test_a_run_is_resumed_with_its_own_settings_only",
        "test_a_signal_saves_first_and_explains_resume", "test_a_run_is_not_resumed_with_other_labels",
    )
]  # fmt: skip
# What is mutated, and the tests that have to notice: files or folders, and pytest's own options.
SUBJECTS: dict[str, list[str]] = {
    "imaging/augmentation.py": ["tests/imaging/test_augmentation.py"],
    "imaging/transforms.py": [
        "tests/imaging/test_transforms.py",
        "tests/imaging/test_colour.py",
        "tests/imaging/test_augmentation.py",
        "tests/imaging/test_cache.py",
    ],
    "imaging/resizing.py": ["tests/imaging/test_transforms.py"],
    "imaging/images.py": ["tests/imaging/test_images.py"],
    "imaging/cache.py": ["tests/imaging/test_cache.py"],
    "training/losses.py": ["tests/training/test_losses.py"],
    "training/optim.py": ["tests/training/test_optim.py"],
    "training/frozen_head.py": ["tests/training/test_frozen_head.py"],
    "features/linear_head.py": ["tests/features/test_linear_head.py"],
    "features/cache.py": ["tests/features/test_extraction.py"],
    "features/extraction.py": ["tests/features/test_extraction.py"],
    "evaluation/cross_validation.py": ["tests/evaluation/test_cross_validation.py"],
    "training/running_metrics.py": ["tests/training/test_running_metrics.py"],
    "training/callbacks.py": [
        "tests/training/test_callbacks.py",
        "tests/training/test_train.py",
        *RESUMING,
        "tests/test_effects.py::test_best_weights_are_the_average_where_there_is_one",
        "tests/training/test_distributed.py::test_two_processes_follow_the_curve_of_one",
    ],
    "training/session.py": ["tests/training/test_callbacks.py", *RESUMING],
    "models/classifier.py": ["tests/models/test_classifier.py"],
    "models/compatibility.py": ["tests/models/test_compatibility.py"],
    "models/factory.py": ["tests/models/test_factory.py", "tests/models/test_pretrained.py"],
    "models/checkpoint.py": [
        "tests/models/test_checkpoint.py",
        "tests/evaluation/test_evaluate.py::test_calibration_belongs_to_its_weights",
        *RESUMING[:1],
    ],
    "models/weights_files.py": ["tests/models/test_weights_files.py", "tests/models/test_zoos.py"],
    "models/torch_files.py": ["tests/models/test_zoos.py"],
    "models/zoos.py": ["tests/models/test_zoos.py"],
    "evaluation/metrics.py": ["tests/evaluation/test_metrics.py"],
    "evaluation/curves.py": ["tests/evaluation/test_metrics.py"],
    "evaluation/terminal.py": ["tests/evaluation/test_terminal.py"],
    "evaluation/calibration.py": ["tests/evaluation/test_report_parts.py", "tests/evaluation/test_evaluate.py"],
    "evaluation/comparison.py": ["tests/evaluation/test_report_parts.py", "tests/evaluation/test_evaluate.py"],
    "annotation/lists.py": ["tests/annotation/test_lists.py"],
    "annotation/splits.py": ["tests/annotation/test_copies.py", "tests/annotation/test_groups.py"],
    "annotation/groups.py": ["tests/annotation/test_groups.py"],
    "annotation/hash_search.py": ["tests/annotation/test_copies.py"],
    "inference/verification.py": ["tests/inference/test_export.py"],
    "inference/description.py": ["tests/inference/test_description.py", "tests/inference/test_export.py"],
    "inference/ranking.py": ["tests/inference/test_predict.py"],
    "serving/job_queue.py": ["tests/serving/test_job_queue.py", "tests/serving/test_worker_pool.py"],
    "serving/worker_pool.py": ["tests/serving/test_worker_pool.py"],
    "dataset.py": ["tests/test_dataset.py", "tests/imaging/test_cache.py"],
}
COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
CAUGHT, SURVIVED, TIMED_OUT = "caught", "survived", "timed out"


@dataclass(frozen=True)
class Mutant:
    """A file with one fault.

    Attributes:
        file: Relative to the project.
        line: Where the fault is, from 1.
        before: The code.
        after: What stands there instead.
        text: The whole file.
    """

    file: str
    line: int
    before: str
    after: str
    text: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.file}:{self.line}: {' '.join(self.before.split())}  ->  {' '.join(self.after.split())}"


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """Yields what may stand in the place of a node, each a fault that somebody could make."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        yield ast.Compare(node.left, [COMPARISONS[type(node.ops[0])](), *node.ops[1:]], node.comparators)
    elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        yield ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right)
        yield node.left
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield node.operand
    elif isinstance(node, ast.IfExp):
        yield ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield ast.Constant(node.value + 1 if isinstance(node.value, int) or not node.value else node.value * 1.5)
    elif isinstance(node, ast.Call) and len(node.args) >= 2 and not _is_plain(node):
        yield ast.Call(node.func, [node.args[1], node.args[0], *node.args[2:]], node.keywords)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield ast.Pass()
    elif isinstance(node, ast.keyword) and isinstance(node.value, ast.Attribute):
        yield ast.keyword(node.arg, ast.Constant(None))


def _is_plain(call: ast.Call) -> bool:
    """Whether an exchange of the first two arguments says nothing: it fails at once, whatever the tests."""
    names = ("isinstance", "getattr", "hasattr", "next", "open", "partial", "min", "max", "np.maximum", "np.minimum")
    return ast.unparse(call.func) in names or any(isinstance(argument, ast.Starred) for argument in call.args)


def mutants_of(file: str) -> list[Mutant]:
    """Lists all mutants of a file; those in annotations, docstrings and messages of errors are left out."""
    text = (ROOT / file).read_text(encoding="utf-8")
    lines = text.encode().splitlines(keepends=True)
    starts = [sum(map(len, lines[:number])) for number in range(len(lines))]
    found = []
    for node in _mutable(ast.parse(text)):
        start, end = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
        before = text.encode()[start:end].decode()
        for changed in changes(node):
            after = ast.unparse(ast.fix_missing_locations(changed))
            after = after if isinstance(node, (ast.Expr, ast.keyword)) else f"({after})"
            mutated = (text.encode()[:start] + after.encode() + text.encode()[end:]).decode()
            found.append(Mutant(file, node.lineno, before, after, mutated))
    return found


def _mutable(node: ast.AST) -> Iterator[ast.AST]:
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list") or isinstance(
            node, (ast.Raise, ast.JoinedStr, ast.Assert)
        ):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                if hasattr(child, "col_offset"):
                    yield child
                yield from _mutable(child)


def draw(count: int, seed: int) -> list[Mutant]:
    """Draws mutants: as many of each file as its share of all, at least one."""
    chooser = random.Random(seed)
    by_file = {file: mutants_of(file) for file in SUBJECTS}
    total = sum(map(len, by_file.values()))
    drawn = [
        mutant
        for file, mutants in by_file.items()
        for mutant in chooser.sample(mutants, min(len(mutants), max(1, round(count * len(mutants) / total))))
    ]
    chooser.shuffle(drawn)
    return drawn


def run_tests(copy: Path, file: str, seconds: float) -> str:
    """Runs the tests of a file in a copy of the project; returns CAUGHT, SURVIVED or TIMED_OUT."""
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", "-m", "not slow", *SUBJECTS[file]]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        command, cwd=copy, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        return SURVIVED if process.wait(seconds) == 0 else CAUGHT
    except subprocess.TimeoutExpired:
        return TIMED_OUT
    finally:
        # Servers and workers that the tests have started go with them.
        subprocess.run(["pkill", "-KILL", "-s", str(process.pid)], check=False)
        process.wait()


def ignored_settings(copy: Path) -> list[str]:
    """Ignores each setting in turn; returns those that their own tests (docs/tests.md) do not miss."""
    specification = importlib.util.spec_from_file_location("effects", ROOT / "docs" / "effects.py")
    page = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(page)
    missed = []
    for setting, names in page.effects().items():
        command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *names]
        environment = os.environ | {"IGNORED_SETTING": setting, "OMP_NUM_THREADS": "1"}
        ended = subprocess.run(command, cwd=copy, env=environment, capture_output=True, timeout=300, check=False)
        if ended.returncode == 0:
            missed.append(setting)
    print(f"ignored settings: {len(page.effects()) - len(missed)} of {len(page.effects())} noticed; {missed or ''}")
    return missed


def interval(caught: int, total: int) -> tuple[float, float]:
    """Returns the 95 % interval of a share. Source: Wilson 1927, Journal of the American Statistical Association 22."""
    z, share = 1.96, caught / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * (share * (1 - share) / total + z * z / (4 * total * total)) ** 0.5
    return middle - half, middle + half


def copies(count: int, folder: Path) -> Queue:
    """Copies the project's files so many times."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    queue: Queue = Queue()
    for number in range(count):
        for name in filter(None, names.split("\0")):
            target = folder / str(number) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)
        queue.put(folder / str(number))
    return queue


def main() -> int:
    """Prints the share of caught mutants and the survivors; exit status 1 below the aim."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=150, help="mutants to draw")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    parser.add_argument("--only", default="", help="files whose name contains this text")
    parser.add_argument("--aim", type=float, default=0.9, help="share that has to be caught")
    arguments = parser.parse_args()
    if min(arguments.count, arguments.jobs) < 1:
        parser.error("--count and --jobs are at least 1")
    if not any(arguments.only in file for file in SUBJECTS):
        parser.error(f"--only {arguments.only}: no such file; it is part of one of {', '.join(SUBJECTS)}")
    drawn = [mutant for mutant in draw(arguments.count, arguments.seed) if arguments.only in mutant.file]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.jobs) as pool:
        ready = copies(arguments.jobs, Path(folder))
        times: dict[str, float] = {}
        missed: list[str] = []

        def whole(file: str) -> None:
            copy, begun = ready.get(), time.monotonic()
            if run_tests(copy, file, 600) != SURVIVED:
                raise SystemExit(f"{file}: its tests fail without a mutant")
            times[file] = time.monotonic() - begun
            ready.put(copy)

        def judge(mutant: Mutant) -> str:
            copy = ready.get()
            (copy / mutant.file).write_text(mutant.text, encoding="utf-8")
            outcome = run_tests(copy, mutant.file, 30 + 4 * times[mutant.file])
            shutil.copyfile(ROOT / mutant.file, copy / mutant.file)
            ready.put(copy)
            return outcome

        if not arguments.only:
            missed = ignored_settings(Path(folder) / "0")
        list(pool.map(whole, sorted({mutant.file for mutant in drawn})))
        survivors = []
        for mutant, outcome in zip(drawn, pool.map(judge, drawn), strict=True):
            if outcome == SURVIVED:
                survivors.append(mutant)
                print(f"survived: {mutant}", flush=True)
    caught = len(drawn) - len(survivors)
    low, high = interval(caught, len(drawn))
    print(
        f"caught {caught} of {len(drawn)} mutants ({caught / len(drawn):.0%}; 95 % interval {low:.0%} to {high:.0%}), "
        f"seed {arguments.seed}, {(time.monotonic() - started) / 60:.0f} min"
    )
    return int(caught < arguments.aim * len(drawn) or bool(missed))


if __name__ == "__main__":
    sys.exit(main())
