"""Image cache: the same bytes as from the files, and never those of another file, size or release."""

import os
import pickle

import numpy as np
import pytest
from PIL import Image

import config
from imaging import cache
from system.errors import UserError
from system.files import locked
from training.setup import make_loader


@pytest.fixture
def loader_of(data, settings_for):
    """Builds a loader over the test's own images, with its cache in use; returns the loader and the summary."""

    def build(split: str = "train", **changes):
        settings = settings_for(data, **{"cache_dir": "kept", "cache": "none"} | changes)
        loader = make_loader(settings, split, (data / "labels.txt").read_text().split(), "cpu")
        return loader, loader.dataset.use_cache(settings, split)

    return build


def pixels(loader) -> np.ndarray:
    return np.concatenate([images for images, _ in loader])


@pytest.mark.parametrize("kind", ["ram", "disk", "auto"])
@pytest.mark.parametrize("split", ["train", "valid"])
@pytest.mark.parametrize("resize", ["crop", "pad"])
def test_a_cache_changes_no_pixel(loader_of, kind, split, resize):
    """Guards against a training whose results depend on whether there is a cache."""
    plain, _ = loader_of(split, resize=resize)
    cached, _ = loader_of(split, cache=kind, resize=resize)
    assert cached.dataset.cached is not None
    for epoch in (1, 2):
        plain.epoch = cached.epoch = epoch
        np.testing.assert_array_equal(pixels(plain), pixels(cached))


def test_flips_of_batches_are_those_of_single_images(loader_of, plain):
    """Guards against a fast path that draws other random numbers than the slow one."""
    changes = {"augment": plain | {"horizontal_flip": 0.7, "vertical_flip": 0.3}, "image_shape": [3, 40, 48]}
    slow, _ = loader_of(**changes)
    fast, _ = loader_of(cache="ram", **changes)
    assert fast.dataset.transform.only_flips
    assert fast.dataset.cached.has_size(40, 48)
    np.testing.assert_array_equal(pixels(slow), pixels(fast))


def test_training_images_are_cached_reduced(loader_of):
    """Guards against a cache of full-size photos, which fills the memory, and of images too small to crop from."""
    cached, _ = loader_of(cache="ram", image_shape=[3, 16, 16])
    assert cached.dataset.cached[0].shape == (20, 24, 3)
    cached, _ = loader_of("valid", cache="ram", image_shape=[3, 16, 16])
    assert cached.dataset.cached[0].shape == (16, 16, 3)
    cached, _ = loader_of(cache="ram", image_shape=[3, 16, 16], resize="pad")
    assert cached.dataset.cached[0].shape == (20, 20, 3)


@pytest.mark.effect("cache_dir")
def test_a_changed_image_is_read_again(loader_of, data, capsys):
    """Guards against training on a stale cache, and against minutes of work without a word."""
    loader_of(cache="disk")
    assert capsys.readouterr().out == "cache: 18 train images, about 0 MB in kept\n"
    before = set(os.listdir("kept"))
    _, summary = loader_of(cache="disk")
    assert "is up to date" in capsys.readouterr().out
    assert summary == "cache: train images are read from kept"
    loader_of(cache="disk", cache_dir="new/below/it")
    assert len(os.listdir("new/below/it")) == 1
    assert set(os.listdir("kept")) == before
    changed = next((data / "train").rglob("*.jpg"))
    Image.new("RGB", (48, 40), "red").save(changed)
    fresh, _ = loader_of(cache="disk")
    uncached, _ = loader_of()
    np.testing.assert_array_equal(pixels(fresh), pixels(uncached))
    loader_of(cache="disk", image_shape=[3, 16, 16])
    assert len(os.listdir("kept")) == 3


@pytest.mark.parametrize(
    "damage", ["cut", "cut rows", "changed table", "empty", "other layout", "blank", "one bit", "swapped"]
)
def test_a_damaged_cache_is_built_again(loader_of, damage):
    """Guards against noise as training images after a full disk or a killed copy."""
    first, _ = loader_of(cache="disk")
    expected = pixels(first)
    (file,) = (entry.path for entry in os.scandir("kept"))
    with open(file, "rb") as handle:
        content = bytearray(handle.read())
    changes = {
        "cut": content[: len(content) // 2],
        "cut rows": content[100:],
        "changed table": content[:-40] + bytes([content[-40] ^ 1]) + content[-39:],
        "empty": b"",
        "blank": bytes(len(content) // 2) + content[len(content) // 2 :],
        "one bit": content[:777] + bytes([content[777] ^ 16]) + content[778:],
        "swapped": content[5760:11520] + content[:5760] + content[11520:],
        "other layout": content[:-24] + b"\x09" + content[-23:],
    }
    os.unlink(file)
    with open(file, "wb") as handle:
        handle.write(changes[damage])
    again, _ = loader_of(cache="disk")
    np.testing.assert_array_equal(pixels(again), expected)
    with open(file, "rb") as handle:
        assert handle.read() == content


@pytest.mark.effect("cache")
def test_a_cache_without_room_is_refused_or_reported(loader_of, monkeypatch):
    """Guards against a machine that swaps for hours, and against a cache that is left out without a message."""
    monkeypatch.setattr(cache, "free_memory", lambda: 1000)
    with pytest.raises(UserError, match=r"cache=ram: .* use cache=disk or none"):
        loader_of(cache="ram")
    loader, summary = loader_of(cache="auto")
    assert loader.dataset.cached is None
    assert "too many" in summary
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10}))
    with pytest.raises(UserError, match=r"cache_dir=kept: .* use cache=none"):
        loader_of(cache="disk")


