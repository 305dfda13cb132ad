"""Networks of PaddleClas: each is a network like any other, and a missing wheel is one line."""

import importlib.util
import json

import numpy as np
import paddle
import pytest

import train
from inference import engines
from inference.predictor import ExportedModel
from models import networks, paddleclas
from models.checkpoint import Run
from system.errors import UserError

INSTALLED = importlib.util.find_spec("paddleclas") is not None
wheel = pytest.mark.skipif(not INSTALLED, reason=f"no paddleclas: {paddleclas.INSTALL}")
# One of each family that trains at these sizes on a CPU.
FAMILIES = {
    "PPLCNet_x0_25": 64, "PPLCNetV2_small": 64, "PPHGNetV2_B0": 64, "PPHGNet_tiny": 64, "ESNet_x0_25": 64,
    "EfficientNetB0_small": 64, "MobileNetV3_small_x0_35": 64, "MobileNetV4_conv_small": 64, "GhostNet_x0_5": 64,
    "ResNet18_vd": 64, "RepVGG_A0": 64, "RegNetX_200MF": 64, "DarkNet53": 64, "StarNet_S1": 64, "FasterNet_T0": 64,
    "MixNet_S": 224, "ReXNet_1_0": 64, "TinyNet_E": 64, "PVT_V2_B0": 64, "DeiT_tiny_patch16_224": 224,
    "SwinTransformer_tiny_patch4_window7_224": 224, "ConvNeXt_tiny": 64, "MobileViT_XXS": 256, "LeViT_128S": 224,
    "CLIP_vit_base_patch32_224": 224,
}  # fmt: skip


@pytest.fixture
def walk(drawn, arguments_for, command, tmp_path):
    """Returns a function: trains an epoch, evaluates, exports, and compares every engine with the run."""

    def run(name: str, side: int) -> None:
        common = {"network": f"ppcls.{name}", "image_shape": [3, side, side], "epochs": 1, "batch_size": 9}
        folders = {"output_dir": str(tmp_path), "export_dir": str(tmp_path / "infer")}
        # Each in a process of its own, as users have them: in one, paddle compiles hundreds of convolutions and errs.
        for line in (
            ["train.py", *arguments_for(drawn, **common, **folders)],
            ["evaluate.py", str(tmp_path / "short"), f"lists_dir={drawn}"],
            ["export.py", str(tmp_path / "short"), f"lists_dir={drawn}", f"export_dir={tmp_path / 'infer'}"],
        ):
            ended = command(*line, cwd=tmp_path)
            assert ended.status == 0, (line, ended.out, ended.err)
        trained = Run(tmp_path / "short")
        assert 0 <= json.loads((trained.path / "metrics.json").read_text())["accuracy"] <= 1
        images = np.random.default_rng(0).integers(0, 256, (3, 3, side, side), np.uint8)
        with paddle.no_grad():
            logits = trained.load_network()(paddle.to_tensor(images)) / trained.temperature
            expected = paddle.nn.functional.softmax(logits, axis=1).numpy()
        for engine in engines.available(tmp_path / "infer" / "short", "cpu"):
            found = ExportedModel(tmp_path / "infer" / "short", engine=engine).predict(images)
            np.testing.assert_allclose(found, expected, atol=1e-3, err_msg=engine)

    return run


@wheel
def test_one_is_trained_evaluated_exported_and_served(walk):
    """Guards against a network that some command does not know, and an export that is another network."""
    walk("PPLCNet_x0_25", 64)


@wheel
@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_one_of_each_family(name, walk):
    """Guards against a family whose outputs, names or layers some command cannot take."""
    walk(name, FAMILIES[name])


@wheel
def test_weights_of_paddleclas_load_by_their_names(drawn, settings_for, tmp_path):
    """Guards against names that a wrapper has changed, so that no published weights would fit."""
    network = networks.construct("ppcls.PPLCNet_x0_25", 1000, [3, 64, 64])
    assert "conv1.conv.weight" in network.state_dict()
    paddle.save(network.state_dict(), str(tmp_path / "published.pdparams"))
    settings = settings_for(
        drawn, network="ppcls.PPLCNet_x0_25", image_shape=[3, 64, 64], freeze=True, output_dir=str(tmp_path),
        pretrained=str(tmp_path / "published.pdparams"), cache="none",
    )  # fmt: skip
    trained = train.train(settings).load_network().network.state_dict()
    for key, value in network.state_dict().items():
        if value.shape == trained[key].shape:
            np.testing.assert_array_equal(trained[key].numpy(), value.numpy(), err_msg=key)


@wheel
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ppcls.PPLCNet_x9", "there is no such network"),
        ("ppcls.get_apis", "there is no such network"),
        ("ppcls.AdaFace_IR_18", "cannot be built for a number of classes"),
        ("ppcls.SE_HRNet_W64_C", "PaddleClas cannot build it"),
    ],
)
def test_what_cannot_be_had_is_one_line(name, words):
    """Guards against a traceback of somebody else's code."""
    with pytest.raises(UserError, match=f"network={name}: .*{words}"):
        networks.construct(name, 3, [3, 64, 64])


def test_a_missing_wheel_gets_the_line_that_installs_it(monkeypatch):
    """Guards against a ModuleNotFoundError for a package that nobody has heard of."""
    monkeypatch.setattr(paddleclas.importlib.util, "find_spec", lambda name: None)
    paddleclas._backbones.cache_clear()
    with pytest.raises(UserError, match=r"ppcls.*wheel is not installed; run `python -m pip install --no-deps"):
        networks.construct("ppcls.PPLCNet_x1_0", 3, [3, 64, 64])
    assert paddleclas.names() == []
