"""The web page in a real browser: images in, predictions out, and no request leaves the origin."""

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving_process import ServeProcess

import predict

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
TOKEN = "correct horse"
PENDING = "[data-state=waiting], [data-state=sending]"


@pytest.fixture(scope="module")
def server(trained, exported, tmp_path_factory) -> Iterator[ServeProcess]:
    """A server with every feature enabled, over an export of the short run."""
    reports = tmp_path_factory.mktemp("page") / "reports.tsv"
    options = ("--workers", "1", "--max-body-mb", "1", "--run", str(trained.path), "--relabel-file", str(reports))
    started = ServeProcess(exported, *options, SERVE_TOKEN=TOKEN)
    started.reports = reports
    started.http.headers["Authorization"] = f"Bearer {TOKEN}"
    end = time.monotonic() + 60
    while not started.http.get("/model").json()["gradcam"]:
        assert time.monotonic() < end, started.lines
        time.sleep(0.1)
    yield started
    assert started.end() == 0


@pytest.fixture
def visit(browser, server) -> Iterator[Callable]:
    """Opens the page; when the test ends, no request may have left the origin and no error may have occurred."""
    contexts, other_origins, errors = [], [], []

    def open_page(token: str | None = TOKEN, **options):
        context = browser.new_context(**{"locale": "en-US", "viewport": {"width": 1100, "height": 800}, **options})
        contexts.append(context)
        if token:
            context.add_init_script(f"sessionStorage.token ??= {json.dumps(token)}")
        page = context.new_page()
        page.set_default_timeout(10_000)
        ours = (server.address, "blob:", "data:")
        page.on("request", lambda request: None if request.url.startswith(ours) else other_origins.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        # Error responses are on the console too; the page shows their message.
        page.on("console", lambda line: None if "Failed to load resource" in line.text else errors.append(line.text))
        page.goto(server.address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert (other_origins, errors) == ([], [])


def _choose(page, *files: Path) -> None:
    page.set_input_files("#files", [str(file) for file in files])
    sync_api.expect(page.locator(".card").first).to_be_attached()
    sync_api.expect(page.locator(PENDING)).to_have_count(0)


def _predicted(call, folder: Path, images: list[Path]) -> list[tuple[str, float]]:
    """The top-1 class and probability of each image, by predict.py."""
    ended = call(predict, *images, "--model", folder, "device=cpu", "threads=1", "engine=onednn")
    assert ended.status == 0, ended
    lines = [line.rpartition(": ")[2].split(", ")[0].rpartition(" ") for line in ended.out.strip().splitlines()]
    return [(name, float(probability)) for name, _, probability in lines]


def test_predictions_are_those_of_predict(visit, exported, drawn, call):
    """Guards against predictions that stand at the wrong image, or that are not predict.py's."""
    images = sorted((drawn / "test").rglob("*.jpg"))
    page = visit()
    _choose(page, *images)
    names = page.locator(".card .name").all_text_contents()
    assert names == [image.name for image in images]
    for card, (name, probability) in zip(page.locator(".card").all(), _predicted(call, exported, images), strict=True):
        assert card.locator(".prediction b").text_content() == name
        assert card.locator(".label").first.text_content() == name
        assert float(card.locator(".share").first.text_content()[:-1]) == pytest.approx(100 * probability, abs=0.06)
    assert page.locator("#classes li").all_text_contents() == ["ox", "dragon", "dog"]


def test_dropped_and_pasted_images(visit, drawn):
    """Guards against drops or pastes that are ignored."""
    page = visit()
    sync_api.expect(page.locator("#classes li")).to_have_count(3)
    image = next((drawn / "test" / "dog").iterdir()).read_bytes()
    dispatch = """([bytes, name, kind, where]) => {
      const data = new DataTransfer();
      data.items.add(new File([new Uint8Array(bytes)], name, { type: "image/jpeg" }));
      const event = kind === "paste" ? new ClipboardEvent(kind, { clipboardData: data, bubbles: true })
                                     : new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true });
      document.querySelector(where).dispatchEvent(event);
    }"""
    page.evaluate(dispatch, [list(image), "a.jpg", "dragenter", "#drop"])
    sync_api.expect(page.locator("body")).to_have_class(re.compile("dragging"))
    page.evaluate(dispatch, [list(image), "a.jpg", "drop", "#drop"])
    sync_api.expect(page.locator("[data-state=predicted]")).to_have_count(1)
    page.evaluate(dispatch, [list(image), "image.jpg", "paste", "body"])
    sync_api.expect(page.locator("[data-state=predicted]")).to_have_count(2)
    assert re.match(r"pasted \d\d\.\d\d\.\d\d\.jpg", page.locator(".name").first.text_content())


def test_the_camera(visit):
    """Guards against a camera that takes no photo, or that stays on afterwards."""
    page = visit()
    page.click("#camera")
    page.click("#shoot")
    sync_api.expect(page.locator("[data-state=predicted]")).to_have_count(1)
    assert page.evaluate("document.querySelector('video').srcObject") is None
    assert page.locator(".image").evaluate("canvas => canvas.width") > 100


def test_bad_files_show_their_error(visit, drawn, tmp_path):
    """Guards against one bad file that fails the others, and against uploads the server must refuse."""
    (tmp_path / "notes.txt").write_text("no image")
    Image.effect_noise((1500, 1500), 100).save(tmp_path / "large.png")
    assert (tmp_path / "large.png").stat().st_size > 2**20
    page, sent = visit(), []
    page.on("request", lambda request: sent.append(request.url))
    _choose(page, tmp_path / "notes.txt", next((drawn / "test" / "dog").iterdir()), tmp_path / "large.png")
    assert page.locator(".card").evaluate_all("cards => cards.map(card => card.dataset.state)") == [
        "failed",
        "predicted",
        "failed",
    ]
    assert "notes.txt: " in page.locator(".card .sentence").nth(0).text_content()
    assert "was not sent" in page.locator(".card .sentence").nth(2).text_content()
    assert "2 failed" in page.locator("#count").text_content()
    page.click("#clear")
    sent.clear()
    _choose(page, tmp_path / "large.png")
    assert sent == []


def test_a_busy_server_can_be_retried(visit, drawn):
    """Guards against images that are lost when the queue is full, and against errors that are not shown."""
    page = visit()
    busy = {"status": 503, "headers": {"Retry-After": "1"}, "json": {"error": "the queue is full; try again in 1 s"}}
    page.route("**/predict", lambda route: route.fulfill(**busy))
    _choose(page, *sorted((drawn / "test").rglob("*.jpg"))[:3])
    assert page.locator(".card .sentence").all_text_contents() == ["the queue is full; try again in 1 s"] * 3
    page.unroute("**/predict")
    page.locator(".retry").first.click()
    sync_api.expect(page.locator("[data-state=predicted]")).to_have_count(1)
    page.click("#retry")
    sync_api.expect(page.locator("[data-state=predicted]")).to_have_count(3)


def test_none_of_these(visit, drawn):
    """Guards against a page that shows a class where the model rejects the image."""
    top = [{"class": "ox", "probability": 0.5}, {"class": "dog", "probability": 0.5}]
    one = {"file": "a", "class": None, "probability": 0.5, "none_of_these": True, "top": top}
    page = visit()
    page.route("**/predict", lambda route: route.fulfill(json={"model": "m", "milliseconds": 1, "results": [one]}))
    _choose(page, next((drawn / "test" / "dog").iterdir()))
    assert page.locator(".prediction").inner_text() == "None of these"
    assert page.locator(".card .share").all_text_contents() == ["50.0%", "50.0%"]


def test_the_token_is_asked_for(visit, drawn):
    """Guards against a page that cannot be used with a token, and against a wrong token that is kept."""
    page = visit(token=None)
    sync_api.expect(page.locator("#token")).to_be_visible()
    page.fill("#token-value", "wrong")
    page.keyboard.press("Enter")
    sync_api.expect(page.locator("#token-why")).to_have_text("Wrong token; check it and try again.")
    page.fill("#token-value", TOKEN)
    page.keyboard.press("Enter")
    sync_api.expect(page.locator("#classes li")).to_have_count(3)
    _choose(page, next((drawn / "test" / "dog").iterdir()))
    assert page.locator("[data-state=predicted]").count() == 1


def test_languages(visit, drawn):
    """Guards against a choice of language that is lost, and against texts that one language lacks."""
    page = visit(locale="zh-CN")
    sync_api.expect(page.locator("h1")).to_have_text("这张图片是什么？")
    _choose(page, next((drawn / "test" / "dog").iterdir()))
    page.click("#language")
    assert page.locator("h1").text_content() == "What does this image show?"
    assert page.locator("#count").text_content().startswith("1 image classified")
    page.reload()
    sync_api.expect(page.locator("h1")).to_have_text("What does this image show?")
    keys = """import('/texts.js').then(({ en, zh }) =>
      [en, zh].map((texts) => Object.keys(texts).map((key) => [key, typeof texts[key]])))"""
    english, chinese = page.evaluate(keys)
    assert english == chinese
    assert "undefined" not in page.locator("body").inner_text()


def test_views_by_keyboard(visit, drawn):
    """Guards against a page that needs a mouse: views, heat map, next image, removal, focus."""
    page = visit()
    _choose(page, *sorted((drawn / "test" / "dog").iterdir())[:3])
    cards = page.locator(".card")
    cards.nth(0).focus()
    page.keyboard.press("Enter")
    small = cards.nth(0).locator(".pixels")
    sync_api.expect(small).to_be_visible()
    assert small.evaluate("canvas => [canvas.width, canvas.height]") == [24, 24]
    page.keyboard.press("Enter")
    heat = cards.nth(0).locator(".heat")
    sync_api.expect(heat).to_be_visible()
    assert heat.evaluate("async (image) => { await image.decode(); return image.naturalWidth }") >= 24
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Delete")
    assert cards.count() == 2
    assert cards.nth(1).evaluate("card => card === document.activeElement")


def test_a_padded_image_is_shown_between_its_borders(visit):
    """Guards against a page that shows a crop of an image which the network sees whole."""
    page = visit()
    look = """async (size) => {
      const { drawBoth } = await import("/pixels.js");
      const [file, small] = [new OffscreenCanvas(...size), document.createElement("canvas")];
      Object.assign(file.getContext("2d"), { fillStyle: "red" }).fillRect(0, 0, size[0], size[1]);
      file.getContext("2d").clearRect(0, 0, size[0] / 2, size[1]);
      const model = { image_shape: [3, 24, 20], cover: null, fill: [1, 2, 3] };
      await drawBoth(await file.convertToBlob(), document.createElement("canvas"), small, model);
      return Array.from(small.getContext("2d").getImageData(0, 0, 20, 24).data);
    }"""
    pixels = np.reshape(page.evaluate(look, [80, 20]), (24, 20, 4))[..., :3]
    assert (pixels[:9] == (1, 2, 3)).all() and (pixels[14:] == (1, 2, 3)).all()
    assert (pixels[9:14, :9] == 255).all() and (pixels[9:14, 11:] == (255, 0, 0)).all()


def test_wrong_predictions_are_reported(visit, server, drawn):
    """Guards against a report of another file than the one on the page."""
    image = next((drawn / "test" / "dragon").iterdir())
    page = visit()
    _choose(page, image)
    page.click(".wrong")
    page.select_option(".relabel select", "dragon")
    page.fill(".relabel input", "plainly")
    page.keyboard.press("Enter")
    sync_api.expect(page.locator(".wrong")).to_have_text("Reported: dragon")
    head, row = (line.split("\t") for line in server.reports.read_text("utf-8").splitlines())
    report = dict(zip(head, row, strict=True))
    assert (report["file"], report["class"], report["note"]) == (image.name, "dragon", "plainly")
    assert report["digest"] == hashlib.sha256(image.read_bytes()).hexdigest()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_phone(visit, drawn, scheme):
    """Guards against horizontal scrolling, and against text without contrast."""
    page = visit(viewport={"width": 320, "height": 640}, has_touch=True, is_mobile=True, color_scheme=scheme)
    _choose(page, *sorted((drawn / "test" / "dog").iterdir())[:2])
    page.click("summary")
    page.locator(".wrong").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    colours = page.evaluate("['color', 'backgroundColor'].map((name) => getComputedStyle(document.body)[name])")
    ink, paper = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in colours)
    assert ink < paper - 300 if scheme == "light" else ink > paper + 300
