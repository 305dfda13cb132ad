"""Copies are found, listed, and kept in one split."""

import sqlite3

import imagehash
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from test_annotate import folder, image, listed, settings, table

import annotate
from annotation import hash_search, splits
from annotation.comparison import overlay_difference
from annotation.hash_search import NEIGHBOURS, RADIUS, near_pairs
from annotation.lists import SPLITS
from annotation.store import TABLES, Store
from annotation.verdicts import verify
from system.errors import UserError


def detailed(number: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """An image with coarse shapes and fine detail, as photos have."""
    draw = np.random.default_rng(number)
    coarse = Image.fromarray(draw.integers(0, 256, (6, 8, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    fine = Image.fromarray(draw.integers(0, 256, (30, 40, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    return Image.blend(coarse, fine, 0.25)


EDITS = {
    "resized": lambda image: image.resize((80, 60)),
    "cropped": lambda image: image.crop((4, 3, 157, 117)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "duller": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
}


@pytest.fixture
def copied(tmp_path):
    """A data set with every kind of copy: the names of the files say which."""
    data = folder(tmp_path / "data", {f"{split}/{name}": 3 for split in SPLITS for name in ("ox", "dog")})
    for split in SPLITS:
        for number, name in enumerate(("ox", "dog")):
            detailed(number * 10 + SPLITS.index(split)).save(data / split / name / "own.png")
    image(777).save(data / "train/ox/bytes_a.jpg")
    image(777).save(data / "train/ox/bytes_b.jpg")
    for name in EDITS:
        detailed(sum(map(ord, name))).save(data / f"test/dog/{name}.png")
        EDITS[name](detailed(sum(map(ord, name)))).save(data / f"train/dog/{name}.jpg", quality=60)
    detailed(77).save(data / "train/ox/pixels.png")
    detailed(77).save(data / "valid/ox/pixels.bmp")
    detailed(78).save(data / "train/ox/conflict.png")
    detailed(78).save(data / "train/dog/conflict.png")
    return data


def test_every_kind_of_copy_is_found_and_nothing_else(copied):
    """Guards against a missed leak, and against different images reported as copies."""
    summary, _, _ = annotate.annotate(settings(copied))
    pairs = {
        tuple(sorted(row[k].removeprefix(f"{copied.as_posix()}/") for k in ("path", "copy_of"))): row
        for row in table(copied / "duplicates.tsv")
    }
    expected = {
        ("train/ox/bytes_a.jpg", "train/ox/bytes_b.jpg"): ("same_bytes", "no", "no"),
        ("train/ox/pixels.png", "valid/ox/pixels.bmp"): ("same_pixels", "yes", "no"),
        ("train/dog/conflict.png", "train/ox/conflict.png"): ("same_bytes", "no", "yes"),
    } | {(f"test/dog/{name}.png", f"train/dog/{name}.jpg"): ("near_copy", "yes", "no") for name in EDITS}
    found = {pair: (row["kind"], row["leak"], row["label_conflict"]) for pair, row in pairs.items()}
    assert found == expected
    assert summary.leaks == {"test in train": 4, "valid in train": 1} and summary.conflicts == 1


@pytest.mark.parametrize("duplicates", ["exact", "near"])
def test_a_jpeg_saved_anew_as_png_has_the_same_pixels(tmp_path, duplicates):
    """Guards against a copy missed because JPEGs are hashed from fewer pixels than other formats."""
    data = folder(tmp_path / "data", {f"{split}/ox": 2 for split in SPLITS})
    for number in range(6):
        name = data / f"train/ox/photo{number}.jpg"
        detailed(500 + number, (640, 420)).save(name, quality=90)
        Image.open(name).save(data / f"test/ox/photo{number}.png")
    Image.new("RGB", (200, 200), (90, 90, 90)).save(data / "train/ox/flat.jpg")
    Image.open(data / "train/ox/flat.jpg").save(data / "test/ox/flat.png")
    summary, _, _ = annotate.annotate(settings(data, duplicates=duplicates))
    assert summary.copies == {"same_pixels": 7}


@pytest.mark.effect("on_leak")
def test_drop_from_train_leaves_no_leak_and_error_leaves_the_lists(copied):
    """Guards against test metrics on images that were trained on."""
    annotate.annotate(settings(copied))
    before = listed(copied)
    with pytest.raises(UserError, match="4 test images have a copy in train"):
        annotate.annotate(settings(copied, on_leak="error"))
    assert listed(copied) == before
    summary, _, decoded = annotate.annotate(settings(copied, on_leak="drop_from_train"))
    assert decoded == 0 and summary.leaks == {} and summary.reason_total("leak") == 5
    assert listed(copied)["test"] == before["test"] and len(listed(copied)["train"]) == len(before["train"]) - 5


@pytest.mark.effect("duplicates")
def test_exact_and_none_find_less(copied):
    """Guards against a setting without effect."""
    assert set(annotate.annotate(settings(copied, duplicates="exact"))[0].copies) == {"same_bytes", "same_pixels"}
    assert annotate.annotate(settings(copied, duplicates="none"))[0].copies == {}


def test_hashes_equal_those_of_imagehash(tmp_path):
    """Guards against a hash that drifts away from the library's."""
    files = []
    for number in range(40):
        files.append(str(tmp_path / f"{number}.png").encode())
        image(number, (32, 32)).save(files[-1].decode())
    for file, verdict in zip(files, verify(files, 10_000), strict=True):
        bits = imagehash.phash(Image.open(file.decode())).hash.ravel()
        assert np.packbits(bits).tobytes() == verdict.phash.to_bytes(8, "big", signed=True)


@examples(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 300))
def test_the_search_finds_what_comparing_all_finds(seed, many):
    """Guards against near hashes that no band finds."""
    draw = np.random.default_rng(seed)
    centres = draw.integers(0, 2**63, max(1, many // 8), dtype=np.uint64)
    flips = np.bitwise_or.reduce(np.uint64(1) << draw.integers(0, 64, (6, many), dtype=np.uint64), axis=0)
    hashes = np.unique(centres[draw.integers(0, len(centres), many)] ^ flips)
    found = {tuple(pair) for pair in near_pairs(hashes, np.ones((len(hashes), 48), np.uint8))[:, :2].tolist()}
    found |= {tuple(pair) for pair in _with_miniatures(hashes)}
    distance = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    for later in range(len(hashes)):
        near = [(d, earlier) for earlier, d in enumerate(distance[later, :later].tolist()) if d <= 11]
        wanted = sorted(near)[:4]
        assert all((earlier, later) in found for _, earlier in wanted)
    assert all(distance[pair] <= RADIUS for pair in found)


def _with_miniatures(hashes):
    miniatures = np.tile(np.arange(48, dtype=np.uint8), (len(hashes), 1))
    return near_pairs(hashes, miniatures)[:, :2].tolist()


def test_crops_that_are_not_compared_could_not_match():
    """Guards against a bound that leaves out the best crop: against all 2 x 28 of them, resized one by one."""
    draw, found = np.random.default_rng(0), 0
    for size in ((32, 32), (32, 32), (90, 64), (64, 250), (7, 40), (300, 64)):
        first = Image.fromarray(draw.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
        crop = first.crop((size[0] // 12, 0, size[0], size[1] - size[1] // 15))
        noise = draw.normal(0, draw.choice([2, 10, 30]), (size[1], size[0], 3))
        noisy = Image.fromarray((np.asarray(first) * 0.5 + 60 + noise).clip(0, 255).astype(np.uint8))
        for second in (
            first,
            crop,
            noisy,
            first.rotate(8),
            first.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
            Image.new("RGB", size, "red"),
        ):
            expected = compared_one_by_one(first, second)
            assert overlay_difference(first, second) == pytest.approx(expected, abs=1e-9)
            limited = overlay_difference(first, second, 0.06)
            assert limited > 0.06 if expected > 0.06 else limited == pytest.approx(expected, abs=1e-9)
            found += expected <= 0.06
    assert 10 < found < 30


def compared_one_by_one(first: Image.Image, second: Image.Image) -> float:
    windows = [(0, 0, 1, 1)]
    windows += [(x * c, y * c, 1 - (1 - x) * c, 1 - (1 - y) * c)
                for c in (0.05, 0.1, 0.15) for x in (0, 0.5, 1) for y in (0, 0.5, 1)]  # fmt: skip
    best = -1.0
    for whole, other in ((first, second), (second, first)):
        for window in windows:
            box = tuple(at * side for at, side in zip(window, 2 * other.size, strict=True))
            views = [image.resize((32, 32), Image.Resampling.BILINEAR, box=part)
                     for image, part in ((whole, (0, 0, *whole.size)), (other, box))]  # fmt: skip
            one, two = (np.asarray(view, float) - np.asarray(view, float).mean(axis=(0, 1)) for view in views)
            best = max(best, (one * two).sum() / max(np.linalg.norm(one) * np.linalg.norm(two), 1e-9))
    return 1 - best


def test_two_skies_are_no_copies():
    """Guards against reporting small objects on the same background as copies."""
    skies = [Image.new("RGB", (64, 64), (90, 150, 220)) for _ in range(2)]
    skies[0].paste((40, 40, 40), (28, 30, 36, 34))
    skies[1].paste((40, 40, 40), (30, 24, 34, 38))
    assert overlay_difference(*skies) > 0.2


def synthetic(classes: dict[str, int], groups: list[tuple[str, int, int]], folder_name: str = "train") -> Store:
    """A store of images that were never on a disk; groups are (class, first, last) runs of copies."""
    store = Store(sqlite3.connect(":memory:"))
    store.connection.executescript(TABLES)
    for name, count in classes.items():
        for number in range(count):
            copies = next(
                (100 * k + 1 for k, (g, low, high) in enumerate(groups) if g == name and low <= number < high), None
            )
            store.sql(
                """INSERT INTO image(path, folder_split, class, split, outcome, copy_group)
                VALUES(?, ?, ?, 'train', '', ?)""",
                (f"{name}/{number}".encode(), folder_name, name, copies),
            )
    store.sql("UPDATE image SET unit = coalesce(copy_group, -id)")
    return store


def assignment(store: Store) -> dict[bytes, str]:
    return dict(store.sql("SELECT path, split FROM image").fetchall())


counts = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 60), min_size=1)


@examples(max_examples=60, deadline=None)
@given(counts, st.integers(0, 9), st.floats(0.01, 0.4), st.floats(0.01, 0.4))
def test_splits_are_exact_and_stay_when_images_come(classes, seed, valid, test):
    """Guards against lists that are reshuffled whenever the data grows, and against wrong split sizes."""
    fractions = {"valid": valid, "test": test}
    store = synthetic(classes, [])
    splits.decide_splits(store, fractions, seed)
    first = assignment(store)
    for name, count in classes.items():
        if count >= 3:
            mine = [split for path, split in first.items() if path.startswith(name.encode())]
            assert mine.count("valid") == max(1, round(valid * count)) and mine.count("test") >= 1
    store = synthetic(classes | {"z": 40}, [])
    splits.decide_splits(store, fractions, seed)
    assert {path: split for path, split in assignment(store).items() if not path.startswith(b"z")} == first
    grown = {name: count + (name == min(classes)) for name, count in classes.items()}
    store = synthetic(grown, [])
    splits.decide_splits(store, fractions, seed)
    second = assignment(store)
    moved = [path for path in first if first[path] != second[path]]
    assert len(moved) <= 3 and all(path.startswith(min(classes).encode()) for path in moved)


@examples(max_examples=40, deadline=None)
@given(st.integers(10, 80), st.integers(0, 9), st.integers(2, 9), st.integers(0, 40))
def test_copies_stay_in_one_split(count, seed, length, low):
    """Guards against an image in train whose copy is in test."""
    store = synthetic({"a": count, "b": 12}, [("a", low, low + length)])
    splits.decide_splits(store, {"valid": 0.2, "test": 0.2}, seed)
    found = store.sql("SELECT DISTINCT split FROM image WHERE copy_group IS NOT NULL").fetchall()
    assert len(found) <= 1
    assert splits.leaks(store) == {}


def test_the_search_reports_distances_and_keeps_the_nearest():
    """Guards against a wrong distance or order, a pair beyond the radius, and bursts whose pairs fill the memory."""
    miniatures = np.tile(np.arange(48, dtype=np.uint8), (30, 1))
    # Hash n has its lowest n bits set: it is |n - m| bits away from hash m.
    hashes = np.array([(1 << number) - 1 for number in range(30)], np.uint64)
    expected = {
        (earlier, later, later - earlier)
        for later in range(30)
        for earlier in range(max(0, later - min(RADIUS, NEIGHBOURS)), later)
    }
    assert {tuple(row) for row in near_pairs(hashes, miniatures).tolist()} == expected
    burst = np.array([0, *(1 << number for number in range(25))], np.uint64)
    found = near_pairs(burst, miniatures[:26])
    # Each is one bit from the first and two from the others; of those the earliest are kept.
    last = [(0, 25, 1), *((earlier, 25, 2) for earlier in range(1, NEIGHBOURS))]
    assert [tuple(row) for row in found.tolist() if row[1] == 25] == last
    same = near_pairs(np.zeros(4, np.uint64), miniatures[:4])
    assert same.tolist() == [[0, 1, 0], [1, 2, 0], [2, 3, 0]]


def test_a_search_in_chunks_finds_the_same(monkeypatch):
    """Guards against pairs lost where a chunk begins or ends, or where pairs are dropped between bands."""
    draw = np.random.default_rng(0)
    centres = draw.integers(0, 2**63, 9, dtype=np.uint64)
    flips = np.bitwise_or.reduce(np.uint64(1) << draw.integers(0, 64, (4, 120), dtype=np.uint64), axis=0)
    hashes, miniatures = centres[draw.integers(0, 9, 120)] ^ flips, np.tile(np.arange(48, dtype=np.uint8), (120, 1))
    whole = near_pairs(hashes, miniatures).tolist()
    assert len(whole) > 300
    for chunk, most in ((1, 1), (7, 50), (64, 10**6)):
        monkeypatch.setattr(hash_search, "CHUNK_PAIRS", chunk)
        monkeypatch.setattr(hash_search, "MAX_PAIRS", most)
        assert near_pairs(hashes, miniatures).tolist() == whole


def test_pairs_whose_miniatures_differ_are_no_candidates():
    """Guards against images of equal hash and other content, and against brightness that counts as content."""
    ramp = np.arange(48, dtype=np.float64)
    miniatures = np.stack([ramp, ramp * 2 + 30, ramp[::-1], np.full(48, 9.0), np.full(48, 200.0)]).astype(np.uint8)
    found = near_pairs(np.arange(5, dtype=np.uint64), miniatures)
    assert [tuple(row[:2]) for row in found.tolist()] == [(0, 1)]


@pytest.mark.parametrize(("count", "splits_of_it"), [(2, {"train"}), (3, {"train", "valid", "test"})])
def test_a_class_of_three_is_divided_and_one_of_two_is_not(count, splits_of_it):
    """Guards against a class without a training image, and a class that no split could judge."""
    store = synthetic({"a": count, "b": 20}, [])
    splits.decide_splits(store, {"valid": 0.1, "test": 0.1}, 1)
    assert {split for path, split in assignment(store).items() if path.startswith(b"a")} == splits_of_it
