"""Finding runs, and reading their settings with what a command line changes."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path

import config
from config import known_keys
from models.checkpoint import Run
from system.errors import UserError
from system.settings import CHANGEABLE, Settings

# Marks the folder of a cross-validation, which holds the runs fold1, fold2, ...
FOLDS_FILE = "folds.json"


def is_cross_validated(folder: str | os.PathLike) -> bool:
    """Returns whether a folder holds a cross-validation."""
    return (Path(folder) / FOLDS_FILE).is_file()


def open_run(path: str | None, output_dir: str | os.PathLike, overrides: Iterable[str]) -> tuple[Run, Settings]:
    """Finds the run that a command line names and reads its settings; prints which run it is where none is named.

    Args:
        path: The run's folder; None: the run of output_dir that was trained last.
        overrides: `key=value` arguments, laid over the run's settings.

    Raises:
        UserError: There is no such run, or an override would change what the network is or sees.
    """
    run = find_run(path, output_dir)
    if path is None:
        print(f"run: {run.path} (the one trained last)", file=sys.stderr)
    return run, run_settings(run, overrides)


def run_settings(run: Run, overrides: Iterable[str]) -> Settings:
    """Reads a run's own settings and lays the overrides over them.

    Raises:
        UserError: An override would change what the network is or sees.
    """
    overrides = list(overrides)
    keys = {argument.partition("=")[0].lower() for argument in overrides}
    fixed = sorted(keys - CHANGEABLE & set(known_keys()))
    if fixed:
        raise UserError(f"{fixed[0]}: this belongs to the run {run.path} and cannot be changed; train again with it")
    return config.load(base=run.file("config.yaml"), overrides=overrides)


def find_run(path: str | os.PathLike | None, output_dir: str | os.PathLike) -> Run:
    """Finds a run: the folder named, or the one of output_dir that was trained last.

    Raises:
        UserError: There is no such folder, or no run at all.
    """
    if path is not None:
        if not Path(path).is_dir():
            raise UserError(f"{path}: no such folder; name a run{_suggestion(output_dir)}")
        run = Run(path)
        run.file("config.yaml")
        return run
    runs = _trained_runs(output_dir)
    if not runs:
        raise UserError(f"{output_dir}: there is no run yet; train one with `python train.py`")
    return runs[-1]


def _trained_runs(output_dir: str | os.PathLike) -> list[Run]:
    """Lists the runs that have weights, the one trained last at the end."""
    found = [
        (max(file.stat().st_mtime_ns for file in weights), folder)
        for folder in (Path(output_dir).iterdir() if Path(output_dir).is_dir() else ())
        if (folder / "config.yaml").is_file() and (weights := list(folder.glob("*.pdparams")))
    ]
    return [Run(folder) for _, folder in sorted(found)]


def _suggestion(output_dir: str | os.PathLike) -> str:
    paths = [str(run.path) for run in _trained_runs(output_dir)]
    return f", one of {', '.join(paths)}" if paths else " that train.py made"
