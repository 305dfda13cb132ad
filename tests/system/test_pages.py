"""The base of all pages: its filters, and its colours and print in a browser."""

import re
import shutil

import pytest

from system.pages import templates

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
PAGE = """{% extends "base.html" %}
{% block title %}<b>{% endblock %}
{% block about %}{{ 1 | counted("image") }}{% endblock %}
{% block contents %}<a href="#one">One</a>{% endblock %}
{% block main %}
<h2 id="one">One</h2><p class="soft">soft</p><p class="wrong">wrong</p><p class="right">right</p><a href="#one">link</a>
<div class="tiles"><figure><figcaption>{{ path | breakable }}</figcaption></figure></div>
{% endblock %}
"""
LONG = "data/train/summer_holiday-of-the-whole_family/photograph_of_a_dragon-2024-05-17_copy.jpg"
# Colours as "rgb(r, g, b)": of the page, then of its texts.
COLOURS = """() => [document.body, ...document.querySelectorAll("h1, .soft, .wrong, .right, main a, nav a")].map(
    (one, index) => getComputedStyle(one)[index ? "color" : "backgroundColor"])"""
# The text of each line of the caption.
LINES = """() => {
    const lines = {}, walk = document.createTreeWalker(document.querySelector("figcaption"), NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) for (let i = 0; i < walk.currentNode.length; i++) {
        const range = document.createRange();
        range.setStart(walk.currentNode, i);
        range.setEnd(walk.currentNode, i + 1);
        const top = Math.round(range.getBoundingClientRect().top);
        lines[top] = (lines[top] || "") + walk.currentNode.data[i];
    }
    return Object.keys(lines).map(Number).sort((a, b) => a - b).map((top) => lines[top]);
}"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page of the base, in Chromium at the width of a phone."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("neither chromium nor google-chrome is on this machine")
    folder = tmp_path_factory.mktemp("pages")
    (folder / "probe.html").write_text(PAGE, "utf-8")
    (folder / "page.html").write_text(templates.render(folder / "probe.html", path=LONG), "utf-8")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        opened = browser.new_page(viewport={"width": 390, "height": 800})
        opened.goto((folder / "page.html").as_uri())
        yield opened
        browser.close()


def luminance(colour: str) -> float:
    """Relative luminance 0..1. Source: WCAG 2.2."""
    shares = [int(one) / 255 for one in re.findall(r"\d+", colour)[:3]]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrasts(page) -> tuple[float, list[float]]:
    """Luminance of the page, and the contrast of each text with it."""
    ground, *texts = map(luminance, page.evaluate(COLOURS))
    return ground, [(max(ground, text) + 0.05) / (min(ground, text) + 0.05) for text in texts]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_are_readable_by_day_and_night(page, scheme):
    """Guards against a white page at night, and colours that one of the two backgrounds swallows."""
    page.emulate_media(color_scheme=scheme, media="screen")
    ground, found = contrasts(page)
    assert (ground > 0.9) == (scheme == "light") and len(found) == 7
    assert min(found) >= 4.5


def test_print_is_dark_on_white(page):
    """Guards against a black sheet of paper, and links to sections on it."""
    page.emulate_media(color_scheme="dark", media="print")
    assert contrasts(page)[0] > 0.9 and not page.locator("nav").is_visible()


def test_names_break_at_their_joints(page):
    """Guards against file names that are cut in the middle of a word, or that widen a phone's page."""
    page.emulate_media(color_scheme="light", media="screen")
    lines = page.evaluate(LINES)
    assert len(lines) > 2 and "".join(lines) == LONG
    assert {line[-1] for line in lines[:-1]} <= set("/_-")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_breakable_texts_are_escaped():
    """Guards against markup in file names, and against entities that a break tears apart."""
    assert templates.breakable("a/<b>_&-'.jpg") == "a/<wbr>&lt;b&gt;_<wbr>&amp;-<wbr>&#39;.jpg"
