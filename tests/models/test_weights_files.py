"""Weights files: Paddle's are read as Paddle reads them, and nothing in a stranger's file is ever run."""

import pickle
import shutil
from collections import OrderedDict

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.checkpoint import Run
from models.networks import construct
from models.weights_files import read_weights, write_safetensors
from system.errors import UserError

NAMES = ["posix.system", "builtins.eval", "builtins.exec", "builtins.getattr", "subprocess.Popen", "functools.partial",
         "numpy.load", "numpy.fromfile", "operator.attrgetter", "paddle.load", "os.remove"]  # fmt: skip

PLACES = ["bare", "value", "nested", "key", "after"]


class Call:
    """An object whose pickle calls a function when it is read."""

    def __init__(self, name: str, *arguments):
        self.name, self.arguments = name, arguments

    def __reduce__(self):
        module, _, name = self.name.rpartition(".")
        return getattr(__import__(module, fromlist=[name]), name), self.arguments


@pytest.fixture(scope="module")
def weights():
    """Weights of a small CNN for five classes."""
    return construct("cnn", 5, (3, 24, 24)).state_dict()


def test_files_that_hold_no_weights_are_refused(weights, tmp_path):
    """Guards against a traceback for the wrong file, and against pickles that hold something else."""
    paddle.save(weights, str(tmp_path / "good.pdparams"))
    assert read_weights(tmp_path / "good.pdparams").keys() == weights.keys()
    (tmp_path / "truncated.pdparams").write_bytes((tmp_path / "good.pdparams").read_bytes()[:1000])
    (tmp_path / "text.pdparams").write_text("no weights")
    (tmp_path / "empty.pdparams").touch()
    paddle.save([1, 2], str(tmp_path / "list.pdparams"))
    for name in ("truncated", "text", "empty", "list", "none"):
        with pytest.raises(UserError, match=f"{name}.pdparams"):
            read_weights(tmp_path / f"{name}.pdparams")


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_what_paddle_writes_is_read_as_paddle_reads_it(weights, tmp_path, protocol):
    """Guards against a reader that changes names, types or a bit of the state of a training."""
    optimizer = {"moment": paddle.ones([3]), "LR_Scheduler": {"last_epoch": 7, "last_lr": 0.25}, "steps": 12}
    scalars = OrderedDict(a=np.float32(0.5), b=np.arange(6).reshape(2, 3), c=paddle.zeros([2], "int64"))
    for number, content in enumerate((weights, optimizer, scalars)):
        file = tmp_path / f"{number}.pdparams"
        paddle.save(content, str(file), protocol=protocol)
        found, expected = read_weights(file), paddle.load(str(file))
        assert list(found) == list(expected)
        for key, value in expected.items():
            assert type(found[key]) is type(value)
            assert np.array_equal(np.asarray(found[key]), np.asarray(value))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(NAMES),
    st.integers(0, 5),
    st.sampled_from(["bare", "value", "nested", "key", "after"]),
    st.booleans(),
)
def test_nothing_in_a_file_is_run(tmp_path_factory, name, protocol, place, with_arrays):
    """Guards against a file from a stranger that runs a program, wherever in it the call stands."""
    folder = tmp_path_factory.mktemp("evil")
    file, trace = folder / "evil.pdparams", folder / "RAN"
    call = Call(name, f"touch {trace}")
    arrays = {"weight": np.ones(3, np.float32)} if with_arrays else {}
    content = {
        "bare": call,
        "value": {**arrays, "x": call},
        "nested": {**arrays, "x": [({"y": (call,)},)]},
        "key": {**arrays, (call,): 1},
        "after": [arrays, call],
    }[place]
    file.write_bytes(pickle.dumps(content, protocol))
    with pytest.raises(UserError, match=r"evil\.pdparams: holds .*, which is no part of weights"):
        read_weights(file)
    assert not trace.exists()


def test_codecs_are_no_way_out(tmp_path):
    """Guards against _codecs.encode, which protocol 2 needs for bytes, with a codec that does more than that."""
    file = tmp_path / "codec.pdparams"
    file.write_bytes(pickle.dumps({"x": Call("_codecs.encode", "aaaa", "rot13")}, 2))
    with pytest.raises(UserError, match="codec rot13"):
        read_weights(file)


@pytest.mark.parametrize("name", ["best.pdparams", "last.pdparams", "last.pdopt", "last.pdema"])
def test_every_file_of_a_run_is_read_with_care(trained, tmp_path, monkeypatch, name):
    """Guards against a file of a stranger's run that another reader opens."""
    run = Run(shutil.copytree(trained.path, tmp_path / "run"))
    (run.path / name).write_bytes(pickle.dumps({"x": Call("posix.system", f"touch {tmp_path / 'RAN'}")}))

    class Anything:
        def set_state_dict(self, state):
            """Takes any state."""

    with pytest.raises(UserError, match=rf"{name}: holds posix.system"):
        run.load_network() if name == "best.pdparams" else run.restore(run.load_network(), Anything(), Anything())
    assert not (tmp_path / "RAN").exists()


def test_safetensors_hold_the_same_weights(weights, tmp_path):
    """Guards against weights that change, or lose their names, on the way to another tool and back."""
    file = tmp_path / "model.safetensors"
    transposed = {**weights, "turned": paddle.arange(6).reshape([2, 3]).t(), "half": paddle.ones([2], "bfloat16")}
    write_safetensors(file, transposed, {"network": "cnn"})
    found = read_weights(file)
    assert found.keys() == transposed.keys()
    for name, weight in transposed.items():
        assert found[name].dtype == weight.dtype and found[name].shape == weight.shape
        assert (found[name].astype("float32") == weight.astype("float32")).all()


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"\x08\0\0\0\0\0\0\0{}      ", "cut", "pickle"])
def test_a_safetensors_file_that_is_none_is_refused(weights, tmp_path, content):
    """Guards against a traceback for half a download, and against a pickle under another name."""
    file = tmp_path / "model.safetensors"
    if content == "cut":
        write_safetensors(file, weights, {})
        content = file.read_bytes()[:-100]
    elif content == "pickle":
        content = pickle.dumps(Call("os.system", f"touch {tmp_path / 'ran'}"))
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors: (cannot be read as weights|this holds no weights)"):
        read_weights(file)
    assert not (tmp_path / "ran").exists()
