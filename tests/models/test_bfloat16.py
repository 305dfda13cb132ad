"""bfloat16 on a CPU: right to its rounding where it is used, and refused or left alone elsewhere."""

import numpy as np
import paddle
import pytest
from paddle import nn

import config
import train
from models import acceleration, convolutions, onednn
from system import machine, processor
from training import setup

LAYERS = {
    "3x3": {"in_channels": 24, "out_channels": 16, "kernel_size": 3, "padding": 1},
    "3x3 stride 2": {"in_channels": 24, "out_channels": 16, "kernel_size": 3, "stride": 2, "padding": 1},
    "1x1": {"in_channels": 24, "out_channels": 40, "kernel_size": 1},
    "1x1 stride 2": {"in_channels": 24, "out_channels": 40, "kernel_size": 1, "stride": 2, "bias_attr": False},
    "7x7": {"in_channels": 24, "out_channels": 16, "kernel_size": 7, "stride": 2, "padding": 3},
    "odd": {"in_channels": 24, "out_channels": 17, "kernel_size": [3, 5], "padding": 1},
}


@pytest.fixture
def capable(monkeypatch):
    """A processor with bfloat16, as far as its flags say."""
    monkeypatch.setattr(processor, "instruction_sets", lambda: frozenset({processor.BFLOAT16}))


@pytest.fixture
def untested():
    """Forgets what the test of a small layer has found, before and after."""
    onednn.fault.cache_clear()
    yield
    onednn.fault.cache_clear()


def passes(layer: nn.Layer, images: np.ndarray, constant: bool = False) -> list[np.ndarray]:
    """Runs forward and backward: the output and the gradients, that of constant images left out."""
    inputs = paddle.to_tensor(images, stop_gradient=constant)
    outputs = layer(inputs)
    shares = np.random.default_rng(1).standard_normal(outputs.shape).astype("float32")
    wanted = [*([] if constant else [inputs]), *layer.parameters()]
    return [one.numpy() for one in (outputs, *paddle.grad((outputs * paddle.to_tensor(shares)).sum(), wanted))]


def gap(found: np.ndarray, expected: np.ndarray) -> float:
    """Root mean square of the difference, relative to that of the expected numbers."""
    return float(np.sqrt(((found - expected) ** 2).mean() / (expected**2).mean()))


@pytest.mark.parametrize("name", LAYERS)
def test_outputs_and_gradients_are_float32s_to_bfloat16s_rounding(name, bfloat16_cpu):
    """Guards against float32 bits read as bfloat16, and weights, batches or sides kept from the first call."""
    paddle.seed(0)
    layer = nn.Conv2D(**LAYERS[name])
    generator = np.random.default_rng(0)
    for count, side, constant in ((4, 20, False), (4, 20, False), (4, 20, True), (3, 9, False)):
        layer.weight.set_value(layer.weight * -1.3 + 0.01)
        images = generator.standard_normal((count, 24, side, side + 2)).astype("float32")
        expected = passes(layer, images, constant)
        with acceleration.speed_up(layer, convolutions.ALGORITHMS["bfloat16"]):
            found = passes(layer, images, constant)
        gaps = [gap(*pair) for pair in zip(found, expected, strict=True)]
        assert all(one < onednn.TOLERANCES["bfloat16"] for one in gaps), gaps
        # Rounded at all; the bias and its gradient are not.
        assert gaps[0] > 1e-4


def test_bfloat16_computes_what_it_speeds_up(bfloat16_cpu):
    """Guards against layers that get slower, and against validation and frozen layers that differ from evaluate's."""

    def is_rounded(layer: nn.Layer, count: int = 8, frozen: bool = False, grad: bool = True) -> bool:
        layer.weight.stop_gradient = frozen
        images = paddle.to_tensor(np.random.default_rng(0).standard_normal((count, 64, 28, 28)), "float32", None, False)
        with paddle.set_grad_enabled(grad), acceleration.speed_up(layer, convolutions.AlgorithmSelector(bfloat16=True)):
            found = layer(images)
        return gap(found.numpy(), layer(images).numpy()) > 1e-4

    wide = nn.Conv2D(64, 64, 3, padding=1)
    assert is_rounded(wide)
    assert not is_rounded(wide, count=1)
    assert not is_rounded(wide, frozen=True)
    assert not is_rounded(wide, grad=False)
    assert not is_rounded(nn.Conv2D(64, 64, 1), count=16)
    assert not is_rounded(nn.Conv2D(64, 64, 3, groups=2), count=16)


CASES = {
    "processor": ((), "no bfloat16 instructions"),
    "limit": ((), "DNNL_MAX_CPU_ISA"),
    "release": ((), "3.3.1"),
    "gpu": ((), "is for CPUs"),
    "plain": (("cpu_speedups=false",), "cpu_speedups=false"),
}


@pytest.mark.parametrize("case", CASES)
def test_bfloat16_is_refused_where_it_cannot_be(case, call, drawn, arguments_for, monkeypatch, capable, tmp_path):
    """Guards against a setting that does nothing, silently, and against oneDNN's way to refuse: the process ends."""
    if case == "processor":
        monkeypatch.setattr(processor, "instruction_sets", lambda: frozenset({"avx2", "avx512f"}))
    if case == "limit":
        monkeypatch.setenv("DNNL_MAX_CPU_ISA", "AVX2")
    if case == "release":
        monkeypatch.setattr(paddle, "__version__", "3.3.1")
    if case == "gpu":
        monkeypatch.setattr(machine, "select_device", lambda settings: "gpu:0")
    changes, words = CASES[case]
    call(train, *arguments_for(drawn, amp="bf16", output_dir=str(tmp_path)), *changes).refused("amp=bf16", words)
    assert not list(tmp_path.iterdir())


def refuse(shape, stride, padding, groups, dtype, both):
    if dtype == "bfloat16":
        raise RuntimeError("dst_tensor.defined")
    return compile_graphs(shape, stride, padding, groups, dtype, both)


def compute_wrongly(shape, stride, padding, groups, dtype, both):
    output, gradients = compile_graphs(shape, stride, padding, groups, dtype, both)
    return (lambda inputs: output(inputs) * (1.01 if dtype == "bfloat16" else 1.0)), gradients


compile_graphs = onednn._graphs


@pytest.mark.parametrize(("graphs", "words"), [(refuse, "raises RuntimeError"), (compute_wrongly, "differs by")])
def test_where_bfloat16_errs_training_is_float32_and_says_so(
    graphs, words, call, drawn, arguments_for, monkeypatch, capable, untested, tmp_path
):
    """Guards against a Paddle whose bfloat16 raises or computes wrongly, and against a change that nobody notices."""
    monkeypatch.setattr(onednn, "_graphs", graphs)
    ended = call(train, *arguments_for(drawn, amp="bf16", output_dir=str(tmp_path), epochs=1))
    assert ended.status == 0, ended
    assert f"float32 convolutions (a test of bfloat16 {words}" in ended.out
    network, settings = nn.Sequential(nn.Conv2D(3, 64, 3)), config.load(None, arguments_for(drawn, amp="bf16"))
    with setup.accelerated(network, settings, "cpu"):
        assert not network[0].forward.convolution.bfloat16
