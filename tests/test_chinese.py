"""Pages in Chinese: headings, commands, numbers, tables, code spans and links are those of the English pages."""

import os.path
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from test_readme import tables

ROOT = Path(__file__).resolve().parent.parent
PAIRS = {"README.md": "README.zh-CN.md"} | {
    f"docs/{path.name}": f"docs/zh-CN/{path.name}" for path in sorted(ROOT.glob("docs/zh-CN/*.md"))
}
SPAN = re.compile(r"`((?:[^`\n]|\n(?!\n))+)`")  # may be wrapped
LINK = re.compile(r"\]\(([^)\s]+)\)")
NUMBER = re.compile(r"(\d+(?:[.,]\d+)*)(?: *(megapixels?|million|百万|万))?")
UNITS = {"megapixel": 1_000_000, "megapixels": 1_000_000, "million": 1_000_000, "百万": 1_000_000, "万": 10_000}


@dataclass
class Section:
    """What stands below one heading, up to the next."""

    heading: str = ""
    code: list[str] = field(default_factory=list)  # lines of its blocks, without comments
    comments: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)  # prose and tables

    @property
    def level(self) -> int:
        return len(self.heading) - len(self.heading.lstrip("#"))

    @property
    def prose(self) -> str:
        return "\n".join([self.heading, *(line for line in self.lines if not line.startswith("|")), *self.comments])


def sections(text: str) -> list[Section]:
    """Cuts a page at its headings; code is fenced, or indented by four spaces below an empty line."""
    found, fence, indented, before = [Section()], "", False, ""
    for line in text.splitlines():
        mark = re.match(r" *(`{3,}|~{3,})", line)
        indented = not fence and line.startswith("    ") and (indented or not before.strip())
        if mark and fence in ("", mark[1]):
            fence = "" if fence else mark[1]
        elif fence or indented:
            code, *comment = re.split(r"(?:^|\s+)#(?= )", line, maxsplit=1)
            found[-1].code.append(code.rstrip())
            found[-1].comments += comment
        elif re.match("#+ ", line):
            found.append(Section(line.strip()))
        else:
            found[-1].lines.append(line)
        before = line
    return found[1:]


def spans(text: str) -> Counter:
    return Counter(" ".join(span.split()) for span in SPAN.findall(text))


def numbers(text: str) -> Counter:
    """Numbers outside code spans and targets of links: 1,000 as 1000; 50 million, 50 megapixels and 5000 万 alike."""
    found = NUMBER.findall(SPAN.sub(" ", LINK.sub("]", text)))
    plain = [(re.sub(r",(?=\d{3}(?!\d))", "", number), UNITS.get(unit)) for number, unit in found]
    return Counter(f"{float(number) * unit:.0f}" if unit else number for number, unit in plain)


