"""The READMEs: what they tell people to type exists, and their settings are those of config.yaml."""

import re
from pathlib import Path

import pytest
import yaml

import config

ROOT = Path(__file__).resolve().parent.parent
NAMES = ["README.md", "README.zh-CN.md"]
FENCE = re.compile(r"^( *)(`{3,}|~{3,})[^\n]*\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)


def text_of(name: str) -> str:
    assert (ROOT / name).is_file(), f"{name} is missing"
    return (ROOT / name).read_text("utf-8")


def code_of(text: str) -> str:
    """All code of a page: fenced blocks, indented blocks and `spans`."""
    fenced = [match[3] for match in FENCE.finditer(text)]
    rest = FENCE.sub("", text)
    indented = re.findall(r"(?:^|\n)(?: {4,}|\t)(?![-*\d])(.*)", rest)
    return "\n".join([*fenced, *indented, *re.findall(r"`([^`\n]+)`", rest)])


def words(pattern: str, text: str) -> list[str]:
    return sorted(set(re.findall(pattern, text)))


def targets() -> set[str]:
    return set(re.findall(r"^([\w-]+) *:(?!=)", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


@pytest.mark.parametrize("name", NAMES)
def test_the_commands_exist(name):
    """Guards against a README that tells people to run what was renamed: python X.py, make TARGET, folders, files."""
    code = code_of(text_of(name))
    scripts = words(r"python3? (?:-\w+ )*([\w./-]+\.py)\b", code)
    assert scripts and [script for script in scripts if not (ROOT / script).is_file()] == []
    made = words(r"(?:^|[\s;&|(])make (?:[A-Z]+=\S+ )*([a-z][\w-]*)", code)
    assert {"demo", "test"} <= set(made) <= targets(), set(made) - targets()
    recipes = words(r"--config (recipes/[\w./-]+)", code)
    assert [recipe for recipe in recipes if not (ROOT / recipe).is_file()] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_options_and_settings_of_the_commands_exist(name, command, tmp_path):
    """Guards against a command line of the README that its own program refuses."""
    known = set(config.known_keys())
    lines = re.findall(r"python3? ([\w./-]+\.py)((?:[ \t]+[^\n#|&;>]+)?)", code_of(text_of(name)))
    helps: dict[str, str] = {}
    for script, rest in sorted(set(lines)):
        if script not in helps:
            helps[script] = command(script, "--help", cwd=tmp_path).out
        for option in re.findall(r"(?<!\S)(--[a-z][\w-]*)", rest):
            assert re.search(rf"{option}\b", helps[script]), (script, option)
        for key in re.findall(r"(?<!\S)([a-z_][\w.]*)=", rest):
            assert key in known, (script, key)


def tables(text: str) -> list[list[list[str]]]:
    """Tables of a page, as rows of cells; the first row is the head."""
    found: list[list[list[str]]] = [[]]
    for line in FENCE.sub("", text).splitlines():
        if line.strip().startswith("|"):
            cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
            found[-1].append([cell.strip() for cell in cells])
        elif found[-1]:
            found.append([])
    return [[row for row in table if not set("".join(row)) <= set("-: ")] for table in found if table]


def unquoted(cell: str) -> str:
    return cell.strip().strip("`")


@pytest.mark.parametrize("name", NAMES)
def test_the_settings_table_is_config_yaml(name):
    """Guards against defaults that stand in two places and differ.

    The table's first column is headed "setting" (设置, 配置 or 参数), the one of the defaults "default" (默认).
    """
    heads = re.compile(r"setting|设置|配置|参数", re.IGNORECASE), re.compile(r"default|默认", re.IGNORECASE)
    values = yaml.safe_load(config.DEFAULTS.read_text("utf-8"))
    flat = {
        f"{group}.{key}": v for group in values if isinstance(values[group], dict) for key, v in values[group].items()
    }
    flat |= {key: value for key, value in values.items() if not isinstance(value, dict)}
    seen, wrong = set(), []
    for head, *rows in tables(text_of(name)):
        column = next((i for i, cell in enumerate(head) if heads[1].search(cell)), None)
        if not heads[0].search(head[0]) or column is None:
            continue
        for row in rows:
            for key in re.findall(r"`([\w.]+)`", row[0]) or [unquoted(row[0])]:
                if key.endswith(".") and isinstance(values.get(key[:-1]), dict):
                    continue  # the heading of a group
                assert key in flat, f"{key} is no setting"
                # 1e-3 is text to YAML, and a number to us.
                told, real = (
                    re.sub(r"\s", "", str(yaml.safe_load(str(v)))) for v in (unquoted(row[column]), flat[key])
                )
                if told != real and (_number(told) is None or _number(told) != _number(real)):
                    wrong.append(f"{key}: {row[column]}, but config.yaml says {flat[key]}")
                seen.add(key)
    assert wrong == []
    assert len(seen) >= 10, "no table of settings was found"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


@pytest.mark.parametrize("name", NAMES)
def test_linked_files_exist(name):
    """Guards against links to files that were moved, and images that do not show."""
    links = re.findall(r"\]\(([^)\s]+)", text_of(name))
    links = [link.partition("#")[0] for link in links if not re.match(r"[a-z]+:|#", link)]
    assert [link for link in links if not (ROOT / link).exists()] == []
