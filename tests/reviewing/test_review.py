"""review.py over HTTP: its queues, who may use it, and decisions that are written whole, once, and on what was seen."""

import contextlib
import hashlib
import os
import resource
import shutil
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest
from review_process import CAT, DOG, OX, SUSPECTS, Page, ReviewProcess, write
from test_annotate import image, settings, table

import annotate
import review as review_command
from annotation import corrections
from annotation.corrections import Correction
from annotation.lists import read_split
from reviewing.rendering import Renderer
from system.files import file_digest

FIRST = f"test/{DOG}/1.jpg"  # the surest suspect


def queues(content: dict) -> dict[str, list[list[str]]]:
    found: dict[str, list[list[str]]] = {}
    for item in content["items"]:
        found.setdefault(item["queue"], []).append(item["images"])
    return found


def test_a_queue_of_each_kind(review):
    """Guards against a table that is not read, an order that is not that of certainty, and rows left out unsaid."""
    server = review("--reports", "reports.tsv")
    page = Page(server.client())
    assert queues(page.content) == {
        "suspects": [[FIRST], [f"train/{CAT}/0.jpg"], [f"train/{DOG}/1.jpg"], [f"train/{OX}/2.jpg"]],
        "conflicts": [[f"train/{CAT}/ox too.jpg", f"train/{OX}/0.jpg"]],
        "leaks": [[f"train/{DOG}/0.jpg", f"valid/{DOG}/leak.jpg"]],
        "copies": [[f"train/{CAT}/small.jpg", f"train/{CAT}/large.jpg"]],
        "similar": [[f"train/{CAT}/2.jpg", f"valid/{DOG}/0.jpg"]],
        "unlike": [[f"test/{OX}/0.jpg"]],
        "rejects": [[f"train/{DOG}/grey %41.png"]],
        "reports": [[f"valid/{OX}/1.jpg"]],
    }
    suspect, report = page.content["items"][1], page.content["items"][-1]
    assert suspect["suggested"] == [DOG] and suspect["facts"]["suggested_probability"] == 0.98
    assert suspect["facts"]["sources"] == [["output/explore-photos", DOG, 0.98], ["output/run", OX, 0.6]]
    assert report["suggested"] == [CAT] and report["facts"]["reports"] == [["2026-11-27", "m", CAT, "=no ox"]]
    assert page.content["left_out"] == {"gone": 1, "relabelled": 1, "unmatched": 1, "agrees": 1}
    for words in (
        "suspected label errors: 4 of 4 left", "images that could be converted: 1 of 1 left",
        "left out: 1 whose image is in no list any more", "left out: 1 whose image has another label by now",
        "left out: 1 reported by users of an image that is in no list",
        "left out: output/other, for none of their images is listed",
    ):  # fmt: skip
        assert words in server.out
    assert server.end() == "decided: nothing; next: python annotate.py data_dir=photos"


def test_the_folders_that_are_read(review, place):
    """Guards against suspects of an old exploration, and a --from that is read beside what it was to replace."""
    shutil.copytree(place / "output/explore-photos", place / "output/explore-old")
    os.utime(place / "output/explore-old/suspects.tsv", (1, 1))
    for name in ("similar.tsv", "unlike.tsv"):
        os.utime(place / "output/explore-old" / name, (1, 1))
    content = Page(review().client()).content
    assert {folder for item in content["items"] for folder, *_ in item["facts"].get("sources", [])} == {
        "output/explore-photos", "output/run",
    }  # fmt: skip
    assert len(queues(Page(review("--from", "output/run").client()).content)["suspects"]) == 2


