"""INT8 (optional): the best 8-bit graph is kept if it keeps the accuracy, and never chosen by `auto`."""

import shutil

import numpy as np
import pytest
import yaml

from inference import engines, quantisation, quantisation_process, verification
from inference.predictor import ExportedModel
from inference.quantisation import INT8
from inference.verification import Tally, Verification
from system import processor
from system.errors import UserError


def test_it_is_verified_by_accuracy():
    """Guards against an 8-bit graph that loses more than half a point, or is refused for what it may change."""

    def verification_of(correct: int) -> Verification:
        tally = Tally(images=1000, largest_difference=0.2, worst_image="a.png", out_of_tolerance=9, correct=correct)
        return Verification("valid", Tally(images=1000, correct=900), {"int8": tally})

    verification_of(895).check()
    with pytest.raises(UserError, match=r"a\.png: engine int8 .*0\.60 points lost"):
        verification_of(894).check()


def test_the_closest_range_is_kept(tmp_path, monkeypatch):
    """Guards against keeping an 8-bit graph whose probabilities are further off than another's, or NaN."""
    differences = dict(zip(quantisation_process.RANGES, (np.nan, 0.1, 0.2), strict=True))

    def quantised(options, folder, target, images):
        target.mkdir()
        for name in ("int8.pdmodel", "int8.pdiparams"):
            (target / name).write_text(target.name)

    def loaded(folder, *_):
        return lambda images: np.full((len(images), 2), 0.5) + differences.get(folder.name, 0)

    monkeypatch.setattr(quantisation_process, "quantise_with", quantised)
    monkeypatch.setattr(engines, "load", loaded)
    quantisation_process.quantise_best(tmp_path, np.zeros((8, 3, 4, 4), np.uint8))
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == dict.fromkeys(
        ("int8.pdmodel", "int8.pdiparams"), "less_1e-5"
    )


def test_a_refusal_leaves_nothing(export_to, tmp_path, monkeypatch):
    """Guards against an export that stays when its 8-bit graph has lost too much."""

    def copied(folder, images):
        shutil.copy(folder / "inference.pdmodel", folder / "int8.pdmodel")
        shutil.copy(folder / "inference.pdiparams", folder / "int8.pdiparams")

    monkeypatch.setattr(quantisation, "quantise", copied)
    monkeypatch.setattr(verification, "MAX_POINTS_LOST", -1)
    with pytest.raises(UserError, match=r"engine int8 .* points lost, at most -1 are allowed.*export without --int8"):
        export_to(tmp_path / "infer", INT8)
    assert list((tmp_path / "infer").iterdir()) == []


def test_the_graph_runs(export_to, exported, tmp_path, monkeypatch):
    """Guards against an 8-bit graph that cannot be written or loaded, or that `auto` takes because it is fast."""
    monkeypatch.setattr(verification, "MAX_POINTS_LOST", 100)
    folder = export_to(tmp_path, INT8)
    assert (folder / "int8.pdiparams").stat().st_size < (folder / "inference.pdiparams").stat().st_size / 2
    checks = yaml.safe_load((folder / "inference.yml").read_text(encoding="utf-8"))["Checks"]
    assert 0 <= checks["engines"]["int8"]["accuracy"] <= 1 and 0 <= checks["accuracy"] <= 1
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 40, 24), dtype=np.uint8)
    model, exact = ExportedModel(folder, engine="int8"), ExportedModel(exported, engine="plain")
    assert np.allclose(model.predict(images), exact.predict(images), atol=0.1)
    assert (model.identity.split()[1], ExportedModel(folder).identity.split()[1]) == ("int8", "False")
    fastest = {"processor": processor.name(), "milliseconds": {"int8": 0.001, "onednn": 1.0, "plain": 2.0}}
    assert engines.choose(folder, "cpu", 1, (3, 40, 24), fastest)[0] == "onednn"
