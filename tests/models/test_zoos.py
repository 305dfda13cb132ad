"""Weights of other zoos: read without torch, renamed and transposed, every one of them used, and nothing run."""

import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import paddle
import pytest
import safetensors.paddle
from hypothesis import given, settings
from hypothesis import strategies as st
from test_golden import GOLDEN

from models import networks, torch_files, zoos
from models.networks import construct
from models.pretrained import load_strictly, read_for
from models.weights_files import read_arrays, write_safetensors
from system.errors import UserError

# Written by torch 2.14.1.
FILES = Path(__file__).parent / "files"


def check_content(found: dict[str, np.ndarray]) -> None:
    base = np.arange(24, dtype=np.float32)
    expected = {
        "conv.weight": base.reshape(2, 3, 2, 2),
        "view": base.reshape(4, 6)[1:3, ::2],
        "turned": base.reshape(4, 6).T,
        "half": np.array([0.5, -2.0, 65504.0], np.float16),
        "brain": np.array([1.0, -3.140625, 2.0**100], np.float32),
        "double": np.array(1.25),
        "num_batches_tracked": np.array(7),
        "parameter": np.ones(2, np.float32),
        "empty": np.zeros((0, 3), np.float32),
    }
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].dtype == value.dtype and found[key].shape == value.shape, key
        np.testing.assert_array_equal(found[key], value, err_msg=key)


@pytest.mark.parametrize("name", ["zip", "legacy", "checkpoint"])
def test_what_torch_saved_is_read(name):
    """Guards against numbers of another tensor, a view read as its whole storage, and wrapped weights not found."""
    found, is_torch = read_arrays(FILES / f"{name}.pth")
    assert is_torch
    check_content(found)


@pytest.mark.parametrize(("name", "words"), [("foreign.pth", "argparse.Namespace"), ("program.pt", "TorchScript")])
def test_what_is_no_weights_is_refused_by_name(name, words):
    """Guards against an import of what a stranger's file refers to."""
    with pytest.raises(UserError, match=rf"{name}: holds .*{words}.*; use another file"):
        read_arrays(FILES / name)


@pytest.mark.parametrize("form", ["zip", "legacy"])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_means_the_same_names(tmp_path_factory, form, data):
    """Guards against a crash, or memory read beyond the file, by a file that was cut or changed."""
    content = bytearray((FILES / f"{form}.pth").read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[place:]
    else:
        content[place] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.mktemp("damaged") / "a.pth"
    file.write_bytes(bytes(content))
    try:
        found = read_arrays(file)
    except UserError as error:
        assert str(error).startswith(str(file)) and "; " in str(error)
    else:
        assert found is None or all(isinstance(value, np.ndarray) for value in found[0].values())


def test_a_tensor_cannot_reach_beyond_its_storage():
    """Guards against a file whose strides show another program's memory."""
    for offset, size, stride in (
        (0, (5,), (1,)),
        (3, (2,), (1,)),
        (0, (2, 2), (4, 1)),
        (-1, (1,), (1,)),
        (2, (3,), (-1,)),
    ):
        storage = torch_files._Storage("<f4")
        storage.fill(np.arange(4, dtype="<f4").tobytes())
        with pytest.raises(ValueError, match="beyond its storage"):
            torch_files._Tensor(storage, offset, size, stride).array()


def test_an_archive_of_something_else_is_refused(tmp_path):
    """Guards against a traceback for any zip file, and against a pickle in one that calls a function."""
    file = tmp_path / "a.pth"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("notes.txt", "hello")
    with pytest.raises(UserError, match="an archive of something else"):
        read_arrays(file)

    class Call:
        def __reduce__(self):
            return print, ("run",)

    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({"weight": Call()}))
    with pytest.raises(UserError, match=r"builtins\.print"):
        read_arrays(file)


def test_names_are_those_that_gave_the_same_logits():
    """Guards against a rule that renames something else: these names are those of bench/zoos.py's equality."""
    rows = [line.split("\t") for line in (GOLDEN / "zoo-names.txt").read_text("utf-8").splitlines()]
    for network in dict.fromkeys(row[0] for row in rows):
        weights = {row[1]: None for row in rows if row[0] == network}
        for _, theirs, ours in (row for row in rows if row[0] == network):
            assert zoos._rename(theirs, network, weights) == ours
        own = construct(network, 7, [3, 96, 96]).state_dict()
        assert {row[2] for row in rows if row[0] == network} == {key for key in own if key.endswith(".weight")}


def as_torch(network: str, classes: int = 5, side: int = 48) -> dict[str, np.ndarray]:
    """Random weights of a network, named and turned as torch has them."""
    built = construct(network, classes, [3, side, side])
    dense = {f"{key}.weight" for key, layer in built.named_sublayers() if isinstance(layer, paddle.nn.Linear)}
    found = {}
    for key, value in built.state_dict().items():
        name = key.replace("._mean", ".running_mean").replace("._variance", ".running_var")
        found[name] = value.numpy().T if key in dense else value.numpy()
        if name.endswith("running_var"):
            found[name.replace("running_var", "num_batches_tracked")] = np.array(3)
    return found


