"""Networks of PaddleClas by name: `network: ppcls.PPHGNetV2_B4`, where its wheel is installed (docs/pretrained.md).

The wheel's own requirements pin releases that break Paddle 3 (numpy 1.24, gast 0.3.3), so it is installed without them;
its networks need none.
"""

import contextlib
import functools
import importlib
import importlib.util
import io
import logging
import sys
from types import ModuleType
from typing import Any

import paddle
from paddle import nn

from system.errors import UserError

PREFIX = "ppcls."
INSTALL = "python -m pip install --no-deps -r requirements-paddleclas.txt"
# Callables beside the networks.
NO_NETWORKS = {"get_apis"}
# Where some networks keep their logits, the first of these that there is.
OUTPUTS = ("logits", "output")


@functools.cache
def _backbones() -> ModuleType:
    """Imports ppcls.arch.backbone, which lies within the wheel's package and takes itself for a package of the top.

    Raises:
        UserError: The wheel is not installed.
    """
    found = importlib.util.find_spec("paddleclas")
    if found is None or not found.submodule_search_locations:
        raise UserError(f"network={PREFIX}...: PaddleClas's wheel is not installed; run `{INSTALL}`")
    folder = str(next(iter(found.submodule_search_locations)))
    sys.path.append(folder)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            module = importlib.import_module("ppcls.arch.backbone")
            # Some networks write to its logger when they are built.
            importlib.import_module("ppcls.utils.logger").init_logger(log_file=None, log_level=logging.ERROR)
    finally:
        sys.path.remove(folder)
    return module


def names() -> list[str]:
    """Lists the networks, with the prefix; [] where the wheel is not installed."""
    try:
        module = _backbones()
    except UserError:
        return []
    return [
        PREFIX + name
        for name in sorted(vars(module))
        if callable(getattr(module, name)) and not name.startswith("_") and name not in NO_NETWORKS
    ]


def construct(name: str, num_classes: int) -> nn.Layer:
    """Builds a network with random weights; its outputs are logits [N, num_classes], or a list that begins with them.

    Raises:
        UserError: The wheel is not installed, there is no such network, or it takes no number of classes.
    """
    build = getattr(_backbones(), name.removeprefix(PREFIX), None)
    if name not in names() or build is None:
        close = ", ".join(names()[:8])
        raise UserError(
            f"network={name}: there is no such network; take one of {close} ... (docs/pretrained.md lists all)"
        )
    try:
        # Some give their weights names, which would be taken in a process that builds them twice.
        with paddle.utils.unique_name.guard():
            # Unless told so, a few download weights.
            network = build(pretrained=False, class_num=num_classes)
    except TypeError as error:
        raise UserError(f"network={name}: it cannot be built for a number of classes ({error}); take another") from None
    except (KeyError, NameError) as error:
        raise UserError(f"network={name}: PaddleClas cannot build it ({error!r}); take another") from None
    network.register_forward_post_hook(lambda layer, inputs, outputs: _logits(outputs))
    return network


def _logits(outputs: Any) -> Any:
    if isinstance(outputs, dict):
        return next((outputs[key] for key in OUTPUTS if key in outputs), outputs)
    return outputs
