"""bfloat16: convolutions of a training on a CPU in half the bits; weights and everything else stay float32.

Processors with AVX512-BF16 or AMX multiply bfloat16 numbers faster than float32 ones. Paddle's own kernels on the CPU
do not, but oneDNN, which Paddle includes, does in compiled graphs. Inputs and weights are rounded to 8 significant
bits, products are summed in float32, and the sums are rounded again: output and gradients differ from float32's by
0.3 % (root mean square). Frozen layers, and validation, stay float32.
"""

import functools
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional
from paddle.static import InputSpec

from models import acceleration
from system import machine

# AMX processors have it too.
FLAG = "avx512_bf16"
# With these oneDNN can be held to older instructions, where bfloat16 ends the process.
LIMITS = ("DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA")
# The release in which the graphs below were found to be right; another one may end the process.
RELEASE = "3.2.2"
# Root mean square of the differences from float32, relative to its root mean square, below which a result is right:
# rounding to bfloat16 gives 0.003.
TOLERANCE = 0.006
# Multiplications, in all and per number that is converted (inputs, outputs and weights), below which conversion and
# calls cost more than the multiplications save (measured on an AMD EPYC with AVX512-BF16, 104 layers of 4 networks).
MIN_PRODUCTS, MIN_PRODUCTS_PER_NUMBER = 50e6, 115

Graph = Callable[..., Any]


def obstacle() -> str:
    """Returns why this machine cannot compute in bfloat16, with a remedy; "" if it can, as far as one sees."""
    if FLAG not in machine.cpu_flags():
        return f"this processor has no bfloat16 instructions ({FLAG}); use amp=none"
    if limits := [name for name in LIMITS if os.environ.get(name)]:
        return f"{limits[0]} limits the instructions of oneDNN; unset it, or use amp=none"
    if paddle.__version__ != RELEASE:
        return f"works with paddle {RELEASE}, this is {paddle.__version__}; install that one, or use amp=none"
    return ""


@functools.cache
def fault() -> str:
    """Compares a convolution with float32's, output and gradients; returns what is wrong with it, "" if nothing.

    Call it where there is no `obstacle`.
    """
    try:
        gap = max(_gaps())
    except Exception as error:
        # Whatever a build of Paddle may raise here: training works in float32 too, only slower.
        return f"raises {type(error).__name__}"
    return "" if gap < TOLERANCE else f"differs by {gap:.2g}"


# The first caller may be a validation, which computes no gradients.
@paddle.enable_grad()
def _gaps() -> list[float]:
    """Relative differences from float32 of a convolution and its gradients, for two weights in turn."""
    # Of a generator of its own: paddle's goes on as if nothing had been drawn.
    generator = np.random.default_rng(0)
    images = paddle.to_tensor(generator.standard_normal((2, 32, 12, 10), np.float32), stop_gradient=False)
    start = nn.initializer.Assign(generator.standard_normal((48, 32, 3, 3), np.float32))
    layer = nn.Conv2D(32, 48, 3, padding=1, weight_attr=paddle.ParamAttr(initializer=start), bias_attr=False)
    gaps = []
    # A graph that keeps its first weights shows with the second ones.
    for factor in (1.0, -0.7):
        layer.weight.set_value(layer.weight * factor)
        expected = functional.conv2d(images, layer.weight, padding=1)
        gradients = paddle.grad((expected * expected).sum(), [images, layer.weight])
        with acceleration.speed_up(layer, _convolve):
            found = layer(images)
            found_gradients = paddle.grad((found * expected.detach()).sum() * 2, [images, layer.weight])
        gaps += [_gap(*pair) for pair in zip([found, *found_gradients], [expected, *gradients], strict=True)]
    # A maximum would hide NaN.
    return [gap if math.isfinite(gap) else math.inf for gap in gaps]


def _gap(found: paddle.Tensor, expected: paddle.Tensor) -> float:
    return float(((found - expected).square().mean() / expected.square().mean()).sqrt())


def convolve(layer: nn.Conv2D, images: paddle.Tensor) -> paddle.Tensor:
    """Convolves images [N, C, H, W] float32 without the bias: in bfloat16 where that is faster, else in float32.

    Call it within `acceleration.speed_up`.

    Returns:
        float32 [N, C', H', W'].
    """
    is_trained = paddle.is_grad_enabled() and not layer.weight.stop_gradient
    if is_trained and layer._groups == 1 and _is_worth_it(layer, images):
        return _convolve(layer, images)
    return acceleration.convolve(layer, images)


def _is_worth_it(layer: nn.Conv2D, images: paddle.Tensor) -> bool:
    positions = images.shape[0] * math.prod(acceleration.output_size(layer, images))
    numbers = images.size + positions * layer.weight.shape[0] + layer.weight.size
    products = positions * layer.weight.size
    return products >= max(MIN_PRODUCTS, MIN_PRODUCTS_PER_NUMBER * numbers)


def _convolve(layer: nn.Conv2D, images: paddle.Tensor) -> paddle.Tensor:
    return _Convolution.apply(images, layer.weight, tuple(layer._stride), layer._padding)