def slug(heading: str) -> str:
    """The anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lstrip("# ").lower()).replace(" ", "-")


def links(section: Section, name: str, pairs: dict[str, str]) -> Counter:
    """Targets as paths from the root, of a page in Chinese where `pairs` has one, with the number of the heading."""
    found = []
    for target in LINK.findall("\n".join(section.lines)):
        path, _, anchor = target.partition("#")
        if re.match("[a-z]+:", target):
            found.append(target)
            continue
        page = os.path.normpath(os.path.join(os.path.dirname(name), path)) if path else name
        if anchor:
            headings = [slug(one.heading) for one in sections((ROOT / page).read_text("utf-8"))]
            anchor = f"#heading {headings.index(anchor) + 1}" if anchor in headings else f"#{anchor} (no such heading)"
        found.append(pairs.get(page, page) + anchor)
    return Counter(found)


def compare(what: str, english: Counter, chinese: Counter) -> list[str]:
    """Says what either has more than the other."""
    sides = {"English": english - chinese, "Chinese": chinese - english}
    extra = [f"only in {side}: {', '.join(sorted(more.elements()))}" for side, more in sides.items() if more]
    return ["; ".join([what, *extra])] if extra else []


def compare_tables(english: str, chinese: str) -> list[str]:
    """Sizes, numbers of each row, and code spans of each cell."""
    pairs = tables(english), tables(chinese)
    sizes = [[(len(table), max(map(len, table))) for table in page] for page in pairs]
    if sizes[0] != sizes[1]:
        what = f"rows and columns of the tables: English {sizes[0]}, Chinese {sizes[1]}"
        return compare(what, spans(english), spans(chinese)) or [what]
    found = []
    for one, other in zip(*pairs, strict=True):
        for row, (cells, own) in enumerate(zip(one, other, strict=True)):
            where = f"table row {row} ({' | '.join(cells)[:60]})"
            found += compare(f"{where}, numbers", numbers(" | ".join(cells)), numbers(" | ".join(own)))
            found += [f"{where}: columns differ"] * (len(cells) != len(own))
            for column, (cell, translated) in enumerate(zip(cells, own, strict=False), 1):
                found += compare(f"{where}, code spans of column {column}", spans(cell), spans(translated))
    return found


def differences(english: str, chinese: str, name: str = "", translated: str = "") -> list[str]:
    """Says, heading by heading, in what two pages differ that does not depend on the language."""
    pages = sections(english), sections(chinese)
    if [one.level for one in pages[0]] != [other.level for other in pages[1]]:
        return [f"headings: English {[one.heading for one in pages[0]]}, Chinese {[one.heading for one in pages[1]]}"]
    found = []
    for one, other in zip(*pages, strict=True):
        own, theirs = links(one, name, PAIRS), links(other, translated, {})
        own.pop(translated, None)  # the links between the two pages
        theirs.pop(name, None)
        here = compare("code", Counter(one.code), Counter(other.code))
        here += compare("numbers", numbers(one.prose), numbers(other.prose))
        here += compare("code spans", Counter(set(spans(one.prose))), Counter(set(spans(other.prose))))
        here += compare_tables(*("\n".join(page.lines) for page in (one, other)))
        here += compare("links", own, theirs)
        found += [f"{one.heading} ({other.heading}): {line}" for line in here]
    return found


@pytest.mark.parametrize("name", PAIRS)
def test_a_page_in_chinese_says_what_the_english_one_says(name):
    """Guards against an English page that is changed alone, so that the Chinese one keeps old commands and numbers."""
    found = differences(*((ROOT / page).read_text("utf-8") for page in (name, PAIRS[name])), name, PAIRS[name])
    assert not found, "\n".join([f"{name} and {PAIRS[name]} differ:", *found])


@pytest.mark.parametrize("name", PAIRS)
def test_the_two_pages_link_to_each_other(name):
    """Guards against a reader of one language who does not learn of the page in the other."""
    for page, other, text in [(name, PAIRS[name], r"中文\w*"), (PAIRS[name], name, "English")]:
        link = re.escape(os.path.relpath(other, os.path.dirname(page)))
        assert re.search(rf"^\[{text}\]\({link}\)$", (ROOT / page).read_text("utf-8"), re.MULTILINE), page


ENGLISH = """# One

    python train.py epochs=3   # 2 minutes

An image of 50 megapixels costs 1,000 ms with `resize=pad`, see [below](x.md).

| setting | default |
| --- | --- |
| `epochs` | `16` of 20 |

## Two
"""
CHINESE = """# 一

    python train.py epochs=3   # 2 分钟

设 `resize=pad` 时，5000 万像素的图片需要 1000 毫秒，见[下文](x.md)。

| 设置 | 默认 |
| --- | --- |
| `epochs` | `16`，共 20 |

## 二
"""
BREAKS = {
    "## 二": ("### 二", "headings: English ['# One', '## Two'], Chinese ['# 一', '### 二']"),
    "epochs=3": ("epochs=4", "code; only in English:     python train.py epochs=3; only in Chinese:     python"),
    "# 2 分钟": ("# 3 分钟", "numbers; only in English: 2; only in Chinese: 3"),
    "5000 万": ("500 万", "numbers; only in English: 50000000; only in Chinese: 5000000"),
    "`resize=pad`": ("填充", "code spans; only in English: resize=pad"),
    "x.md": ("y.md", "links; only in English: x.md; only in Chinese: y.md"),
    "| `epochs` | `16`，共 20 |\n": (
        "",
        "of the tables: English [(2, 2)], Chinese [(1, 2)]; only in English: 16, epochs",
    ),
    "| `epochs`": ("| `epoch`", "code spans of column 1; only in English: epochs; only in Chinese: epoch"),
    "`16`": (
        "`8`",
        "table row 1 (`epochs` | `16` of 20), code spans of column 2; only in English: 16; only in Chinese: 8",
    ),
    "共 20": ("共 30", "table row 1 (`epochs` | `16` of 20), numbers; only in English: 20; only in Chinese: 30"),
}


@pytest.mark.parametrize("old", BREAKS)
def test_every_kind_of_difference_is_told(old):
    """Guards against a comparison that lets one kind of change pass, or does not say where and what."""
    new, message = BREAKS[old]
    assert differences(ENGLISH, CHINESE) == []
    (found,) = differences(ENGLISH, CHINESE.replace(old, new, 1))
    assert message in found and found.startswith(("headings", "# One (# 一)"))
