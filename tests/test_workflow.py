"""The workflow of GitHub Actions: valid, complete, and made of the commands that users run."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
WORKFLOW = ROOT / ".github" / "workflows" / "test.yml"


def jobs() -> dict[str, dict]:
    return yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]


def test_it_is_valid():
    """Guards against a key that GitHub refuses, in which case nothing runs and no one is told."""
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed")
    line = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(WORKFLOW)]
    ended = subprocess.run(line, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout
    # It knows expressions and labels of runners too, but its package downloads a program when it is installed.
    if actionlint := shutil.which("actionlint"):
        linted = subprocess.run([actionlint, str(WORKFLOW)], capture_output=True, text=True)
        assert linted.returncode == 0, linted.stdout


def test_every_system_and_python_is_tested():
    """Guards against a system or a Python that the README promises and nobody tries."""
    matrix = jobs()["test"]["strategy"]["matrix"]
    assert {system.partition("-")[0] for system in matrix["os"]} == {"ubuntu", "macos", "windows"}
    assert jobs()["demo"]["strategy"]["matrix"]["os"] == matrix["os"]
    said = subprocess.run([sys.executable, str(ROOT / "make.py")], capture_output=True, text=True).stdout
    (oldest, newest) = re.search(r"Python 3\.(\d+) to 3\.(\d+)", said).groups()
    assert matrix["python"] == [f"3.{minor}" for minor in range(int(oldest), int(newest) + 1)]


def test_it_runs_the_commands_of_users():
    """Guards against a workflow that installs or runs something in its own way, which then works only there."""
    steps = [step for job in jobs().values() for step in job["steps"]]
    runs = [step["run"] for step in steps if "run" in step]
    assert runs == ["python make.py lint", "python make.py demo", "python make.py test"]
    cached = [step["with"] for step in steps if step.get("uses", "").startswith("actions/setup-python@")]
    assert len(cached) == 3 and all(one["cache"] == "pip" for one in cached)
    assert all("timeout-minutes" in job for job in jobs().values())
