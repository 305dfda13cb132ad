"""inference.yml: what is missing, torn, changed or unknown in an exported folder is refused in one line."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import paddle
import pytest
import yaml

from imaging.transforms import EvalTransform
from inference import description
from inference.predictor import ExportedModel
from inference.reference import Reference
from system.errors import UserError
from system.files import file_digest


def _load(folder: Path, engine: str = "plain") -> ExportedModel:
    return ExportedModel(folder, engine=engine)


def _edit(copy: Path, change) -> None:
    content = yaml.safe_load((copy / "inference.yml").read_text(encoding="utf-8"))
    change(content)
    (copy / "inference.yml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["PostProcess"]["Topk"]["label_list"].reverse(),
        lambda content: content["PostProcess"]["Topk"]["label_list"].append("more"),
        lambda content: content["PreProcess"]["transform_ops"][0]["ResizeImage"].update(resize_short=41),
        lambda content: content["PreProcess"]["transform_ops"][2]["NormalizeImage"].update(mean=[0.5] * 3),
        lambda content: content["Calibration"].update(threshold=0.9),
    ],
    ids=["class order", "class count", "resize", "mean", "threshold"],
)
def test_a_change_after_the_export_is_refused(copy, change):
    """Guards against serving images or names otherwise than they were verified."""
    _edit(copy, change)
    with pytest.raises(UserError, match=r"inference\.yml.*export the run again"):
        _load(copy)


@pytest.mark.parametrize(
    "transform, is_read",
    [
        (EvalTransform(20, 20, None), True),
        (EvalTransform(20, 20, (20, 20)), True),
        (EvalTransform(20, 20, (24, 24)), True),
        (EvalTransform(20, 31, (20, 31)), False),
        (EvalTransform(20, 31, None, fill=(0, 116, 255)), False),
    ],
)
def test_each_preprocessing_is_read_as_it_was_written(transform, is_read):
    """Guards against an export that resizes otherwise than the run, and an answer of PaddleX that cannot be right."""
    reference = Reference(None, 1.0, None, transform, ["a", "b"])
    content = description.compose(reference, 5) | {"Versions": {"paddle": ""}, "Digests": {}}
    assert description._parse(content, Path("inference.yml")).transform == transform
    arguments = set(content["PreProcess"]["transform_ops"][0]["ResizeImage"])
    content.pop("ColorProfile")
    with pytest.raises(KeyError):
        description._parse(content, Path("inference.yml"))
    # Those of ResizeImage in paddlex/inference/models/image_classification/predictor.py (3.7.2).
    known = {"resize_short", "size", "backend", "interpolation"}
    assert (arguments <= known) == description.is_read_by_paddlex(transform) == is_read


def test_keys_in_another_order_mean_the_same(copy):
    """Guards against a file refused because an editor has sorted it."""
    before = _meaning(copy)
    content = yaml.safe_load((copy / "inference.yml").read_text("utf-8"))
    (copy / "inference.yml").write_text(yaml.safe_dump(content, sort_keys=True), encoding="utf-8")
    assert _meaning(copy) == before


def test_the_digests_stand_before_what_they_seal(exported):
    """Guards against a file that means something else where it was cut off, and whose seal was cut off with it."""
    assert list(yaml.safe_load((exported / "inference.yml").read_text("utf-8")))[:2] == ["Versions", "Digests"]


def _meaning(folder: Path):
    described = description.read(folder)
    return described.class_names, described.transform, described.temperature, described.threshold


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content.pop("Calibration"), "Calibration is missing"),
        (lambda content: content["Calibration"].pop("threshold"), "threshold is missing"),
        (lambda content: content.pop("Digests"), "Digests is missing"),
        (lambda content: content["Digests"].pop("inference.pdiparams"), r"digest of inference\.pdiparams is missing"),
        (lambda content: content["Digests"].pop("description"), "digest of description is missing"),
        (lambda content: content["Versions"].pop("paddle"), "paddle is missing"),
        (lambda content: content["PreProcess"]["transform_ops"].pop(2), "NormalizeImage is missing"),
        (lambda content: content["Versions"].update(format=6), r"format 6 is unknown \(1 to 5 are read\)"),
        (lambda content: content.pop("OptionalEngines"), "OptionalEngines is missing"),
        (lambda content: content["Versions"].update(format=True), "format True is unknown"),
    ],
)
def test_a_missing_key_or_an_unknown_format_is_refused(copy, change, words):
    """Guards against defaults that stand in for what the present format always says, and guesses at later ones."""
    _edit(copy, change)
    with pytest.raises(UserError, match=rf"inference\.yml: .*{words}.*; ") as refusal:
        description.read(copy)
    assert "\n" not in str(refusal.value)


def test_what_format_1_lacks_has_its_old_meaning(copy):
    """Guards against exports of earlier releases and of other tools that are refused, or calibrated by themselves."""

    def change(content):
        for key in ("Versions", "Digests", "Calibration", "Engines", "ColorProfile"):
            del content[key]
        del content["PreProcess"]["transform_ops"][2]

    class_names, transform, *_ = _meaning(copy)
    _edit(copy, change)
    assert _meaning(copy) == (class_names, replace(transform, color_profile="ignore"), 1.0, None)


def test_format_2_knew_no_color_profiles(copy):
    """Guards against exports of the release before that see other colours, or are refused."""

    def change(content):
        del content["ColorProfile"]
        content["Versions"]["format"] = 2
        content["Digests"]["description"] = description._own_digest(content)

    class_names, transform, *rest = _meaning(copy)
    _edit(copy, change)
    assert _meaning(copy) == (class_names, replace(transform, color_profile="ignore"), *rest)


def test_a_file_cut_off_anywhere_is_refused_or_means_the_same(copy):
    """Guards against half an inference.yml that is good YAML and lacks threshold, digests or last classes."""
    data, whole = (copy / "inference.yml").read_bytes(), _meaning(copy)
    refused = 0
    for end in range(0, len(data), 23):
        (copy / "inference.yml").write_bytes(data[:end])
        try:
            assert _meaning(copy) == whole, data[:end][-60:]
        except UserError as error:
            refused += str(error).startswith(f"{copy / 'inference.yml'}: ")
    assert refused > 20


def test_any_other_value_is_refused_in_one_line_or_means_the_same(copy):
    """Guards against a traceback where inference.yml was edited."""
    whole = _meaning(copy)
    content = yaml.safe_load((copy / "inference.yml").read_text(encoding="utf-8"))

    def groups(node):
        yield node
        for child in node.values() if isinstance(node, dict) else node:
            if isinstance(child, (dict, list)):
                yield from groups(child)

    for group in groups(content):
        for key in list(group) if isinstance(group, dict) else range(len(group)):
            before = group[key]
            for value in (None, [], {"x": 1}, "x", -1):
                group[key] = value
                (copy / "inference.yml").write_text(json.dumps(content), encoding="utf-8")
                try:
                    assert _meaning(copy) == whole, (key, value)
                except UserError as error:
                    assert "\n" not in str(error)
            group[key] = before


@pytest.mark.parametrize("name", ["inference.json", "inference.pdmodel", "inference.pdiparams", "example.json"])
@pytest.mark.parametrize("fault", ["missing", "torn", "one bit"])
def test_a_damaged_file_is_named(copy, name, fault):
    """Guards against running a graph with the weights of another run, or half a file."""
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    if fault == "missing":
        (copy / name).unlink()
    else:
        (copy / name).write_bytes(data if fault == "one bit" else data[: len(data) // 2])
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        _load(copy)


def test_probabilities_unlike_the_exporters_are_refused(copy):
    """Guards against a machine whose kernels compute something else, when every file is as it was."""
    example = json.loads((copy / "example.json").read_text(encoding="utf-8"))
    example["pattern"]["probabilities"][0] += 0.01
    (copy / "example.json").write_text(json.dumps(example), encoding="utf-8")
    _edit(copy, lambda content: content["Digests"].update({"example.json": file_digest(copy / "example.json")}))
    with pytest.raises(UserError, match=r"own example differ by 0\.01 on this machine .*; use another engine"):
        _load(copy)


def test_another_number_of_classes_is_refused_without_digests(copy):
    """Guards against a label list of another length in a folder that has no digests."""

    def change(content):
        del content["Digests"], content["Versions"]["format"]
        content["PostProcess"]["Topk"]["label_list"].append("more")

    _edit(copy, change)
    (copy / "example.json").unlink()
    with pytest.raises(UserError, match=r"returns 3 classes, inference\.yml lists 4"):
        _load(copy)


def test_the_old_graph_form_alone_is_accepted(copy, exported):
    """Guards against refusing a .pdmodel export, such as older releases of paddle wrote."""
    _edit(
        copy, lambda content: [content.pop(key) for key in ("Digests", "Versions", "Calibration", "Checks", "Engines")]
    )
    (copy / "inference.json").unlink()
    (copy / "example.json").unlink()
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 40, 24), dtype=np.uint8)
    assert np.allclose(_load(copy).predict(images), _load(exported).predict(images), atol=1e-5)


def test_another_release_of_paddle_is_named(copy, monkeypatch):
    """Guards against a crash, or an error without a remedy, where the file needs another release of paddle."""
    monkeypatch.setattr(paddle, "__version__", "2.6.2")
    with pytest.raises(UserError, match=r"paddle 2\.6\.2 is too old for this file"):
        _load(copy)
    monkeypatch.setattr(paddle, "__version__", "4.0.0")
    with pytest.raises(UserError, match=r"written by paddle 3.*this is 4\.0\.0"):
        _load(copy)
