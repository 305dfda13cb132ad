"""The web page in a real browser: images in, predictions out, and no request leaves the origin."""

import hashlib
import json
import os
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
# File of axe-core, which is run beside our own checks where it is named.
AXE = os.environ.get("AXE_CORE")
AUDIT = Path(__file__).with_name("page_audit.js")
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

    def open_page(token: str | None = TOKEN, before: Callable | None = None, **options):
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
        if before:
            before(page)
        page.goto(server.address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert (other_origins, errors) == ([], [])


def _choose(page, *files: Path) -> None:
    before = page.locator(".card").count()
    page.set_input_files("#files", [str(file) for file in files])
    sync_api.expect(page.locator(".card")).to_have_count(before + len(files))
    sync_api.expect(page.locator(PENDING)).to_have_count(0)


def _change(page, path: str, **changes) -> None:
    """Changes keys of the server's responses to a path, from now on."""
    # In the page: a route that fetches loses the files of a form.
    script = """([path, changes]) => {
      const before = globalThis.fetch;
      globalThis.fetch = async (at, options) => {
        const response = await before(at, options);
        if (at !== path) return response;
        return Response.json({ ...(await response.json()), ...changes }, response);
      };
    }"""
    page.add_init_script(f"({script})({json.dumps([path, changes])})")
    page.evaluate(script, [path, changes])


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
    _change(page, "predict", results=[one])
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
    page.keyboard.type("drag")
    page.keyboard.press("Enter")
    page.fill(".relabel .note", "plainly")
    page.keyboard.press("Enter")
    sync_api.expect(page.locator(".wrong")).to_have_text("Reported: dragon")
    head, row = (line.split("\t") for line in server.reports.read_text("utf-8").splitlines())
    report = dict(zip(head, row, strict=True))
    assert (report["file"], report["class"], report["note"]) == (image.name, "dragon", "plainly")
    assert report["digest"] == hashlib.sha256(image.read_bytes()).hexdigest()


LONG_NAMES = ["x" * 100, "很长的类别名称" * 14]
MANY = ["ox", "dragon", "dog", *LONG_NAMES, *(f"class {index:04d}" for index in range(995))]


def test_a_class_is_searched_among_a_thousand(visit, drawn):
    """Guards against a list of 1,000 classes to scroll through, and against reports of a class that does not exist."""
    page = visit(before=lambda page: _change(page, "model", classes=MANY))
    _choose(page, next((drawn / "test" / "dog").iterdir()))
    reports = []
    page.route("**/relabel", lambda route: (reports.append(route.request.post_data_json), route.fulfill(json={})))
    assert page.locator("#classes li").count() == 40
    page.click("text=Show all 1,000 classes")
    assert page.locator("#classes li").all_text_contents() == MANY
    page.click("text=Show fewer")
    page.click(".wrong")
    assert page.locator(".options li").count() == 50
    assert page.locator(".found").text_content() == "50 of 1,000 classes; type to narrow the list"
    page.keyboard.type("S 012")
    assert page.locator(".options li").all_text_contents() == [f"class 012{digit}" for digit in range(10)]
    page.keyboard.press("ArrowDown")
    active = "input => document.getElementById(input.getAttribute('aria-activedescendant')).textContent"
    assert page.locator(".class").evaluate(active) == "class 0121"
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    assert page.locator(".class").input_value() == "class 0129"
    page.keyboard.type("x")
    assert page.locator(".found").text_content() == "No class name contains this."
    page.keyboard.press("Enter")
    assert reports == [] and page.locator(".class").evaluate("input => input.validationMessage") == "Choose a class"
    page.fill(".class", "xxx")
    page.locator(".options li").click()
    page.click(".relabel [type=submit]")
    sync_api.expect(page.locator(".wrong")).to_have_text(f"Reported: {MANY[3]}")
    assert [report["class"] for report in reports] == [MANY[3]]


def test_one_tab_stop_for_all_cards(visit, drawn):
    """Guards against tabbing through every control of every image, and against arrow keys that change columns."""
    page = visit()
    _choose(page, *sorted((drawn / "test").rglob("*.jpg"))[:6])
    where = "[...document.querySelectorAll('.card')].indexOf(document.activeElement)"
    assert (
        page.evaluate("getComputedStyle(document.querySelector('#cards')).gridTemplateColumns.split(' ').length") == 3
    )
    page.locator("#clear").focus()
    page.keyboard.press("Tab")
    for key, expected in zip(
        ("ArrowDown", "ArrowRight", "ArrowUp", "ArrowUp", "End", "ArrowLeft", "Home", "ArrowLeft", "ArrowDown"),
        (3, 4, 1, 1, 5, 4, 0, 0, 3),
        strict=True,
    ):
        page.keyboard.press(key)
        assert page.evaluate(where) == expected, key
    inside = "document.activeElement.closest('.card') === document.querySelectorAll('.card')[3]"
    controls = page.locator(".card").nth(3).locator("button:visible").count()
    for _ in range(controls + 1):  # the radio buttons of the views are one
        page.keyboard.press("Tab")
        assert page.evaluate(inside)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('.card')") is None
    page.keyboard.press("Shift+Tab")
    assert page.evaluate(inside)
    page.keyboard.press("Escape")
    assert page.evaluate(where) == 3
    page.locator("#clear").focus()
    page.keyboard.press("Tab")
    assert page.evaluate(where) == 3


def test_removal_can_be_undone(visit, drawn):
    """Guards against images that a slip of a finger removes for good, or that come back elsewhere."""
    page = visit()
    _choose(page, *sorted((drawn / "test").rglob("*.jpg"))[:4])
    names = page.locator(".card .name")
    before = names.all_text_contents()
    page.locator(".card").nth(1).focus()
    page.keyboard.press("Delete")
    assert names.all_text_contents() == [before[0], *before[2:]]
    page.keyboard.press("Control+z")
    assert names.all_text_contents() == before
    assert page.evaluate("document.activeElement.querySelector('.name').textContent") == before[1]
    page.locator(".remove").first.click()
    page.click("#undo")
    assert names.all_text_contents() == before
    page.click("#clear")
    assert page.locator("#count").text_content() == "4 images removed"
    page.keyboard.press("Enter")  # the button has the focus
    assert names.all_text_contents() == before and page.locator("[data-state=predicted]").count() == 4
    page.click("#clear")
    _choose(page, next((drawn / "test" / "dog").iterdir()))
    assert page.locator("#undo").is_hidden()
    page.keyboard.press("Control+z")
    assert names.count() == 1


def test_a_removed_image_that_waited_is_classified_after_undo(visit, drawn):
    """Guards against an image that stays "waiting" for ever because it was removed while it waited."""
    page, held = visit(), []
    sync_api.expect(page.locator("#classes li")).to_have_count(3)
    page.route("**/predict", lambda route: held.append(route) if len(held) < 2 else route.continue_())
    images = sorted((drawn / "test").rglob("*.jpg"))[:4]
    page.set_input_files("#files", [str(image) for image in images])
    sync_api.expect(page.locator("[data-state=sending]")).to_have_count(2)
    page.click("#clear")
    for route in held:
        with page.expect_response("**/predict"):
            route.continue_()
    page.click("#undo")
    sync_api.expect(page.locator("[data-state=predicted]")).to_have_count(4)


def test_the_server_is_gone_and_comes_back(visit, drawn):
    """Guards against one complaint per image, and against a page that has to be reloaded when the server is back."""
    images = sorted((drawn / "test").rglob("*.jpg"))[:3]
    page = visit()
    _choose(page, images[0])
    for path in ("predict", "model", "gradcam"):
        page.route(f"**/{path}", lambda route: route.abort("connectionrefused"))
    _choose(page, *images[1:])
    page.locator("[data-state=predicted] button.label").first.click()
    sentence = "The server does not respond; check that it is running (this page asks again every 5 s)."
    sync_api.expect(page.get_by_text("does not respond")).to_have_count(1)
    assert page.locator("#banner").text_content() == sentence
    assert page.locator("[data-state=failed]").count() == 2
    page.unroute_all()
    page.click("#retry")
    sync_api.expect(page.locator("[data-state=predicted]")).to_have_count(3)
    assert page.locator("#banner").is_hidden()
    # The server is there, and one connection breaks: that is the image's.
    page.route("**/predict", lambda route: route.abort("connectionreset"))
    _choose(page, images[1])
    assert page.locator(".card .sentence:visible").all_text_contents() == ["The connection was lost; retry."]
    assert page.locator("#banner").is_hidden()


def test_a_new_model_is_noticed(visit, drawn):
    """Guards against predictions of two models side by side that nobody can tell apart, and against old class names."""
    images = sorted((drawn / "test").rglob("*.jpg"))[:3]
    page = visit()
    _choose(page, *images[:2])
    _change(page, "model", digest="new", classes=["cat", "cow"])
    _change(page, "predict", digest="new")
    _choose(page, images[2])
    notice = "The server has loaded a new model; predictions of an earlier one are marked."
    assert page.locator("#notice").text_content() == notice
    assert page.locator("#classes li").all_text_contents() == ["cat", "cow"]
    assert page.locator(".card .sentence").all_text_contents() == ["", *["Classified by an earlier model."] * 2]
    # The server has heat maps of the new model only.
    assert [card.locator("button.label").count() for card in page.locator(".card").all()] == [3, 0, 0]
    page.locator(".retry:visible").first.click()
    sync_api.expect(page.locator(".earlier")).to_have_count(1)
    page.click("#retry") if page.locator("#retry").is_visible() else page.locator(".retry:visible").click()
    sync_api.expect(page.locator(".earlier")).to_have_count(0)
    _change(page, "model", digest="newer")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    sync_api.expect(page.locator(".earlier")).to_have_count(3)


def test_the_camera_is_offered_where_there_is_one(visit):
    """Guards against a button that opens nothing, and against one failure that is told as another."""
    devices = "navigator.mediaDevices.enumerateDevices = async () => "
    without = visit(before=lambda page: page.add_init_script(devices + "[{ kind: 'audioinput' }]"))
    assert without.locator("#choose").is_visible() and without.locator("#camera").is_hidden()
    http = "Object.defineProperty(navigator, 'mediaDevices', { value: undefined })"
    assert visit(before=lambda page: page.add_init_script(http)).locator("#camera").is_hidden()
    phone = visit(before=lambda page: page.add_init_script(http), has_touch=True, is_mobile=True)
    with phone.expect_file_chooser() as chooser:
        phone.click("#camera")
    assert chooser.value.element.get_attribute("id") == "capture"
    denied = visit()
    refuse = "() => { navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', '%s') } }"
    for error, words in (
        ("NotAllowedError", "not allowed"),
        ("NotFoundError", "No camera"),
        ("NotReadableError", "not start"),
    ):
        denied.evaluate(refuse % error)
        denied.click("#camera")
        sync_api.expect(denied.locator("#finder-why")).to_contain_text(words)
        assert denied.locator("#shoot").is_hidden()
        with denied.expect_file_chooser():
            denied.click("#system-camera")


def test_the_dots_of_a_sent_image_stay_in_line(visit, drawn):
    """Guards against dots that stand above each other, and against a threshold marked on every bar."""
    page, held = visit(viewport={"width": 320, "height": 640}), []
    sync_api.expect(page.locator("#classes li")).to_have_count(3)
    page.route("**/predict", lambda route: held.append(route))
    page.set_input_files("#files", str(next((drawn / "test" / "dog").iterdir())))
    waiting = page.locator("[data-state=sending] .prediction b")
    lines = "element => element.getBoundingClientRect().height / parseFloat(getComputedStyle(element).lineHeight)"
    assert waiting.evaluate(lines) == pytest.approx(1, abs=0.1)
    page.evaluate("document.body.classList.add('has-threshold')")
    held[0].continue_()
    sync_api.expect(page.locator("[data-state=predicted]")).to_have_count(1)
    page.evaluate("document.body.classList.add('has-threshold')")
    ticks = "tracks => tracks.map((track) => getComputedStyle(track, '::after').content !== 'none')"
    assert page.locator(".card .track").evaluate_all(ticks) == [True, False, False]


def test_forced_colours(visit, drawn):
    """Guards against bars and chosen views that vanish where the system sets all colours."""
    page = visit(forced_colors="active")
    _choose(page, next((drawn / "test" / "dog").iterdir()))
    colour = "(element, part) => getComputedStyle(element, part).backgroundColor"
    paper = page.locator(".card").evaluate(colour)
    assert paper not in {page.locator(".track i").nth(bar).evaluate(colour) for bar in (0, 1)}
    chosen, other = (page.locator(".views span").nth(view).evaluate(colour) for view in (0, 1))
    assert chosen != other
    page.locator("#clear").focus()
    page.keyboard.press("Tab")
    assert page.locator(".card").evaluate("card => getComputedStyle(card).outlineStyle") == "solid"


def _states(page, images: list[Path]) -> Iterator[str]:
    """Leads a page of 1,000 classes through its states; yields after each."""
    yield "empty"
    page.click("#explain summary")
    page.route("**/predict", lambda route: None)
    page.set_input_files("#files", str(images[0]))
    sync_api.expect(page.locator("[data-state=sending]")).to_have_count(1)
    yield "waiting"
    page.unroute("**/predict")
    page.click("#clear")
    yield "removed"
    top = [{"class": name, "probability": 0.9 - 0.2 * index} for index, name in enumerate(LONG_NAMES)]
    accepted = {"class": top[0]["class"], "probability": 0.9, "none_of_these": False, "top": top}
    _change(page, "predict", results=[accepted])
    _choose(page, images[0])
    yield "predicted"
    page.click(".wrong")
    page.keyboard.type("class 01")
    yield "relabelling"
    page.click("#all-classes")
    yield "1,000 classes"
    page.click("#all-classes")
    _change(page, "predict", results=[accepted | {"class": None, "none_of_these": True}])
    _choose(page, images[0])
    yield "rejected"
    _change(page, "predict", digest="new", results=[accepted])
    _change(page, "model", digest="new", classes=MANY)
    _choose(page, images[1])
    yield "new model"
    for path in ("predict", "model"):
        page.unroute(f"**/{path}")
        page.route(f"**/{path}", lambda route: route.abort())
    _choose(page, images[0])
    yield "server gone"
    for name in ("token", "finder"):
        page.evaluate("name => document.getElementById(name).showModal()", name)
        yield name
        page.evaluate("name => document.getElementById(name).close()", name)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
def test_access(visit, drawn, locale, scheme):
    """Guards against text without contrast, controls without a name, and sideways scrolling, in every state."""
    page = visit(
        before=lambda page: _change(page, "model", classes=MANY),
        locale=locale,
        color_scheme=scheme,
        reduced_motion="reduce",
    )
    sync_api.expect(page.locator("#classes li")).to_have_count(40)
    if AXE:
        page.evaluate(Path(AXE).read_text("utf-8"))
    for state in _states(page, sorted((drawn / "test").rglob("*.jpg"))):
        for width in (1280, 390, 320):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate(AUDIT.read_text("utf-8")) == [], (state, width)
            if AXE:
                violations = page.evaluate("axe.run()")["violations"]
                assert [(found["id"], found["nodes"][0]["html"]) for found in violations] == [], (state, width)
