"""Features of a list: those of the network, computed once, and never those of other images, weights or settings."""

import os

import numpy as np
import paddle
import pytest

from annotation.lists import read_split
from features import cache as feature_cache
from features import extraction
from features.backbone import without_head
from features.extraction import FeatureExtractor, of_samples
from models import factory
from system.errors import UserError


@pytest.fixture
def computed(data, settings_for, donor):
    """Computes the features of the test's own images; returns them and the extractor."""

    def build(split="train", **changes):
        chosen = {"pretrained": donor("shufflenet_v2_x0_25", 32), "network": "shufflenet_v2_x0_25", "batch_size": 4}
        settings = settings_for(
            "data", **chosen | {"image_shape": [3, 32, 32], "cache_dir": "kept", "cpu_speedups": False} | changes
        )
        samples, names = read_split(settings, split)
        extractor = FeatureExtractor(factory.build(settings, len(names))[0], settings, "cpu")
        return of_samples(extractor, samples, split), extractor, samples

    return build


def dynamic(extractor, samples):
    pixels = np.stack([extractor.transform.read(sample.file, 10**8) for sample in samples])
    with paddle.no_grad(), without_head(extractor.classifier, extractor.head):
        return extractor.classifier(paddle.to_tensor(pixels)).numpy()


@pytest.mark.parametrize("speedups", [True, False])
def test_features_are_those_of_the_network_in_the_order_of_the_list(computed, speedups):
    """Guards against features of another image, and a graph that computes something else."""
    found, extractor, samples = computed(cpu_speedups=speedups)
    expected = dynamic(extractor, samples)
    assert found.shape == expected.shape == (18, extractor.width) and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    assert np.linalg.matrix_rank(found - found.mean(axis=0)) > 5


def test_a_graph_that_errs_is_not_used(computed, monkeypatch):
    """Guards against wrong features from a library that computes wrongly on some processor."""
    monkeypatch.setattr(extraction.engines, "load", lambda *_: lambda images: np.ones((len(images), 512), np.float32))
    found, extractor, samples = computed(cpu_speedups=True)
    np.testing.assert_array_equal(found[:4], dynamic(extractor, samples[:4]))


def test_features_are_computed_once(computed, monkeypatch, capsys):
    """Guards against minutes of work that an earlier command has done, and against work that nobody announces."""
    first, _, _ = computed()
    assert "features: 18 train images x 512, 0.0 MB, in " in capsys.readouterr().out
    monkeypatch.setattr(FeatureExtractor, "__call__", lambda *_: pytest.fail("computed again"))
    again, _, _ = computed()
    np.testing.assert_array_equal(again, first)
    assert "from kept" in capsys.readouterr().out


def test_an_image_is_computed_once_for_all_lists(computed, monkeypatch):
    """Guards against a cross-validation that computes every image in every fold, and rows of another image."""
    expected = {split: computed(split, cache="none")[0] for split in ("train", "valid")}
    seen = []
    original = FeatureExtractor.__call__
    monkeypatch.setattr(
        FeatureExtractor, "__call__", lambda self, images: seen.append(len(images)) or original(self, images)
    )
    with extraction.remembering():
        for split in ("train", "valid", "train", "valid"):
            np.testing.assert_array_equal(computed(split, cache="none")[0], expected[split])
    assert sum(seen) == 18 + 12
    computed("train", cache="none")
    assert sum(seen) == 18 + 12 + 18


@pytest.mark.parametrize("change", ["image", "weights", "size", "normalisation", "split"])
def test_what_features_depend_on_makes_them_anew(computed, data, donor, change, tmp_path):
    """Guards against features of an image, or of weights, that have been replaced."""
    first, _, samples = computed()
    if change == "image":
        os.replace(samples[0].file.rename("kept.jpg"), samples[1].file)
        os.link(samples[1].file, samples[0].file)
    other = {
        "image": {},
        "weights": {"pretrained": False},
        "size": {"crop_fraction": 0.5},
        "normalisation": {"mean": [0.1, 0.2, 0.3]},
        "split": {"split": "valid"},
    }[change]
    found, extractor, samples = computed(**other)
    assert len(os.listdir("kept")) == 2
    assert found.shape != first.shape or (found != first).any()
    np.testing.assert_allclose(found, dynamic(extractor, samples), atol=1e-4 * np.abs(found).max())


@pytest.mark.parametrize("damage", ["cut", "one bit", "longer", "empty", "other type"])
def test_damaged_features_are_computed_again(computed, damage):
    """Guards against noise as features after a full disk or a killed copy."""
    first, _, _ = computed()
    (file,) = (entry.path for entry in os.scandir("kept"))
    with open(file, "rb") as handle:
        content = handle.read()
    changes = {
        "cut": content[: len(content) // 2],
        "one bit": content[:777] + bytes([content[777] ^ 16]) + content[778:],
        "longer": content + b"0000",
        "empty": b"",
        "other type": content.replace(b"<f4", b"<i4"),
    }
    with open(file, "wb") as handle:
        handle.write(changes[damage])
    again, _, _ = computed()
    np.testing.assert_array_equal(again, first)


def test_features_larger_than_a_quarter_of_the_memory_stay_on_the_disk(computed, monkeypatch):
    """Guards against a machine that swaps, and against other numbers where it does not."""
    first, _, _ = computed(cache="none")
    assert not os.path.exists("kept") and not isinstance(first, np.memmap)
    monkeypatch.setattr(feature_cache, "free_memory", lambda: 4 * first.nbytes - 1)
    for _ in range(2):
        large, _, _ = computed()
        assert isinstance(large, np.memmap) and not large.flags.writeable
        np.testing.assert_array_equal(large, first)
    monkeypatch.setattr(feature_cache, "free_memory", lambda: 4 * first.nbytes)
    assert not isinstance(computed()[0], np.memmap)


def test_a_cache_that_cannot_be_written_is_said(computed, capsys):
    """Guards against a training refused for want of a cache that nobody asked for, and one asked for left out."""
    with open("kept", "w"):
        pass
    found, _, _ = computed()
    assert len(found) == 18 and "features: not kept, kept cannot be written to" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"kept.*cannot be written .*use cache=none"):
        computed(cache="disk")
    assert len(computed(cache="ram")[0]) == 18


def test_a_broken_image_raises_its_own_error(computed, data):
    """Guards against features of an image that nobody can see, and half a cache."""
    next((data / "train").rglob("*.jpg")).write_bytes(b"no image")
    with pytest.raises(UserError, match="no image format"):
        computed()
    assert not os.path.exists("kept") or os.listdir("kept") == []


@pytest.mark.parametrize("cache", ["auto", "none"])
def test_logits_are_those_of_the_network_with_and_without_a_cache(computed, monkeypatch, cache):
    """Guards against an evaluation of other logits than the network's, and features computed twice."""
    _, extractor, samples = computed(cache=cache)
    pixels = np.stack([extractor.transform.read(sample.file, 10**8) for sample in samples])
    with paddle.no_grad():
        expected = extractor.classifier(paddle.to_tensor(pixels)).numpy()
    before, calls = len(os.listdir("kept")) if cache == "auto" else 0, []
    original = FeatureExtractor.__call__
    monkeypatch.setattr(FeatureExtractor, "__call__", lambda self, images: calls.append(1) or original(self, images))
    found = extraction.logits_of_samples(extractor, samples, "train")
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    assert bool(calls) == (cache == "none")
    # An evaluation keeps nothing.
    assert (len(os.listdir("kept")) if os.path.exists("kept") else 0) == before
