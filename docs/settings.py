"""Writes docs/settings.md, the table of all settings, from config.yaml. Run: `python make.py docs`."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import config

PAGE = ROOT / "docs" / "settings.md"
HEAD = """\
# Settings

Written by `python make.py docs` from the comments in `config.yaml`: edit that file, not this page.

Every command takes settings as `KEY=VALUE` arguments (`python train.py epochs=3 augment.rotation=0`) and from a file
that holds only what differs (`--config FILE`); arguments win. An unknown name is an error that suggests the closest
one, and a value out of range is rejected. Types and ranges: `system/settings.py`.
"""
OLD_NAMES = """
## Old names

Still read, from files and on the command line.

| old | new |
| --- | --- |
"""
TABLE = "\n| setting | default | meaning |\n| --- | --- | --- |\n"
SECTION = re.compile(r"# --- (.+) ---")
SETTING = re.compile(r"( *)(\w+):(.*?)\s+#\s*(.+)")


def render(text: str) -> str:
    """Turns the text of config.yaml into the page, one table per section."""
    page, group = HEAD, ""
    for line in text.splitlines():
        if section := SECTION.fullmatch(line):
            page += f"\n## {section[1].capitalize()}\n{TABLE}"
        elif setting := SETTING.fullmatch(line):
            indent, name, default, meaning = setting.groups()
            meaning = re.sub(r"([<|])", r"\\\1", meaning)
            group = group if indent else ""
            if default:
                page += f"| `{group}{name}` | `{default.strip()}` | {meaning} |\n"
            else:
                group = f"{name}."
                page += f"\n## {name.capitalize()}: {meaning}\n{TABLE}"
    return page + OLD_NAMES + "".join(f"| `{old}` | `{new}` |\n" for old, new in config.RENAMED.items())


def main() -> None:
    """Writes the page."""
    PAGE.write_text(render(config.DEFAULTS.read_text("utf-8")), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
