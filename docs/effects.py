"""Writes the table of docs/tests.md: for each setting, the tests that fail if it is ignored. `make.py docs`."""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import config

PAGE = ROOT / "docs" / "tests.md"
START = "| setting | tests that fail if it is ignored |\n| --- | --- |\n"


def effects() -> dict[str, list[str]]:
    """Setting -> tests marked with `@pytest.mark.effect`, as `file::name`."""
    found: dict[str, list[str]] = {}
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.parse(file.read_text("utf-8")).body:
            for mark in getattr(node, "decorator_list", ()):
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.effect":
                    name = f"{file.relative_to(ROOT).as_posix()}::{node.name}"  # type: ignore[attr-defined]
                    for argument in mark.args:
                        found.setdefault(ast.literal_eval(argument), []).append(name)
    return found


def render(page: str) -> str:
    """Returns the page with today's table at its end."""
    named = effects()
    rows = [f"| `{key}` | {', '.join(f'`{name}`' for name in named.get(key, []))} |" for key in config.known_keys()]
    return page.partition(START)[0] + START + "\n".join(rows) + "\n"


def main() -> None:
    """Writes the page."""
    PAGE.write_text(render(PAGE.read_text("utf-8")), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
