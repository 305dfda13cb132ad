"""oneDNN: convolutions of a training on a CPU by the library that Paddle includes but uses in compiled graphs only.

Each convolution is two graphs, one for its output and one for its gradients, between which nothing is kept but the
inputs. In bfloat16 inputs and weights are rounded to 8 significant bits, products are summed in float32, and the sums
are rounded again: output and gradients differ from float32's by 0.3 % (root mean square).
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import paddle
from paddle.nn import functional
from paddle.static import InputSpec

# Lets oneDNN run the graphs that Paddle compiles.
FLAG = "FLAGS_use_onednn"
# Root mean square of the differences from Paddle's own float32, relative to its root mean square, below which a result
# is right: rounding gives 1e-6 and 0.003.
TOLERANCES = {"float32": 1e-5, "bfloat16": 0.006}

Graph = Callable[..., Any]


@contextlib.contextmanager
def enabled() -> Iterator[None]:
    """Lets oneDNN run what Paddle compiles, within the `with` block, if it is part of this Paddle."""
    flag = paddle.get_flags(FLAG)
    try:
        if paddle.base.core.is_compiled_with_onednn():
            paddle.set_flags({FLAG: True})
        yield
    finally:
        paddle.set_flags(flag)


def convolve(
    images: paddle.Tensor,
    weight: paddle.Tensor,
    stride: Sequence[int],
    padding: int,
    groups: int = 1,
    dtype: str = "float32",
) -> paddle.Tensor:
    """Convolves images float32 [N, C, H, W] with weight float32 [C', C / groups, H'', W''].

    Call it, and compute its gradients, where oneDNN is `enabled`: a graph that runs first without it runs by Paddle's
    own kernels for ever.

    Args:
        dtype: "float32" or "bfloat16": how it is computed.

    Returns:
        float32 [N, C', H', W'].
    """
    return _Convolution.apply(images, weight, (tuple(stride), padding, groups, dtype))


@functools.cache
def fault(dtype: str) -> str:
    """Compares a convolution with Paddle's own, output and gradients; returns what is wrong with it, "" if nothing."""
    if not paddle.base.core.is_compiled_with_onednn():
        return "is not possible: this paddle has no oneDNN"
    try:
        with enabled():
            gap = max(_gaps(dtype))
    except Exception as error:
        # Whatever a release of Paddle may raise here: training works by its own layers too, only slower.
        return f"raises {type(error).__name__}"
    return "" if gap < TOLERANCES[dtype] else f"differs by {gap:.2g}"


# The first caller may be a validation, which computes no gradients.
@paddle.enable_grad()
def _gaps(dtype: str) -> list[float]:
    """Relative differences from Paddle of a convolution and its gradients, for two weights in turn."""
    # Of a generator of its own: paddle's goes on as if nothing had been drawn.
    generator = np.random.default_rng(0)
    images, weight = (
        paddle.to_tensor(generator.standard_normal(shape, np.float32), stop_gradient=False)
        for shape in ((2, 32, 12, 10), (48, 32, 3, 3))
    )
    gaps = []
    # A graph that keeps its first weights shows with the second ones.
    for factor in (1.0, -0.7):
        inputs = [images, (weight * factor).detach()]
        inputs[1].stop_gradient = False
        expected = functional.conv2d(*inputs, padding=1)
        gradients = paddle.grad((expected * expected).sum(), inputs)
        found = convolve(inputs[0], inputs[1], (1, 1), 1, dtype=dtype)
        found_gradients = paddle.grad((found * expected.detach()).sum() * 2, inputs)
        gaps += [_gap(*pair) for pair in zip([found, *found_gradients], [expected, *gradients], strict=True)]
    # A maximum would hide NaN.
    return [gap if math.isfinite(gap) else math.inf for gap in gaps]


def _gap(found: paddle.Tensor, expected: paddle.Tensor) -> float:
    return float(((found - expected).square().mean() / expected.square().mean()).sqrt())


class _Convolution(paddle.autograd.PyLayer):
    """A convolution by two graphs, one for the output and one for the gradients."""

    @staticmethod
    def forward(context: Any, images: paddle.Tensor, weight: paddle.Tensor, options: tuple[Any, ...]) -> paddle.Tensor:
        """Returns the maps, float32 [N, C', H', W']."""
        context.inputs = images.detach(), weight.detach()
        context.constant = images.stop_gradient, weight.stop_gradient
        output, context.gradients = _graphs(tuple(weight.shape), *options, not images.stop_gradient)
        return _left(output([*context.inputs]))

    @staticmethod
    def backward(context: Any, gradient: paddle.Tensor) -> tuple[paddle.Tensor | None, ...]:
        """Returns the gradients of images and weight; None for images of a first layer, and for a frozen weight."""
        found = context.gradients([*context.inputs, gradient.detach()])
        results = [None, found] if context.constant[0] else found
        pairs = zip(results, context.constant, strict=True)
        return tuple(None if constant or result is None else _left(result) for result, constant in pairs)


@functools.cache
def _graphs(
    shape: tuple[int, ...], stride: tuple[int, int], padding: int, groups: int, dtype: str, both: bool
) -> tuple[Graph, Graph]:
    """Compiles a convolution with weights of this shape: its output, and its gradients, of lists of inputs.

    Args:
        both: Whether the gradient of the images is computed, before that of the weight.

    Raises:
        ValueError: Paddle does not compile what was expected; only what was, is known to be right.
    """
    arguments = (list(stride), [padding, padding], "EXPLICIT", [1, 1], groups, "NCHW")

    def output(images: paddle.Tensor, weight: paddle.Tensor) -> paddle.Tensor:
        return _leave(paddle._C_ops.conv2d(images.astype(dtype), weight.astype(dtype), *arguments))

    def gradients(images: paddle.Tensor, weight: paddle.Tensor, gradient: paddle.Tensor) -> Any:
        images, weight, gradient = (tensor.astype(dtype) for tensor in (images, weight, gradient))
        weight.stop_gradient, images.stop_gradient = False, not both
        maps = paddle._C_ops.conv2d(images, weight, *arguments)
        # Gradients need no forward pass of a training here, so Paddle marks what comes out as constant.
        maps.stop_gradient = False
        found = paddle.grad([maps], [images, weight] if both else [weight], [gradient])
        return tuple(_leave(one) for one in found) if both else _leave(found[0])

    channels = shape[1] * groups
    specs = [[None, channels, None, None], shape, [None, shape[0], None, None]]
    _learn_dialect()
    forward, backward = _compile(output, specs[:2]), _compile(gradients, specs)
    if dtype != "float32":
        _place(forward.train_program.forward_program, dtype)
    _prune(backward.train_program.forward_program)
    return forward, backward


# Paddle loses what a graph returns where oneDNN itself computed it, and ends the process where a conversion follows
# straight on gradients; so a graph ends with operators of Paddle's own in this order.
def _leave(result: paddle.Tensor) -> paddle.Tensor:
    return result.unsqueeze(0).astype("float32").unsqueeze(0)


def _left(result: paddle.Tensor) -> paddle.Tensor:
    return result.reshape(result.shape[2:])


def _compile(function: Graph, shapes: Sequence[Sequence[int | None]]) -> Any:
    """Compiles a function of tensors of these shapes, without a backward pass of its own.

    Returns:
        Paddle's program layer, called with the list of tensors: the function that holds it looks it up for 0.2 ms.
    """
    specs = [InputSpec(list(shape), "float32", stop_gradient=True) for shape in shapes]
    # Of any size; only the known numbers of their shapes go into the graph.
    examples = [paddle.ones([size or 16 for size in shape]) for shape in shapes]
    return paddle.jit.to_static(function, input_spec=specs, full_graph=True).get_concrete_program(*examples)[1]


@functools.cache
def _learn_dialect() -> None:
    """Runs a first graph by oneDNN, before which Paddle does not know oneDNN's operators by name."""

    def copy(tensor: paddle.Tensor) -> paddle.Tensor:
        return tensor.squeeze(0).unsqueeze(0)

    _compile(copy, [[1, 2, 4, 3, 3]])([paddle.ones([1, 2, 4, 3, 3])])


def _run_pass(program: Any, name: str) -> list[Any]:
    """Changes a program by one of Paddle's passes and returns its operators."""
    passes = paddle.pir.PassManager(3)
    passes.add_pass(name, {})
    passes.run(program)
    return program.global_block().ops


def _place(program: Any, dtype: str) -> None:
    """Hands the convolution of an output's program to oneDNN, as Paddle would, and corrects two attributes."""
    found = [op for op in _run_pass(program, "onednn_placement_pass") if op.name() == "onednn_op.conv2d"]
    if len(found) != 1:
        raise ValueError("the convolution was not given to oneDNN")
    # Else float32 numbers are written into a result that is read as bfloat16.
    found[0].set_str_attr("mkldnn_data_type", dtype)
    # Else the weights of the first call are kept for ever.
    found[0].set_bool_attr("is_test", False)


def _prune(program: Any) -> None:
    """Removes the convolution from a gradients' program, which does not need its result."""
    names = [op.name() for op in _run_pass(program, "dead_code_elimination_pass")]
    if "pd_op.conv2d" in names or "pd_op.conv2d_grad" not in names:
        raise ValueError("the gradients need more than the inputs")