class _Convolution(paddle.autograd.PyLayer):
    """A convolution by two graphs, one for the output and one for the gradients."""

    @staticmethod
    def forward(
        context: Any, images: paddle.Tensor, weight: paddle.Tensor, stride: tuple[int, int], padding: int
    ) -> paddle.Tensor:
        """Returns the maps, float32 [N, C', H', W']."""
        context.inputs = images.detach(), weight.detach()
        context.both = not images.stop_gradient
        output, context.gradients = _graphs(tuple(weight.shape), stride, padding, context.both)
        return _left(output(*context.inputs))

    @staticmethod
    def backward(context: Any, gradient: paddle.Tensor) -> tuple[paddle.Tensor | None, paddle.Tensor]:
        """Returns the gradients of images and weight; images that need none, as in a first layer, get None."""
        found = context.gradients(*context.inputs, gradient.detach())
        return (_left(found[0]), _left(found[1])) if context.both else (None, _left(found))


@functools.cache
def _graphs(shape: tuple[int, ...], stride: tuple[int, int], padding: int, both: bool) -> tuple[Graph, Graph]:
    """Compiles a convolution with weights of this shape: its output, and its gradients.

    Args:
        both: Whether the gradient of the images is computed, before that of the weight.

    Raises:
        ValueError: Paddle does not compile what was expected; only what was, is known to be right.
    """
    arguments = (list(stride), [padding, padding], "EXPLICIT", [1, 1], 1, "NCHW")

    def output(images: paddle.Tensor, weight: paddle.Tensor) -> paddle.Tensor:
        return _leave(paddle._C_ops.conv2d(images.astype("bfloat16"), weight.astype("bfloat16"), *arguments))

    def gradients(images: paddle.Tensor, weight: paddle.Tensor, gradient: paddle.Tensor) -> Any:
        images, weight, gradient = (tensor.astype("bfloat16") for tensor in (images, weight, gradient))
        weight.stop_gradient, images.stop_gradient = False, not both
        maps = paddle._C_ops.conv2d(images, weight, *arguments)
        # Gradients need no forward pass of a training here, so Paddle marks what comes out as constant.
        maps.stop_gradient = False
        found = paddle.grad([maps], [images, weight] if both else [weight], [gradient])
        return tuple(_leave(one) for one in found) if both else _leave(found[0])

    # Of any size; only their shapes' known numbers go into the graphs.
    examples = [paddle.ones([1, shape[1], 16, 16]), paddle.ones(shape), paddle.ones([1, shape[0], 16, 16])]
    specs = [[None, shape[1], None, None], shape, [None, shape[0], None, None]]
    _learn_dialect()
    forward, backward = _compile(output, specs[:2]), _compile(gradients, specs)
    _place(forward.get_concrete_program(*examples[:2])[1].train_program.forward_program)
    _prune(backward.get_concrete_program(*examples)[1].train_program.forward_program)
    return forward, backward


# Paddle loses what a graph returns where oneDNN itself computed it, and ends the process where a conversion follows
# straight on gradients; so a graph ends with operators of Paddle's own in this order.
def _leave(result: paddle.Tensor) -> paddle.Tensor:
    return result.unsqueeze(0).astype("float32").unsqueeze(0)


def _left(result: paddle.Tensor) -> paddle.Tensor:
    return result.reshape(result.shape[2:])


def _compile(function: Graph, shapes: Sequence[Sequence[int | None]]) -> Any:
    """Compiles a function of tensors of these shapes, without a backward pass of its own."""
    specs = [InputSpec(list(shape), "float32", stop_gradient=True) for shape in shapes]
    return paddle.jit.to_static(function, input_spec=specs, full_graph=True)


@functools.cache
def _learn_dialect() -> None:
    """Runs a first graph by oneDNN, before which Paddle does not know oneDNN's operators by name."""

    def copy(tensor: paddle.Tensor) -> paddle.Tensor:
        return tensor.squeeze(0).unsqueeze(0)

    _compile(copy, [[1, 2, 4, 3, 3]])(paddle.ones([1, 2, 4, 3, 3]))


def _run_pass(program: Any, name: str) -> list[Any]:
    """Changes a program by one of Paddle's passes and returns its operators."""
    passes = paddle.pir.PassManager(3)
    passes.add_pass(name, {})
    passes.run(program)
    return program.global_block().ops


def _place(program: Any) -> None:
    """Hands the convolution of an output's program to oneDNN, as Paddle would, and corrects two attributes."""
    found = [op for op in _run_pass(program, "onednn_placement_pass") if op.name() == "onednn_op.conv2d"]
    if len(found) != 1:
        raise ValueError("the convolution was not given to oneDNN")
    # Else float32 numbers are written into a result that is read as bfloat16.
    found[0].set_str_attr("mkldnn_data_type", "bfloat16")
    # Else the weights of the first call are kept for ever.
    found[0].set_bool_attr("is_test", False)


def _prune(program: Any) -> None:
    """Removes the convolution from a gradients' program, which does not need its result."""
    names = [op.name() for op in _run_pass(program, "dead_code_elimination_pass")]
    if "pd_op.conv2d" in names or "pd_op.conv2d_grad" not in names:
        raise ValueError("the gradients need more than the inputs")
