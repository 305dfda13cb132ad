"""Weights of other zoos (torchvision, timm, Hugging Face) for the networks of paddle.vision: renamed and transposed."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

from system.errors import UserError

Rule = tuple[str, str | Callable[[re.Match[str]], str]]
# What torch calls otherwise in every network, and what paddle has no counterpart of.
COMMON: tuple[Rule, ...] = ((r"\.running_mean$", "._mean"), (r"\.running_var$", "._variance"))
UNUSED = re.compile(r"num_batches_tracked$|^AuxLogits\.|^aux[12]\.")
# Networks of one name that compute something else: other paddings, widths, or norms.
OTHERS = ("squeezenet1_0", "squeezenet1_1", "shufflenet_v2_x2_0", "googlenet")
# torch's batch norm has this epsilon there, paddle's 1e-5: the difference becomes part of the variance.
EPSILON = {"inception_v3": 1e-3}
# Paddle's dropout before this layer multiplies by so much in eval mode.
DOWNSCALED = {"inception_v3": ("fc.weight", 0.8)}
INCEPTION = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")
# What each family calls otherwise, by the beginning of the network's name: patterns of torchvision's names, and ours.
FAMILIES: dict[str, tuple[Rule, ...]] = {
    "densenet": (
        (r"^features\.conv0\.", "conv1_func._conv."),
        (r"^features\.norm0\.", "conv1_func._batch_norm."),
        (
            r"^features\.denseblock(\d+)\.denselayer(\d+)\.(norm|conv)(\d)\.",
            lambda found: (
                f"db_conv_{int(found[1]) + 1}.conv{int(found[1]) + 1}_{found[2]}.bn_ac_func{found[4]}."
                f"{'_batch_norm' if found[3] == 'norm' else '_conv'}."
            ),
        ),
        (
            r"^features\.transition(\d+)\.(norm|conv)\.",
            lambda found: (
                f"tr_conv{int(found[1]) + 1}_blk.conv_ac_func.{'_batch_norm' if found[2] == 'norm' else '_conv'}."
            ),
        ),
        (r"^features\.norm5\.", "batch_norm."),
        (r"^classifier\.", "out."),
    ),
    "shufflenet": (
        (r"^conv1\.", "_conv1."),
        (r"^conv5\.", "_last_conv."),
        (r"^fc\.", "_fc."),
        (r"^stage(\d)\.(\d+)\.", lambda found: f"{found[1]}_{int(found[2]) + 1}."),
        (r"\.branch1\.([01])\.", r"._conv_dw_1.\1."),
        (r"\.branch1\.([23])\.", lambda found: f"._conv_linear_1.{int(found[1]) - 2}."),
        (r"^(\d_1)\.branch2\.([01])\.", r"\1._conv_pw_2.\2."),
        (r"^(\d_1)\.branch2\.([34])\.", lambda found: f"{found[1]}._conv_dw_2.{int(found[2]) - 3}."),
        (r"^(\d_1)\.branch2\.([56])\.", lambda found: f"{found[1]}._conv_linear_2.{int(found[2]) - 5}."),
        (r"\.branch2\.([01])\.", r"._conv_pw.\1."),
        (r"\.branch2\.([34])\.", lambda found: f"._conv_dw.{int(found[1]) - 3}."),
        (r"\.branch2\.([56])\.", lambda found: f"._conv_linear.{int(found[1]) - 5}."),
    ),
    "inception_v3": (
        (r"^Conv2d_", "inception_stem.conv_"),
        (r"^Mixed_(\d\w)\.", lambda found: f"inception_block_list.{INCEPTION.index(found[1])}."),
        (r"\.branch_pool\.", ".branch_pool_conv."),
        (r"\.conv\.", ".0."),
        (r"\.bn\.", ".1."),
    ),
}
# Where a checkpoint of a training keeps its weights, and what wrappers put before their names.
INNER = ("state_dict", "model_state_dict", "model", "state_dict_ema", "model_ema", "net")
WRAPPED = re.compile(r"^(module\.|_orig_mod\.)+")
# Weights that torchvision converted from TensorFlow's, and what they were trained with.
CONVERTED = {"inception_v3": {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}}


def inner_weights(content: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Finds the weights in a checkpoint: arrays by name, without what wrappers put before the names.

    Returns:
        The arrays; {} where there are none.
    """
    for candidate in (content, *(content.get(name) for name in INNER)):
        if isinstance(candidate, Mapping):
            found = {str(key): value for key, value in candidate.items() if isinstance(value, np.ndarray)}
            if found:
                return {WRAPPED.sub("", key): value for key, value in found.items()}
    return {}


