"""The READMEs and docs/settings.md: commands, options, settings, paths and links in them exist and are complete."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest
import yaml
from test_structure import COMMANDS, MODULES, ORDER

import config

ROOT = Path(__file__).resolve().parent.parent
READMES = ["README.md", "README.zh-CN.md"]
DOCS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/**/*.md"))
PAGES = [*READMES, "CONTRIBUTING.md", "CHANGELOG.md", *DOCS]
FENCE = re.compile(r"^( *)(`{3,}|~{3,})[^\n]*\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)


def text_of(name: str) -> str:
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
    return set(re.findall(r"^TARGETS := (.*)$", text_of("Makefile"), re.MULTILINE)[0].split())


def tables(text: str) -> list[list[list[str]]]:
    """Tables of a page, as rows of cells; the first row is the header."""
    found: list[list[list[str]]] = [[]]
    for line in FENCE.sub("", text).splitlines():
        if line.strip().startswith("|"):
            cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
            found[-1].append([cell.strip() for cell in cells])
        elif found[-1]:
            found.append([])
    return [[row for row in table if not set("".join(row)) <= set("-: ")] for table in found if table]


def settings_of(text: str) -> dict[str, str]:
    """Defaults by setting, of the tables of a page whose columns are headed setting (设置) and default (默认)."""
    found = {}
    for header, *rows in tables(text):
        if re.fullmatch("setting|设置", header[0]) and re.fullmatch("default|默认", header[1]):
            found |= {row[0].strip("`"): row[1].strip("`") for row in rows}
    return found


def defaults() -> dict[str, object]:
    """Values of config.yaml by dotted name."""
    values = yaml.safe_load(config.DEFAULTS.read_text("utf-8"))
    return {key: config.look_up(values, key) for key in config.known_keys()}


@pytest.mark.parametrize("name", READMES)
def test_the_commands_exist(name):
    """Guards against a README with commands that were renamed: python X.py, make.py TARGET, --config RECIPE."""
    code = code_of(text_of(name))
    scripts = words(r"python3? (?:-\w+ )*([\w./-]+\.py)\b", code)
    assert scripts and [script for script in scripts if not (ROOT / script).is_file()] == []
    made = words(r"(?:^|[\s;&|(])make(?:\.py)? (?:[A-Z]+=\S+ )*([a-z][\w-]*)", code)
    assert {"demo", "test"} <= set(made) <= targets(), set(made) - targets()
    recipes = words(r"--config (recipes/[\w./-]+)", code)
    assert [recipe for recipe in recipes if not (ROOT / recipe).is_file()] == []


def test_the_options_and_settings_of_the_commands_exist(command, tmp_path):
    """Guards against a command line in a README that its own program rejects."""
    known, helps = set(config.known_keys()), {}
    code = "\n".join(code_of(text_of(name)) for name in READMES)
    for script, rest in sorted(set(re.findall(r"python3? ([\w./-]+\.py)((?:[ \t]+[^\n#|&;>]+)?)", code))):
        options = re.findall(r"(?<!\S)(--[a-z][\w-]*)", rest)
        if options and script not in helps:
            helps[script] = command(script, "--help", cwd=tmp_path).out
        for option in options:
            assert re.search(rf"{option}\b", helps[script]), (script, option)
        for key in re.findall(r"(?<!\S)([a-z_][\w.]*)=", rest):
            assert key in known, (script, key)


def test_the_table_of_settings_is_complete_and_up_to_date():
    """Guards against docs/settings.md without a setting, with one too many, or written from an older config.yaml."""
    spec = importlib.util.spec_from_file_location("docs_settings", ROOT / "docs" / "settings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = text_of("docs/settings.md")
    assert list(settings_of(page)) == list(defaults()), "run `python make.py docs`"
    assert page == module.render(config.DEFAULTS.read_text("utf-8")), "run `python make.py docs`"


@pytest.mark.parametrize("name", ["docs/settings.md"])
def test_the_defaults_are_those_of_config_yaml(name):
    """Guards against defaults that stand in two places and differ."""
    listed, real = settings_of(text_of(name)), defaults()
    assert len(listed) >= 10, "no table of settings was found"
    assert listed.keys() <= real.keys(), listed.keys() - real.keys()
    assert {key: yaml.safe_load(value) for key, value in listed.items()} == {key: real[key] for key in listed}


def test_the_readme_shows_the_order_of_imports():
    """Guards against an order in the README that is not the one that test_structure.py checks."""
    (order,) = re.findall(r"((?:    .*<.*\n)+)", text_of("README.md"))
    assert re.split(r"[\s<]+", order.strip()) == ORDER


def test_the_file_map_is_complete():
    """Guards against a package or command that the README's file map lacks, and against paths that were moved."""
    (rows,) = (rows for header, *rows in tables(text_of("README.md")) if header == ["path", "subject"])
    paths = [path for row in rows for path in re.findall(r"`([^`]+)`", row[0])]
    assert [path for path in paths if not (ROOT / path).exists()] == []
    names = [path.removesuffix("/").removesuffix(".py") for path in paths if path != "config.yaml"]
    others = ["make", "recipes", "signs", "notebooks", "deploy", "tests", "bench", "docs"]
    assert sorted(names) == sorted([*ORDER, *others])
    assert {f"{name}.py" for name in COMMANDS} <= set(paths)


def texts_of(path: Path) -> list[str]:
    """String literals of a module, with ... for what f-strings fill in."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.JoinedStr):
            found.append("".join(part.value if isinstance(part, ast.Constant) else "..." for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return found


def test_the_messages_exist():
    """Guards against a README that explains errors in words that no command prints."""
    (rows,) = (rows for header, *rows in tables(text_of("README.md")) if header[0] == "message")
    texts = [text for path in MODULES.values() for text in texts_of(path)]
    messages = [row[0].strip("`") for row in rows]
    assert [one for one in messages if not any(one.removesuffix("...").strip() in text for text in texts)] == []


@pytest.mark.parametrize("name", PAGES)
def test_linked_files_exist(name):
    """Guards against links to files that were moved, and images that do not show."""
    links = re.findall(r"\]\(([^)\s]+)", FENCE.sub("", text_of(name)))
    links = [link.partition("#")[0] for link in links if not re.match(r"[a-z]+:|#", link)]
    assert [link for link in links if not (ROOT / name).parent.joinpath(link).exists()] == []


@pytest.mark.parametrize("name", PAGES)
def test_modules_in_the_pages_exist(name):
    """Guards against pages that name modules by where they stood before."""
    code = " ".join(re.findall(r"`([^`\n]+)`", FENCE.sub("", text_of(name)))) if name != "CHANGELOG.md" else ""
    rooms = [place for place in ORDER if (ROOT / place).is_dir()] + ["tests", "bench", "docs", "signs"]
    paths = words(rf"\b((?:{'|'.join(rooms)})/[\w/]+\.\w+)\b", code)
    own = [path for path in paths if not re.search(r"signs/(train|valid|test)|/labels\.txt", path)]
    assert [path for path in own if not (ROOT / path).exists()] == []