def test_decisions_reach_the_lists(review, place, decided):
    """Guards against decisions that are shown as made and never applied, and images that are asked for again."""
    server = review()
    page = Page(server.client())
    grey = f"train/{DOG}/grey %41.png"
    for path in (FIRST, f"train/{CAT}/0.jpg", grey, f"train/{DOG}/0.jpg"):
        assert page.look(path).status_code == 200
    assert page.decide("relabel", FIRST, class_name=CAT).status_code == 200
    assert page.decide("keep", f"train/{CAT}/0.jpg", grey).status_code == 200
    changes = page.decide("drop", f"train/{DOG}/0.jpg").json()
    assert changes["decisions"][f"train/{DOG}/0.jpg"] | {"when": ""} == {
        "action": "drop", "class": "", "who": "li", "when": "", "why": "",
    }  # fmt: skip
    assert [page.content["items"][int(number)]["queue"] for number in changes["done"]] == ["leaks"]
    assert server.end() == "decided: 1 relabelled, 1 dropped, 2 kept; next: python annotate.py data_dir=photos"
    (row,) = [row for row in table(place / "photos/corrections.tsv") if row["path"] == FIRST]
    assert (row["digest"], row["who"]) == (file_digest(place / "photos" / FIRST), "li")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        annotate.annotate(settings(Path("photos")))
        samples, names = read_split(settings(Path("photos")), "test")
        labels = {sample.path: names[sample.label] for sample in samples}
        train = {sample.path for sample in read_split(settings(Path("photos")), "train")[0]}
    assert labels[f"photos/{FIRST}"] == CAT
    assert f"photos/{grey}" in train and f"photos/train/{DOG}/0.jpg" not in train
    again = Page(review().client())
    assert [FIRST] not in queues(again.content)["suspects"]  # its label is another by now
    assert set(again.content["decisions"]) == set(decided())
    # "Its label is right" is about the label that it has now, not about that of the folder.
    again.look(FIRST)
    assert again.decide("keep", FIRST).status_code == 200
    assert decided()[FIRST] == ("relabel", CAT)


def test_a_file_that_has_changed_is_not_decided(review, place, decided):
    """Guards against a decision about other pixels than the person saw, and against one that only some images take."""
    page = Page(review().client())
    other = f"train/{CAT}/0.jpg"
    page.look(FIRST), page.look(other)
    before = page.look(other, 1280).content
    image(77).save(place / "photos" / other)
    refused = page.decide("keep", FIRST, other)
    assert (refused.status_code, refused.json()["error"], refused.json()["paths"]) == (409, "changed", [other])
    assert decided() == {}
    assert page.look(other, 1280).content != before
    assert page.decide("keep", FIRST, other).status_code == 200
    os.remove(place / "photos" / FIRST)
    assert page.look(FIRST).status_code == 422
    assert page.decide("drop", FIRST).json()["error"] == "changed"
    assert page.decide("drop", f"train/{DOG}/1.jpg").json()["error"] == "changed"  # never looked at


def test_a_broken_image_can_be_dropped(review, place, decided):
    """Guards against a queue that stops at a file which was broken after annotate.py had seen it."""
    whole = (place / "photos" / FIRST).read_bytes()
    (place / "photos" / FIRST).write_bytes(whole[: len(whole) // 2])
    page = Page(review().client())
    shown = page.look(FIRST)
    assert shown.status_code == 422 and "the image is broken" in shown.json()["detail"]
    assert page.decide("drop", FIRST).status_code == 200
    assert decided() == {FIRST: ("drop", "")}


def test_undo(review, decided):
    """Guards against an undo of one step only, of another tab's decision, or that loses what counted before."""
    client = review().client()
    page, other = Page(client, "one"), Page(client, "two")
    for path in (FIRST, f"train/{CAT}/0.jpg"):
        page.look(path), other.look(path)
    page.decide("relabel", FIRST, class_name=CAT)
    page.decide("keep", f"train/{CAT}/0.jpg")
    page.decide("drop", FIRST, f"train/{CAT}/0.jpg")
    assert decided() == {FIRST: ("drop", ""), f"train/{CAT}/0.jpg": ("drop", "")}
    assert other.undo().json()["undone"] == []
    assert page.undo().json()["undone"] == [FIRST, f"train/{CAT}/0.jpg"]
    assert decided() == {FIRST: ("relabel", CAT), f"train/{CAT}/0.jpg": ("keep", "")}
    page.undo()
    assert decided() == {FIRST: ("relabel", CAT)}
    other.version = page.version
    other.decide("drop", FIRST)
    assert page.undo().json()["error"] == "not_undone"
    assert decided() == {FIRST: ("drop", "")} and page.undo().json()["undone"] == []


def test_two_people(review, place, decided):
    """Guards against a decision that silently replaces what somebody else decided meanwhile."""
    one, two = Page(review().client()), Page(review().client())
    one.look(FIRST), two.look(FIRST)
    one.decide("keep", FIRST)
    refused = two.decide("drop", FIRST)
    assert (refused.status_code, refused.json()["error"]) == (409, "elsewhere")
    assert refused.json()["decisions"][FIRST]["action"] == "keep"
    assert two.decide("drop", FIRST).status_code == 200
    corrections.append(place / "photos", [Correction(f"train/{CAT}/0.jpg", "", "drop", who="wang")])
    seen = one.client.get("/changes", params={"version": one.version}).json()
    assert {path: row["action"] for path, row in seen["decisions"].items()} == {
        FIRST: "drop",
        f"train/{CAT}/0.jpg": "drop",
    }
    assert seen["done"] == {"0": True, "1": True}


def test_a_file_that_cannot_be_written(review, place):
    """Guards against decisions that are shown as made although the disk is full or the folder read-only."""
    server = review()
    page = Page(server.client())
    page.look(FIRST)
    _, most = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (10, most))
    refused = page.decide("keep", FIRST)
    assert (refused.status_code, refused.json()["error"], refused.json()["decisions"]) == (507, "unwritable", {})
    assert not (place / "photos/corrections.tsv").read_bytes()
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (most, most))
    assert page.decide("keep", FIRST).status_code == 200