@pytest.mark.parametrize("says_so", [True, False], ids=["format pt", "no format"])
@pytest.mark.parametrize("network", ["resnet18", "squares"])
def test_safetensors_of_torch_are_turned_and_ours_are_not(tmp_path, monkeypatch, network, says_so):
    """Guards against square dense layers, as VGG has them, that fit both ways round and are loaded the wrong way."""
    layers = paddle.nn
    monkeypatch.setitem(
        networks.NETWORKS,
        "squares",
        lambda classes, _: layers.Sequential(
            layers.Conv2D(3, 4, 3), layers.AdaptiveAvgPool2D(2), layers.Flatten(), layers.Linear(16, 16),
            layers.Linear(16, classes),
        ),
    )  # fmt: skip
    weights = as_torch(network)
    tensors = {key: paddle.to_tensor(np.ascontiguousarray(value)) for key, value in weights.items()}
    file = tmp_path / "model.safetensors"
    file.write_bytes(safetensors.paddle.save(tensors, {"format": "pt"} if says_so else None))
    own = construct(network, 5, [3, 48, 48])
    found, where = read_for(own, network, str(file))
    load_strictly(own, found, where, set())
    for key, value in own.state_dict().items():
        name = key.replace("._mean", ".running_mean").replace("._variance", ".running_var")
        expected = weights[name].T if value.ndim == 2 else weights[name]
        np.testing.assert_array_equal(value.numpy(), expected, err_msg=key)
    assert "dense layers transposed" in where
    write_safetensors(file, own.state_dict(), {"network": network})
    again = construct(network, 5, [3, 48, 48])
    load_strictly(again, *read_for(again, network, str(file)), set())
    for key, value in own.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[key].numpy(), value.numpy(), err_msg=key)


def test_sixteen_bits_become_thirty_two(tmp_path):
    """Guards against a file of bfloat16 that is refused, or read as something else."""
    weights = as_torch("resnet18")
    tensors = {key: paddle.to_tensor(np.ascontiguousarray(value)) for key, value in weights.items()}
    tensors = {key: value.astype("bfloat16") if "conv" in key else value for key, value in tensors.items()}
    file = tmp_path / "model.safetensors"
    file.write_bytes(safetensors.paddle.save(tensors, {"format": "pt"}))
    network = construct("resnet18", 5, [3, 48, 48])
    load_strictly(network, *read_for(network, "resnet18", str(file)), set())
    value = network.conv1.weight
    assert value.dtype == paddle.float32
    np.testing.assert_allclose(value.numpy(), weights["conv1.weight"], rtol=1e-2)


def test_weights_of_another_network_or_a_torn_file_are_one_line(tmp_path):
    """Guards against weights that are loaded in part, and a network trained from what is left."""
    weights = as_torch("resnet18")
    tensors = {key: paddle.to_tensor(np.ascontiguousarray(value)) for key, value in weights.items()}
    file = tmp_path / "model.safetensors"
    file.write_bytes(safetensors.paddle.save(tensors, {"format": "pt"}))
    for name in ("resnet34", "mobilenet_v2", "densenet121", "mobilenet_v3_small", "shufflenet_v2_x0_5"):
        network = construct(name, 5, [3, 64, 64])
        with pytest.raises(UserError, match="weights of another network"):
            load_strictly(network, *read_for(network, name, str(file)), set())
    with pytest.raises(UserError, match="squeezenet1_0 of torchvision and timm computes something else"):
        read_for(construct("squeezenet1_0", 5, [3, 64, 64]), "squeezenet1_0", str(file))
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(UserError, match="cannot be read as weights"):
        read_arrays(file)


def test_what_images_the_weights_want_is_said(tmp_path):
    """Guards against weights trained with other means, sizes or resizing, that are used in silence."""
    content = {"pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "input_size": [3, 288, 288], "crop_pct": 0.95,
                                  "interpolation": "bicubic"}}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(content))
    file = tmp_path / "model.safetensors"
    tensors = {key: paddle.to_tensor(np.ascontiguousarray(value)) for key, value in as_torch("resnet18").items()}
    file.write_bytes(safetensors.paddle.save(tensors, {"format": "pt"}))
    _, where = read_for(construct("resnet18", 5, [3, 48, 48]), "resnet18", str(file))
    assert (
        "they want mean=(0.5, 0.5, 0.5), image_shape=(3, 288, 288), crop_fraction=0.95, interpolation=bicubic" in where
    )
    (tmp_path / "config.json").write_text("[]")
    assert zoos.wanted_preprocessing(file, "resnet18") == {}
    assert zoos.wanted_preprocessing(file, "inception_v3")["mean"] == (0.5, 0.5, 0.5)


def test_content_decides_what_a_file_is(tmp_path):
    """Guards against a file of torch that is called .pdparams, or one of Paddle that is called .pth."""
    file = tmp_path / "a.pdparams"
    file.write_bytes((FILES / "legacy.pth").read_bytes())
    check_content(read_arrays(file)[0])
    buffer = io.BytesIO()
    paddle.save({"a": paddle.ones([2])}, buffer)
    (tmp_path / "b.pth").write_bytes(buffer.getvalue())
    assert read_arrays(tmp_path / "b.pth") is None
