"""What this project works around is still wrong in Paddle; once it is not, the work-around can go."""

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "docs" / "paddle-faults"


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted(file.name for file in FOLDER.glob("*.py")))
def test_a_fault_of_paddle_is_still_there(script, request):
    """Guards against work-arounds that outlive their reason, and scripts that show nothing."""
    if script.startswith("bfloat16"):
        request.getfixturevalue("bfloat16_cpu")
    ended = subprocess.run([sys.executable, str(FOLDER / script)], capture_output=True, text=True, errors="replace")
    # 1: the script found it; a signal: the process died of it.
    assert ended.returncode == 1 or ended.returncode < 0, ended.stdout + ended.stderr
    assert "ModuleNotFoundError" not in ended.stderr


def test_every_fault_is_listed():
    """Guards against a script that nobody finds."""
    page = (FOLDER.parent / "paddle-release.md").read_text(encoding="utf-8")
    assert all(f"`{file.name}`" in page for file in FOLDER.glob("*.py"))
