"""The language of reports and summaries: the catalogue, what templates and modules ask of it, and the choice."""

import ast
import html
import re
import string
from pathlib import Path

import jinja2
import pytest
from conftest import CLASS_NAMES
from jinja2 import nodes

import annotate
import evaluate
import explore
from annotation import summary
from annotation.lists import SPLITS
from evaluation import metrics, terminal
from models.runs import run_settings
from system import language
from system.text import columns

ROOT = Path(__file__).resolve().parents[2]
PAGES = [path for room in ("annotation", "evaluation", "exploration") for path in sorted((ROOT / room).glob("*.html"))]
PAGES.append(ROOT / "system" / "pages" / "base.html")
MODULES = [path for room in ("annotation", "evaluation", "exploration") for path in sorted((ROOT / room).glob("*.py"))]
HEADINGS = re.compile(r"<(title|h1|h2|h3|th|summary|button)\b[^>]*>(.*?)</\1>", re.DOTALL)


@pytest.fixture
def chosen(monkeypatch):
    """Puts back, after one test, the language that was chosen before it."""
    monkeypatch.setattr(language, "_chosen", "en")


def syntax(page: Path) -> nodes.Template:
    return jinja2.Environment().parse(page.read_text("utf-8"))


def constants(page: Path) -> set[str]:
    """Texts in the expressions of a template."""
    return {node.value for node in syntax(page).find_all(nodes.Const) if isinstance(node.value, str)}


def asked_by_page(page: Path) -> set[str]:
    """The sentences that a template has translated."""
    found = set()
    for call in syntax(page).find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name == "_":
            found |= {node.value for node in [call.args[0], *call.args[0].find_all(nodes.Const)]
                      if isinstance(node, nodes.Const) and isinstance(node.value, str)}  # fmt: skip
    for one in syntax(page).find_all(nodes.Filter):
        if one.name in ("counted", "inflect"):
            noun = one.args[0].value
            found.add("{count:,} " + noun if one.name == "counted" else noun)
    return found - {"_", " "}


def asked_by_module(file: Path) -> set[str]:
    """The sentences that a module has translated, where they stand in the call."""
    found = set()
    tree = ast.parse(file.read_text("utf-8"))
    if "system.language" not in {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}:
        return found
    for call in ast.walk(tree):
        name = call.func.id if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) else ""
        if name in ("translate", "_seen"):
            first = call.args[0]
            places = [first.body, first.orelse] if isinstance(first, ast.IfExp) else [first]
            found |= {one.value for one in places if isinstance(one, ast.Constant)}
        if name in ("counted", "inflect") and isinstance(call.args[1], ast.Constant):
            found.add("{count:,} " * (name == "counted") + call.args[1].value)
    return found


def placeholders(sentence: str) -> list[tuple]:
    return sorted((name, form) for _, name, form, _ in string.Formatter().parse(sentence) if name is not None)


def test_every_sentence_of_the_pages_is_in_the_catalogue():
    """Guards against a Chinese page or summary with an English sentence in it."""
    asked = set().union(*map(asked_by_page, PAGES), *map(asked_by_module, MODULES))
    assert len(asked) > 150
    assert sorted(asked - language.catalogue().keys()) == []


def test_no_entry_of_the_catalogue_is_dead():
    """Guards against Chinese of a sentence that was reworded: the page would fall back to English unseen."""
    written = set().union(*map(constants, PAGES), *map(asked_by_page, PAGES), *map(asked_by_module, MODULES))
    for file in MODULES:
        tree = ast.walk(ast.parse(file.read_text("utf-8")))
        written |= {node.value for node in tree if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    # Kinds of copies and rows of a table are shown without _; a kind stands in a query, a split in a noun.
    written |= {text.replace("_", " ") for text in written} | {"same bytes"}
    written |= {f"{{count:,}} {split} image" for split in SPLITS}
    assert sorted(language.catalogue().keys() - written) == []


def test_placeholders_are_the_same_in_both_languages():
    """Guards against a number that is lost in Chinese, and a name that fails while the page is written."""
    pairs = language.catalogue().items()
    assert [english for english, chinese in pairs if placeholders(english) != placeholders(chinese)] == []


def test_names_that_are_shown_by_a_key_are_in_the_catalogue():
    """Guards against English where a table shows a name that no literal call translates."""
    shown = {one.label for one in metrics.METRICS.values()} | {"mean", "standard deviation", "lowest", "highest"}
    shown |= {"same bytes", "same pixels", "near copy", "square", *summary.PAST.values()}
    assert sorted(shown - language.catalogue().keys()) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_template_has_no_words_outside_the_catalogue(page):
    """Guards against a heading, a caption or a text for screen readers that is English on a Chinese page."""
    text = re.sub(
        r"<script.*?</script>|{% block style %}.*?{% endblock %}|<style>.*?</style>",
        "",
        page.read_text("utf-8"),
        flags=re.DOTALL,
    )
    text = re.sub(r"{{.*?}}|{%.*?%}|<code>.*?</code>|\w+\.tsv", "", text, flags=re.DOTALL)
    shown = re.sub(r"<[^>]*>", " ", text) + " ".join(re.findall(r'(?:alt|aria-label|title)="([^"]*)"', text))
    assert re.findall(r"[A-Za-z]{2,}", shown) == []


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LC_MESSAGES": "zh_TW", "LANG": "en_US.UTF-8"}, "zh"),
        ({"LC_ALL": "C.UTF-8", "LC_MESSAGES": "zh_CN", "LANG": "zh_CN"}, "en"),
        ({"LC_ALL": "", "LANG": "de_DE.UTF-8"}, "en"),
        ({}, "en"),
    ],
)
def test_auto_is_the_language_of_the_system(monkeypatch, chosen, environment, expected):
    """Guards against Chinese reports on an English machine, and the other way round."""
    for variable in language.VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(language.sys, "platform", "linux")
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    language.choose("auto")
    assert language.chosen() == expected
    language.choose("zh")
    assert language.chosen() == "zh"


