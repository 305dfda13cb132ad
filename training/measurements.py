"""Measurements that are made once on a machine: kept in cache_dir, so that the same settings train in the same way."""

import contextlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any

from system import machine, processor
from system.errors import UserError
from system.publishing import write_text


def circumstances(*more: str) -> str:
    """Names what a speed depends on: this machine, the release of Paddle, and what else is given."""
    vectors = " ".join(sorted(flag for flag in processor.instruction_sets() if flag.startswith(("avx", "amx"))))
    parts = (processor.name(), vectors, *processor.limits(), f"{machine.cores()} cores", paddle_build(), *more)
    return ", ".join(parts)


def paddle_build() -> str:
    """The build of Paddle that is installed, and its release, without importing it."""
    for name in ("paddlepaddle-gpu", "paddlepaddle"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return f"{name} {importlib.metadata.version(name)}"
    return ""


def remembered(file: Path) -> dict[str, Any]:
    """Reads what was measured before; a file that is missing or damaged holds nothing."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def remember(file: Path, content: dict[str, Any]) -> str:
    """Writes what was measured; returns words that say so if it cannot be, "" if it is."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    except (OSError, UserError):
        return f", and again next time, for {file} cannot be written (cache_dir)"
    return ""
