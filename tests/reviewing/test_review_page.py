"""The page of review.py in a real browser: keys, tabs, languages, a phone; decisions are in corrections.tsv."""

import os
import re
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from review_process import CAT, DOG, OX, SUSPECTS, write
from test_annotate import folder, image, settings

import annotate

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect
FIRST, SECOND, THIRD, FOURTH = f"test/{DOG}/1.jpg", f"train/{CAT}/0.jpg", f"train/{DOG}/1.jpg", f"train/{OX}/2.jpg"
# axe-core's axe.min.js, where somebody has it: it knows more of accessibility than the assertions here.
AXE = os.environ.get("AXE_CORE")


@pytest.fixture
def visit(browser) -> Iterator[Callable]:
    """Opens the page of a server; when the test ends, no request may have left it and no error may have occurred."""
    contexts, elsewhere, errors = [], [], []

    def open_page(server, context=None, **options):
        if context is None:
            context = browser.new_context(**{"locale": "en-US", "viewport": {"width": 1280, "height": 800}, **options})
            contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        ours = (server.origin, "blob:", "data:")
        page.on("request", lambda request: None if request.url.startswith(ours) else elsewhere.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: None if "Failed to load resource" in line.text else errors.append(line.text))
        page.goto(server.address if not context.cookies() else server.origin)
        expect(page.locator(".frame[data-shown]").first).to_be_visible()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert (elsewhere, errors) == ([], [])


def press(page, key: str, *paths: str) -> None:
    """Presses a key; then waits until the next image is seen, the server has answered and these were announced."""
    page.keyboard.press(key)
    for path in paths:
        expect(page.locator("#log p").last).to_contain_text(path.rpartition("/")[2])
    settled(page)


def settled(page) -> None:
    expect(page.locator("body")).not_to_have_attribute("aria-busy", "true")
    expect(page.locator("#single:not([hidden]) .frame:not([data-shown])")).to_have_count(0)


def test_decisions_by_keys(visit, review, decided):
    """Guards against a page that needs a mouse, and keys that decide something else than they say."""
    server = review()
    page = visit(server)
    assert page.url == f"{server.origin}/"
    assert page.evaluate("document.cookie") == ""
    expect(page.locator("#question")).to_have_text(f"Labelled “{DOG}”. Is it “{CAT}”?")
    assert page.locator(".bars .share").all_text_contents() == ["0.1%", "99.8%"]
    expect(page.locator("#queues [aria-current]")).to_contain_text("4 of 4 left")
    press(page, "k", FIRST)
    press(page, "a", SECOND)
    press(page, "s")
    page.keyboard.press("c")
    page.keyboard.type("1")  # the first class, by its number
    expect(page.locator("#class-list [aria-selected=true]")).to_contain_text(OX)
    press(page, "Escape")
    page.keyboard.press("c")
    page.keyboard.type("#")
    press(page, "Enter", FOURTH)
    assert decided() == {FIRST: ("keep", ""), SECOND: ("relabel", DOG), FOURTH: ("relabel", DOG)}
    expect(page.locator("#empty-why")).to_have_text("Everything else here is decided; 1 one was skipped.")
    page.click("#skipped")
    settled(page)
    press(page, "d", THIRD)
    expect(page.locator("#count")).to_contain_text("0 left here")
    for path in (THIRD, FOURTH, SECOND):
        page.keyboard.press("u")
        expect(page.locator("#facts")).to_contain_text(path)
        settled(page)
    assert decided() == {FIRST: ("keep", "")}
    press(page, "ArrowLeft")
    expect(page.locator("#facts")).to_contain_text("label is right (li")
    press(page, "t", FIRST)
    assert decided() == {}
    assert server.end() == "decided: nothing; next: python annotate.py data_dir=photos"


