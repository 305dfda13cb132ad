"""bfloat16 on OpenVINO (optional): used where it was verified and the processor has it, and refused elsewhere."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

import evaluate
import export
import predict
from inference import description, engines, verification
from inference.openvino_bf16 import OPENVINO_BF16
from inference.predictor import ExportedModel
from system import machine, processor
from system.errors import UserError

NAME = OPENVINO_BF16.name


@pytest.fixture(scope="module")
def capable(bfloat16_cpu):
    """Skips a test where paddle has no OpenVINO; `bfloat16_cpu` does where the processor has no bfloat16."""
    if reason := OPENVINO_BF16.obstacle():
        pytest.skip(reason)


@pytest.fixture(scope="module")
def rounded(capable, made, tmp_path_factory):
    """The export of `made` with bfloat16; tests must not change it."""
    run, settings = made
    folder = tmp_path_factory.mktemp("bf16")
    with pytest.MonkeyPatch.context() as patch:
        # One of twelve images is more than half a point.
        patch.setattr(verification, "MAX_POINTS_LOST", 100)
        return export.export(run, settings.model_copy(update={"export_dir": str(folder)}), [OPENVINO_BF16])


def test_it_computes_in_bfloat16_and_auto_does_not_take_it(rounded):
    """Guards against a switch that paddle ignores, as it ignores float16, and `auto` that changes the numbers."""
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 40, 24), dtype=np.uint8)
    expected = ExportedModel(rounded, engine="openvino").predict(images)
    model = ExportedModel(rounded, engine=NAME)
    assert 1e-5 < np.abs(model.predict(images) - expected).max() < 0.05
    assert NAME not in engines.available(rounded, "cpu", only_exact=True)
    fastest = {"processor": processor.name(), "milliseconds": {NAME: 0.001, "onednn": 1.0, "plain": 2.0}}
    assert engines.choose(rounded, "cpu", 1, (3, 40, 24), fastest)[0] == "onednn"
    assert model.identity != ExportedModel(rounded, engine="openvino").identity


def test_the_gate_is_told_and_sealed(rounded, exported, tmp_path):
    """Guards against an export that nobody verified in bfloat16, and against permission that is written in by hand."""
    content = yaml.safe_load((rounded / "inference.yml").read_text("utf-8"))
    assert content["OptionalEngines"] == [NAME] and 0 <= content["Checks"]["engines"][NAME]["accuracy"] <= 1
    assert f"| {NAME} |" in (rounded / "MODEL_CARD.md").read_text("utf-8")
    with pytest.raises(UserError, match=rf"engine={NAME}: it was not verified .*export\.py RUN --bf16`$"):
        ExportedModel(exported, engine=NAME)
    forged = shutil.copytree(exported, tmp_path / "forged")
    content = yaml.safe_load((forged / "inference.yml").read_text("utf-8")) | {"OptionalEngines": [NAME]}
    (forged / "inference.yml").write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(UserError, match=r"were changed after the export"):
        ExportedModel(forged, engine=NAME)


def test_an_export_of_an_earlier_format_is_read_without_it(capable, copy):
    """Guards against exports of earlier releases that are refused, or run in bfloat16 that was never verified."""
    content = yaml.safe_load((copy / "inference.yml").read_text("utf-8"))
    del content["OptionalEngines"]
    content["Versions"]["format"] = 4
    content["Digests"]["description"] = description._own_digest(content)
    (copy / "inference.yml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    assert ExportedModel(copy, engine="plain").class_names
    with pytest.raises(UserError, match=rf"engine={NAME}: it was not verified"):
        ExportedModel(copy, engine=NAME)


def test_a_loss_of_accuracy_leaves_nothing(capable, export_to, tmp_path, monkeypatch):
    """Guards against an export that stays when bfloat16 has lost too much."""
    monkeypatch.setattr(verification, "MAX_POINTS_LOST", -1)
    with pytest.raises(UserError, match=rf"engine {NAME} .* points lost, .*export without --bf16"):
        export_to(tmp_path / "infer", OPENVINO_BF16)
    assert list((tmp_path / "infer").iterdir()) == []


CASES = {
    "processor": "no bfloat16 instructions",
    "limit": "ONEDNN_MAX_CPU_ISA=AVX2 limits",
    "paddle": "without OpenVINO",
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_where_it_cannot_be(case, exported, export_to, tmp_path, monkeypatch):
    """Guards against float32, silently, on a machine that cannot: OpenVINO takes it by itself."""
    flags = () if case == "processor" else (processor.BFLOAT16,)
    monkeypatch.setattr(processor, "instruction_sets", lambda: frozenset(flags))
    monkeypatch.setattr(machine, "has_openvino", lambda: case != "paddle")
    if case == "limit":
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    with pytest.raises(UserError, match=rf"engine={NAME}: .*{CASES[case]}.*; use engine=auto$"):
        ExportedModel(exported, engine=NAME)
    with pytest.raises(UserError, match=rf"^--bf16: .*{CASES[case]}.*; export without"):
        export_to(tmp_path / "infer", OPENVINO_BF16)
    assert not (tmp_path / "infer").exists()


def test_a_network_that_openvino_cannot_read_is_refused(exported, made, tmp_path):
    """Guards against an export that was asked for bfloat16 and says nothing of it."""
    with pytest.raises(UserError, match=r"^--bf16: .*; export without"):
        OPENVINO_BF16.write(tmp_path, made[1], None)


def test_the_commands_run_and_name_it(rounded, made, call, monkeypatch):
    """Guards against rounded probabilities that nobody is told of, and a report on another engine than the named."""

    def report(evaluated, *_):
        raise UserError(f"evaluated with {evaluated.engine}; nothing more is needed here")

    image, model = str(next(Path(made[1].data_dir, "test").rglob("*.png"))), str(rounded)
    ended = call(predict, image, "--model", model, f"engine={NAME}", "device=cpu")
    assert ended.status == 0 and f"engine {NAME} (probabilities differ" in ended.err, ended
    monkeypatch.setattr(evaluate, "evaluate", report)
    call(evaluate, "--model", model, f"engine={NAME}", "device=cpu").refused(f"evaluated with {NAME};")
    call(evaluate, "--model", model, "device=cpu").refused("evaluated with onednn;")