def test_the_size_is_estimated(loader_of):
    """Guards against an estimate that ignores that images are reduced."""
    loader, _ = loader_of(cache="ram", image_shape=[3, 16, 16])
    dataset = loader.dataset
    files = [sample.file for sample in dataset.samples]
    assert cache.estimate(files, dataset.transform.cached_size) == dataset.cached.size


def test_a_failed_build_leaves_no_file(loader_of, data):
    """Guards against a partial cache that passes for a complete one."""
    (next((data / "train").rglob("*.jpg"))).write_bytes(b"no image")
    with pytest.raises(UserError, match="no image format"):
        loader_of(cache="disk")
    assert os.listdir("kept") == []
    assert config.load().cache == "auto"


def test_a_file_that_is_cut_while_it_is_used_ends_in_a_line(loader_of):
    """Guards against a bus error, which ends the training without a word."""
    loader, _ = loader_of(cache="disk")
    pixels(loader)
    os.truncate(loader.dataset.cached.file, 5000)
    with pytest.raises(UserError, match=r"\.pixels: was cut short while it was in use"):
        pixels(loader)


def test_bytes_replaced_at_equal_size_and_time_are_read_again(loader_of, data):
    """Guards against a cache of the image before, where a tool kept size and time of the file."""
    file = next((data / "train").rglob("*.jpg"))
    status = file.stat()
    loader_of(cache="disk")
    content = bytearray(file.read_bytes())
    content[-40] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    loader_of(cache="disk")
    assert len(os.listdir("kept")) == 2


def test_what_a_killed_build_left_is_removed(loader_of):
    """Guards against gigabytes that no command ever removes, and against removing what another one is writing."""
    os.mkdir("kept")
    for name in (".train-1.pixels.123", ".train-2.pixels.124", ".notes"):
        with open(f"kept/{name}", "wb") as handle:
            handle.write(b"half")
    with locked("kept/.train-2.pixels.124"):
        loader_of(cache="disk")
    left = sorted(name for name in os.listdir("kept") if name.startswith("."))
    assert left == [".notes", ".train-2.pixels.124"]


@pytest.mark.parametrize("workers", [0, 2])
def test_worker_processes_read_the_same_file(loader_of, workers):
    """Guards against an open file that cannot be handed to a worker."""
    plain, _ = loader_of("valid")
    cached, _ = loader_of("valid", cache="disk", num_workers=workers)
    np.testing.assert_array_equal(pixels(plain), pixels(cached))
    copy = pickle.loads(pickle.dumps(cached.dataset.cached))
    np.testing.assert_array_equal(copy[3], cached.dataset.cached[3])


def test_the_estimate_of_many_files_is_from_images_spread_over_them(tmp_path):
    """Guards against an estimate that reads every file, or only those of the first class."""
    for name, side in (("small", 10), ("large", 30)):
        Image.new("RGB", (side, side)).save(tmp_path / f"{name}.png")
    files = [tmp_path / "small.png"] * 500 + [tmp_path / "large.png"] * 500
    asked = []

    def same(size):
        asked.append(size)
        return size

    assert cache.estimate(files, same) == 500 * 3 * (100 + 900)
    assert len(asked) == 200
    assert cache.estimate([*files[:3], tmp_path / "gone.png"], same) == 3 * 300
    assert cache.estimate([], same) == 0 and cache.estimate(files[-1:], same) == 3 * 900


def test_memory_that_is_unknown_counts_as_4_gb(monkeypatch):
    """Guards against no cache at all, or one without bounds, where there is no /proc/meminfo."""
    assert 1 << 20 < cache.free_memory() < 1 << 50
    monkeypatch.setattr(cache.Path, "read_text", lambda *_, **__: "MemTotal: 1 kB\nMemAvailable:  2048 kB\n")
    assert cache.free_memory() == 2 << 20
    monkeypatch.setattr(cache.Path, "read_text", lambda *_, **__: "")
    assert cache.free_memory() == 4 * 1024**3


def test_the_summary_tells_images_and_megabytes(loader_of, monkeypatch):
    """Guards against a size that is off by a thousand, and a quarter of the memory that is another share."""
    _, summary = loader_of(cache="ram")
    assert summary == "cache: 18 train images, about 0 MB in memory"
    monkeypatch.setattr(cache, "estimate", lambda *_: 300 << 20)
    monkeypatch.setattr(cache, "free_memory", lambda: 1200 << 20)
    assert loader_of(cache="auto")[1] == "cache: 18 train images, about 300 MB in memory"
    monkeypatch.setattr(cache, "free_memory", lambda: 1199 << 20)
    expected = "about 300 MB, too many for the 1199 MB that are free; reading files (or set cache=disk)"
    assert loader_of(cache="auto")[1] == f"cache: 18 train images, {expected}"
    monkeypatch.setattr(cache, "free_memory", lambda: 300 << 20)
    assert loader_of(cache="ram")[1].endswith("in memory")
    assert loader_of()[1] == "cache: none, train images are read from their files"