def test_every_queue_to_its_end(visit, review, decided):
    """Guards against a pair whose wrong image is decided, a queue that cannot be ended, and a page that stops there."""
    page = visit(review("--reports", "reports.tsv"))
    for path in (FIRST, SECOND, THIRD, FOURTH):
        press(page, "k", path)
    page.click("#next-queue")
    settled(page)
    expect(page.locator("#question")).to_contain_text("The same image, labelled")
    press(page, "2")
    expect(page.locator("[data-action=accept]")).to_contain_text(f"Image 2 is {CAT}")
    press(page, "a", f"train/{OX}/0.jpg")  # both have one label: that answers it
    for keys, path in (
        ("qd", f"train/{DOG}/0.jpg"),
        ("qk", "2 images"),
        ("qk", "2 images"),
        ("qk", f"test/{OX}/0.jpg"),
    ):
        press(page, keys[0])
        press(page, keys[1], path)
    press(page, "q")
    expect(page.locator("[data-action=keep]")).to_contain_text("Let it in")
    expect(page.locator("[data-action=class]")).to_be_disabled()
    press(page, "k", "grey %41.png")
    press(page, "q")
    expect(page.locator("#facts")).to_contain_text("“=no ox”")
    press(page, "a", f"valid/{OX}/1.jpg")
    expect(page.locator("#empty-why")).to_contain_text("Nothing is left in any queue.")
    found = decided()
    assert found[f"train/{OX}/0.jpg"] == ("relabel", CAT) and found[f"train/{DOG}/0.jpg"] == ("drop", "")
    assert found[f"train/{DOG}/grey %41.png"] == ("keep", "") and found[f"valid/{OX}/1.jpg"] == ("relabel", CAT)
    assert len(found) == 4 + 1 + 1 + 2 + 2 + 1 + 1 + 1
    page.click("[data-queue=decided]")
    settled(page)
    expect(page.locator("#count")).to_contain_text("1 of 13")
    press(page, "d", f"valid/{OX}/1.jpg")
    assert decided()[f"valid/{OX}/1.jpg"] == ("drop", "")


def test_several_at_once(visit, review, decided):
    """Guards against a selection that is decided in part, and one that holds images which nobody has seen."""
    page = visit(review())
    page.keyboard.press("g")
    cells = page.locator(".cell")
    expect(cells.locator("img")).to_have_count(4)
    press(page, "k")
    expect(page.locator("#banner")).to_have_text("Select images first.")
    expect(cells.nth(0)).to_be_focused()
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    expect(page.locator("#selected")).to_have_text("2 selected")
    press(page, "a", "2 images")
    assert decided() == {FIRST: ("relabel", CAT), SECOND: ("relabel", DOG)}
    expect(cells.nth(0)).to_contain_text(f"relabelled to {CAT}")
    press(page, "u")
    expect(page.locator("#log p").last).to_contain_text("2 images")
    cells.nth(1).click()
    cells.nth(3).click(modifiers=["Shift"])
    expect(page.locator("#selected")).to_have_text("3 selected")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+a")
    expect(page.locator("#selected")).to_have_text("4 selected")
    page.keyboard.press("c")
    page.keyboard.type(CAT)
    press(page, "Enter", "4 images")
    # An image that has the class already has a label that is right.
    assert decided() == {
        path: ("keep", "") if path == SECOND else ("relabel", CAT) for path in (FIRST, SECOND, THIRD, FOURTH)
    }
    cells.nth(2).dblclick()
    expect(page.locator("#facts")).to_contain_text(THIRD)


def test_two_tabs(visit, review, decided):
    """Guards against a tab that overwrites what was decided in another, or that never hears of it."""
    server = review()
    one = visit(server)
    two = visit(server, one.context)
    press(one, "a", FIRST)
    two.keyboard.press("d")
    expect(two.locator("#banner")).to_contain_text("decided elsewhere meanwhile, as marked")
    expect(two.locator("#facts")).to_contain_text(f"relabelled to {CAT} (li")
    assert decided() == {FIRST: ("relabel", CAT)}
    press(two, "d", FIRST)
    assert decided() == {FIRST: ("drop", "")}
    press(one, "u")
    expect(one.locator("#banner")).to_contain_text("Not undone")
    expect(one.locator("#queues [aria-current]")).to_contain_text("3 of 4 left")


def test_what_cannot_be_decided_is_said(visit, review, place, decided):
    """Guards against a decision about a file that was replaced, and one that is shown although it was not saved."""
    (place / "photos" / SECOND).write_bytes(b"\xff\xd8\xff nothing")
    server = review()
    page = visit(server)
    image(78).save(place / "photos" / FIRST)
    before = page.locator(".frame img").get_attribute("src")
    page.keyboard.press("d")
    expect(page.locator("#banner")).to_contain_text("The file has changed since it was shown")
    expect(page.locator(".frame img")).not_to_have_attribute("src", before)
    assert decided() == {}
    settled(page)
    _, most = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (10, most))
    page.keyboard.press("d")
    expect(page.locator("#banner")).to_have_text(
        re.compile(r"Not saved: corrections.tsv cannot be written \(.+\). Nothing was decided.")
    )
    expect(page.locator("#count")).to_contain_text("4 left here")
    expect(page.locator("#facts")).to_contain_text(FIRST)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (most, most))
    press(page, "d", FIRST)
    expect(page.locator("#banner")).to_be_hidden()
    expect(page.locator(".frame")).to_contain_text("This file cannot be shown: ")
    press(page, "d", SECOND)
    assert decided() == {FIRST: ("drop", ""), SECOND: ("drop", "")}
    server.process.kill()
    page.keyboard.press("k")
    expect(page.locator("#banner")).to_contain_text("review.py does not respond")
    expect(page.locator("#facts")).to_contain_text(THIRD)


