"""Command line of batch jobs: predict.py --out."""

import argparse
import functools
from pathlib import Path
from typing import TYPE_CHECKING

from system import optional
from system.errors import UserError

if TYPE_CHECKING:
    from inference.pipeline import PredictAll

SUFFIXES = (".csv", ".tsv", ".json", ".parquet")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of batch jobs to predict.py."""
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=check_suffix,
        help="write all probabilities to FILE.csv, .tsv, .json or .parquet; the same command resumes a killed job",
    )
    parser.add_argument(
        "--quiet", action="store_true", help="with --out: show a progress bar instead of a line per image"
    )


def check_suffix(path: str) -> str:
    """Checks that predictions can be written to a file of this name, and returns the name.

    Raises:
        UserError: The suffix is unknown, or its library is not installed.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"--out {path}: this suffix is unknown; use one of {', '.join(SUFFIXES)}")
    if suffix == ".parquet" and not optional.is_installed("pyarrow"):
        raise UserError(f"--out {path}: pyarrow is not installed; run `pip install pyarrow`, or write a .tsv")
    return path


def predictor(arguments: argparse.Namespace) -> "PredictAll | None":
    """Returns the function that carries out the job of a command line; None without --out."""
    if not arguments.out:
        return None
    # Late: --help, and a prediction without --out, load nothing of a job.
    from inference.batch import job

    return functools.partial(job.write_predictions, arguments.out, arguments.quiet)
