"""Measurements that are made once on a machine: kept in cache_dir, so that the same settings train in the same way."""

import json
from pathlib import Path
from typing import Any

from system.errors import UserError
from system.publishing import write_text


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