def test_killed_at_any_moment(review, place, moments):
    """Guards against half a row, or a decision that was answered and is lost."""
    (place / "photos/corrections.tsv").touch()
    saved: set[str] = set()
    for _ in range(3):
        server = review()
        page = Page(server.client())
        end, paths = (
            time.monotonic() + moments.uniform(0.05, 0.4),
            [item["images"][0] for item in page.content["items"]],
        )
        threading.Timer(max(0, end - time.monotonic()), server.process.kill).start()
        with contextlib.suppress(httpx.HTTPError):
            while True:
                for path in dict.fromkeys(paths):
                    page.look(path)
                    if page.decide("keep", path).status_code == 200:
                        saved.add(path)
        server.process.wait(30)
        text = (place / "photos/corrections.tsv").read_bytes().decode()
        assert text.endswith("\n") or not text
        assert {line.count("\t") for line in text.splitlines()} <= {6}
        rows = corrections.read(place / "photos", Path("photos"), [CAT, DOG, OX])
        assert saved <= {row.path for row in rows}


def test_a_table_that_somebody_breaks(review, place):
    """Guards against decisions appended to a file that annotate.py then refuses, and a server that ends over it."""
    server = review()
    page = Page(server.client())
    page.look(FIRST)
    write(place / "photos/corrections.tsv", "path\tdigest\taction\tclass\na.jpg\t\tremove\t\n")
    refused = page.decide("keep", FIRST)
    assert refused.status_code == 503 and "line 2 has action 'remove'" in refused.json()["detail"]
    os.remove(place / "photos/corrections.tsv")
    assert page.decide("keep", FIRST).status_code == 200


def test_only_who_was_given_the_address_gets_in(review):
    """Guards against other users of the machine, and against an address that opens the page for ever."""
    server = review()
    stranger = httpx.Client(base_url=server.origin, headers={"Accept": "*/*"})
    for path in ("/", "/review", "/page.js", "/image?side=240&path=a", "/?token=wrong", "/?token=", "/nothing"):
        refused = stranger.get(path)
        assert (refused.status_code, refused.json()["error"]) == (403, "token"), path
        assert "set-cookie" not in refused.headers
    assert stranger.post("/decide", json={}).status_code == 403
    assert stranger.get("/review", headers={"Cookie": f"review-{server.port}=é".encode()}).status_code == 403
    address = server.address
    entered = httpx.get(address)
    cookie = entered.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert "default-src 'none'" in entered.headers["content-security-policy"]
    assert "unsafe" not in entered.headers["content-security-policy"]
    assert httpx.get(address).status_code == 403
    assert server.next_address("for another browser: ") != address
    assert httpx.get(server.address).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"}, {"Host": "127.0.0.1"}, {"Origin": "http://evil.example"}, {"Origin": "null"},
        {"Origin": "http://localhost:1"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
    ],
)  # fmt: skip
def test_pages_of_other_sites_get_nothing(shared, headers):
    """Guards against DNS rebinding, and against a page of another site that decides with the cookie of this browser."""
    for response in (
        shared.client.get("/review", headers=headers),
        shared.client.post("/undo", json={"version": 0, "page": "page"}, headers=headers),
    ):
        assert response.status_code == 403, response.text