def test_languages(visit, review, decided):
    """Guards against texts that one language lacks, and choices (language, letter keys) that are lost."""
    page = visit(review(), locale="zh-CN")
    expect(page.locator("h1")).to_have_text("图片复核")
    expect(page.locator("#question")).to_have_text(f"当前标签是“{DOG}”，会不会是“{CAT}”？")
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_contain_text("快捷键")
    page.uncheck("#letters")
    page.keyboard.press("Escape")
    page.click("#language")
    page.reload()
    expect(page.locator("h1")).to_have_text("Review")
    keys = """import('/texts.js').then(({ en, zh }) =>
      [en, zh].map((texts) => Object.keys(texts).map((key) => [key, typeof texts[key]])))"""
    english, chinese = page.evaluate(keys)
    assert english == chinese
    named = page.evaluate(
        "[...document.querySelectorAll('[data-text], [data-label]')].flatMap(({ dataset }) => Object.values(dataset))"
    )
    assert {name for name in named if name is not None} <= {key for key, _ in english}
    assert "undefined" not in page.locator("body").inner_text()
    press(page, "k")
    assert decided() == {}
    page.locator("[data-action=keep]").click()
    expect(page.locator("#log p").last).to_contain_text("label is right")
    assert decided() == {FIRST: ("keep", "")}


UNNAMED = """() => [...document.querySelectorAll('button, input, img, [role=option], dialog, progress, section, nav')]
  .filter((one) => one.checkVisibility() && !(one.ariaLabel || one.alt || one.textContent.trim() || one.closest('label')
    || one.getAttribute('aria-labelledby') || one.parentElement.ariaLabel))
  .map((one) => one.outerHTML)"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_phone(visit, review, decided, scheme):
    """Guards against horizontal scrolling, text without contrast, elements without a name, and taps that do nothing."""
    phone = {"viewport": {"width": 320, "height": 640}, "has_touch": True, "is_mobile": True, "color_scheme": scheme}
    page = visit(review(), **phone, bypass_csp=bool(AXE))

    def check() -> None:
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
        assert page.evaluate(UNNAMED) == []
        if AXE:
            page.evaluate(Path(AXE).read_text("utf-8") + ";0")
            assert page.evaluate("axe.run().then(({ violations }) => violations.map(({ id }) => id))") == []

    check()
    colours = page.evaluate("['color', 'backgroundColor'].map((name) => getComputedStyle(document.body)[name])")
    ink, paper = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in colours)
    assert ink < paper - 300 if scheme == "light" else ink > paper + 300
    page.locator("[data-action=accept]").tap()
    expect(page.locator("#facts")).to_contain_text(SECOND)
    settled(page)
    page.locator("#mode").tap()
    expect(page.locator(".cell img")).to_have_count(3)
    page.locator(".cell").nth(1).tap()
    page.locator("#select-all").tap()
    expect(page.locator("#selected")).to_have_text("3 selected")
    check()
    page.locator("[data-action=drop]").tap()
    expect(page.locator("#log p").last).to_contain_text("3 images")
    assert len(decided()) == 4
    page.locator("[data-queue=conflicts]").tap()
    page.locator("#mode").tap()
    settled(page)
    check()
    page.locator(".frame").nth(1).tap()
    expect(page.locator(".frame").nth(1)).to_have_attribute("aria-pressed", "true")
    page.locator("[data-action=class]").tap()
    check()


def test_thousands_of_images(visit, review, place):
    """Guards against a grid that holds every image at once, in the page or in what it keeps."""
    photos = folder(place / "many", {"train/a": 1, "train/b": 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        annotate.annotate(settings(Path("many")))
    names = [f"many/train/a/{number:04}.jpg" for number in range(3000)]
    for name in names:
        os.link(photos / "train/a/0.jpg", place / name)
    write(photos / "train.txt", "".join(f"{name}\t0\n" for name in names))
    write(place / "found/suspects.tsv", SUSPECTS + "".join(f"{name}\ttrain\ta\tb\t0.1\t0.9\n" for name in names))
    page = visit(review("data_dir=many", "--from", "found"))
    page.keyboard.press("g")
    expect(page.locator(".cell img").first).to_be_visible()
    page.keyboard.press("End")
    last = page.locator("[data-index='2999']")
    expect(last).to_be_focused()
    expect(last.locator("img")).to_be_visible()
    page.keyboard.press("Home")
    expect(page.locator("[data-index='0'] img")).to_be_visible()
    expect(last).to_have_count(0)
    assert page.locator(".cell").count() < 300
    # What lies between, and what is loaded beyond the screen, was not seen and cannot be selected.
    assert int(re.search(r"\d+", page.locator("#select-all").text_content().replace(",", "")).group()) < 100