def convert(
    weights: Mapping[str, np.ndarray], network: nn.Layer, name: str, is_torch: bool | None
) -> tuple[dict[str, paddle.Tensor], str]:
    """Gives weights of another zoo the names and shapes that a network of paddle.vision has for them.

    Nothing is left out that the network could take: what has no counterpart keeps its name, and is refused by
    pretrained.load_strictly.

    Args:
        weights: Arrays by name; 16-bit and 64-bit floats become float32.
        network: The network that is to take them.
        name: Its name.
        is_torch: Whether dense layers have their weights as torch has them, [outputs, inputs]; None: their shapes show.

    Returns:
        Tensors by the network's names, and how they were matched, in words.

    Raises:
        UserError: torch's network of this name is another one.
    """
    own = {key: list(value.shape) for key, value in network.state_dict().items()}
    dense = {f"{key}.weight" for key, layer in network.named_sublayers() if isinstance(layer, nn.Linear)}
    used = {key: value for key, value in weights.items() if not UNUSED.search(key)}
    renamed = {_rename(key, name, used): value for key, value in used.items()}
    if is_torch is None:
        is_torch = renamed.keys() != weights.keys() or _is_transposed(renamed, own, dense)
    if is_torch and name in OTHERS:
        raise UserError(
            f"pretrained: {name} of torchvision and timm computes something else than paddle's; use paddle's own "
            "weights, or another network"
        )
    how = "as they are" if renamed.keys() == weights.keys() else "renamed from torch's names"
    tensors = {}
    for key, value in renamed.items():
        value = value.T if is_torch and key in dense else value
        if is_torch and key.endswith("._variance"):
            value = value + (EPSILON.get(name, 1e-5) - 1e-5)
        layer, factor = DOWNSCALED.get(name, ("", 1.0))
        value = value / factor if is_torch and key == layer else value
        tensors[key] = paddle.to_tensor(np.ascontiguousarray(value.astype(np.float32)))
    return tensors, how + (", dense layers transposed" if is_torch and dense else "")


def _rename(key: str, name: str, weights: Mapping[str, Any]) -> str:
    if name.startswith("mobilenet_v3"):
        key = _mobilenet_v3(key, weights)
    for family, rules in FAMILIES.items():
        if name.startswith(family):
            for pattern, replacement in rules:
                key = re.sub(pattern, replacement, key)
    for pattern, replacement in COMMON:
        key = re.sub(pattern, replacement, key)
    return key


def _mobilenet_v3(key: str, weights: Mapping[str, Any]) -> str:
    """Renames by what a block has: an expansion except in the first one, squeeze-and-excitation in some."""
    last = max((int(found[1]) for one in weights if (found := re.match(r"features\.(\d+)\.", one))), default=0)
    key = re.sub(r"^features\.0\.", "conv.", key)
    key = re.sub(rf"^features\.{last}\.", "lastconv.", key)
    found = re.match(r"features\.(\d+)\.block\.(\d+)\.(.+)", key)
    if not found:
        return key
    block, part, rest = int(found[1]), int(found[2]), found[3]
    prefix = rf"features\.{block}\.block\.(\d+)\."
    numbers = {int(one[1]) for other in weights if (one := re.match(prefix, other))}
    excited = {int(one[1]) for other in weights if (one := re.match(prefix + r"fc1\.", other))}
    convolutions = sorted(numbers - excited)
    names = ("expand_conv", "bottleneck_conv", "linear_conv")[-len(convolutions) :]
    middle = "mid_se" if part in excited else names[convolutions.index(part)]
    return f"blocks.{block - 1}.{middle}.{rest}"


def _is_transposed(weights: Mapping[str, np.ndarray], own: Mapping[str, Sequence[int]], dense: set[str]) -> bool:
    """Whether the dense layers that are not square have their shapes the other way round; the head by its inputs."""
    votes = 0
    for key in dense & weights.keys():
        inputs, outputs = own[key]
        shape = weights[key].shape
        if inputs != outputs and len(shape) == 2 and shape[0] != shape[1]:
            votes += int(shape[1] == inputs) - int(shape[0] == inputs)
    return votes > 0


def wanted_preprocessing(file: Path, name: str) -> dict[str, Any]:
    """Finds what images these weights want: in timm's config.json beside them, or known of the zoo.

    Returns:
        Of mean, std, image_shape, crop_fraction, interpolation those that are known.
    """
    try:
        content = json.loads((file.parent / "config.json").read_text(encoding="utf-8"))
        found = content.get("pretrained_cfg", {})
        known = {
            "mean": found.get("mean"),
            "std": found.get("std"),
            "image_shape": found.get("input_size"),
            "crop_fraction": found.get("crop_pct"),
            "interpolation": found.get("interpolation"),
        }
        return {key: tuple(value) if isinstance(value, list) else value for key, value in known.items() if value}
    except (OSError, ValueError, AttributeError):
        return next((wants for family, wants in CONVERTED.items() if name == family), {})