def test_only_known_images_and_whole_requests(shared):
    """Guards against a server that shows any file of the disk, and against requests that end in a traceback."""
    for path in ("../reports.tsv", "/etc/passwd", "photos/labels.txt", "", f"train/{CAT}/1.jpg"):
        assert shared.look(path).status_code == 404, path
    assert shared.look(FIRST, 99).status_code == 404
    for body in (b"", b"[]", b"{", b"[" * 100_000, b'{"version": 0, "page": "p", "choices": [{"path": []}]}'):
        sent = shared.client.post("/decide", content=body, headers={"Content-Type": "application/json"})
        assert sent.status_code == 400, body[:20]
    form = shared.client.post("/decide", content=b'{"version": 0, "page": "p", "choices": []}')
    assert form.status_code == 400
    shared.look(FIRST)
    assert shared.decide("remove", FIRST).json()["error"] == "malformed"
    assert shared.decide("relabel", FIRST, class_name="dgo").json()["error"] == "malformed"
    assert shared.decide("keep", FIRST, class_name=CAT).json()["error"] == "malformed"


@pytest.fixture(scope="module")
def shared(original):
    """A page of a server over the read-only data set, for tests that decide nothing."""
    server = ReviewProcess(original, "data_dir=photos")
    yield Page(server.client())
    server.end()
    assert not (original / "photos/corrections.tsv").exists()


def test_what_cannot_begin(call, place, monkeypatch):
    """Guards against a page with nothing on it, and tables that are taken for others."""
    monkeypatch.chdir(place)
    data = ("data_dir=photos", "--no-browser")
    call(review_command, *data, "--from", "photos").refused("photos: none of suspects.tsv", "explore.py")
    call(review_command, *data, "--reports", "none.tsv").refused("none.tsv: no such file", "--relabel-file")
    call(review_command, *data, "--reports", "photos/labels.txt").refused("names no column time")
    write(place / "odd/suspects.tsv", SUSPECTS + f"photos/{FIRST}\ttest\t{DOG}\t{CAT}\tmuch\t0.9\n")
    call(review_command, *data, "--from", "odd").refused("line 2 has label_probability 'much'")
    write(place / "odd/suspects.tsv", SUSPECTS + "a.jpg\ttest\n")
    call(review_command, *data, "--from", "odd").refused("line 2 has 2 cells")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        call(review_command, *data, "--port", port).refused(f"127.0.0.1:{port}: cannot listen", "--port")
    assert call(review_command, *data, "--port", "70000").status == 2
    assert call(review_command, "photos").status == 2
    for name in ("rejects.tsv", "duplicates.tsv"):
        os.remove(place / "photos" / name)
    call(review_command, *data, "output_dir=none").refused("there is nothing to review", "explore.py", "--from")
    os.remove(place / "photos/train.txt"), os.remove(place / "photos/valid.txt"), os.remove(place / "photos/test.txt")
    call(review_command, *data).refused("photos: no image is listed", "annotate.py")


def test_lists_elsewhere(place, tmp_path):
    """Guards against paths that corrections cannot name: read-only data, another current folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        annotate.annotate(settings(Path("photos"), lists_dir="lists"))
    server = ReviewProcess(tmp_path, "data_dir=place/photos", "lists_dir=place/lists", "output_dir=place/output")
    page = Page(server.client())
    page.look(FIRST)
    assert page.decide("drop", FIRST).status_code == 200
    assert server.end().endswith(
        "next: python annotate.py data_dir=place/photos lists_dir=place/lists output_dir=place/output"
    )
    (row,) = corrections.read(place / "lists", place / "photos", [CAT, DOG, OX])
    assert row.path == FIRST


def test_memory_of_thumbnails_is_bounded(place):
    """Guards against a server that keeps every image that was scrolled past."""
    renderer, files = Renderer(10**6, True, kept_bytes=20_000), []
    for number in range(40):
        files.append(place / f"{number}.png")
        image(number, (300, 200)).save(files[-1])
        made = renderer.render(files[-1], 240)
        assert made.digest == hashlib.sha256(files[-1].read_bytes()).hexdigest() and made.media_type == "image/jpeg"
        assert renderer._size <= 20_000
    assert renderer._size == sum(len(kept.content) for kept in renderer._kept.values()) > 0
    kept = renderer.render(files[-1], 240)
    assert renderer.render(files[-1], 240) is kept
    image(0, (300, 200)).save(files[-1])
    assert renderer.render(files[-1], 240).digest == renderer.render(files[0], 240).digest