def test_an_unknown_sentence_is_english(chosen):
    """Guards against an error, or an empty place, where somebody adds a sentence and no Chinese."""
    language.choose("zh")
    assert language.translate("of nobody: {a:.1f} {b}", a=1, b="{x}") == "of nobody: 1.0 {x}"
    assert language.translate("a {brace}") == "a {brace}"
    assert language.counted(2, "ghost") == "2 ghosts" and language.counted(2, "image") == "2 张图片"


@pytest.mark.effect("language")
def test_the_page_and_summary_of_annotate_are_chinese(data, settings_for, chosen, capsys):
    """Guards against a re-run that keeps the page in the language of the last one, and English in between."""
    for wanted, tag in (("zh", "zh-CN"), ("en", "en"), ("zh", "zh-CN")):
        settings = settings_for("data", language=wanted)
        found = annotate.annotate(settings)
        page = Path("data/annotate.html").read_text("utf-8")
        assert f'<html lang="{tag}">' in page
    assert english_headings(page) <= {*CLASS_NAMES, "train", "valid", "test", "data"}
    capsys.readouterr()
    summary.print_summary(found[0], found[1], settings, found[2])
    printed = capsys.readouterr().out
    assert "保留：" in printed and "decoded" not in printed
    assert "图片, 3 个类别" in page


def test_the_report_and_comparison_are_chinese(trained, tmp_path, chosen):
    """Guards against a run's report in the language of another process, and headings that nobody translated."""
    overrides = ["language=zh"]
    report = evaluate.evaluate(trained, run_settings(trained, overrides), "test", folder=tmp_path)
    page = (tmp_path / "report.html").read_text("utf-8")
    names = {"F1", "ROC AUC", *CLASS_NAMES}
    assert '<html lang="zh-CN">' in page and english_headings(page) <= names
    lines = terminal.report_text(report).splitlines()
    assert len({columns(line) for line in lines[:4]}) == 1 and not re.search("[a-z]{4,} [a-z]{2,}", "".join(lines[4:]))
    found = evaluate.compare([trained, trained], overrides, folder=tmp_path)
    page = (tmp_path / "comparison.html").read_text("utf-8")
    assert '<html lang="zh-CN">' in page and english_headings(page) <= {"short", *names}
    head, *rows = terminal.comparison_text(found).splitlines()[:3]
    assert head.startswith("运行") and {columns(row.partition("  +")[0]) for row in rows}
    assert metrics.headline(report)[0][0] == "accuracy"


def test_an_exploration_is_chinese(drawn, settings_for, donor, tmp_path, chosen, monkeypatch, capsys):
    """Guards against a page of explore.py in English, and advice in Chinese within English lines."""
    monkeypatch.chdir(drawn.parent)
    small = {"network": "shufflenet_v2_x0_25", "image_shape": [3, 32, 32], "cpu_speedups": False, "cache": "none"}
    pretrained = donor("shufflenet_v2_x0_25", 32)
    explore.explore(settings_for("data", **small, pretrained=pretrained, language="zh"), folder=tmp_path)
    page = (tmp_path / "explore.html").read_text("utf-8")
    assert '<html lang="zh-CN">' in page and english_headings(page) <= {"data", *CLASS_NAMES}
    printed = capsys.readouterr().out
    found = printed.partition("可期望的准确率：")[2].partition(str(tmp_path))[0]
    assert found and not re.search("accuracy|image|label", found)


def english_headings(page: str) -> set[str]:
    """Headings of a page without a Chinese character."""
    texts = {re.sub("<[^>]*>", "", html.unescape(text)).strip() for _, text in HEADINGS.findall(page)}
    return {text for text in texts if re.search("[A-Za-z]", text) and not re.search("[\u4e00-\u9fff]", text)}
