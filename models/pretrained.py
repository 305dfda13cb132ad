"""Pretrained weights: downloading them, and loading them strictly."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import paddle
from paddle import nn

from models.networks import BASES, NETWORKS, construct, paddle_networks
from models.weights_files import read_arrays, read_weights
from models.zoos import convert, wanted_preprocessing
from system.errors import UserError, problems


def base_weights(name: str, network: nn.Layer) -> set[str]:
    """Returns the names of the weights that a network shares with its base (networks.BASES); empty if it has none."""
    if name not in BASES:
        return set()
    with paddle.utils.unique_name.guard(), paddle.LazyGuard():
        base = construct(BASES[name], 1000, []).state_dict()
    own = network.state_dict().items()
    return {key for key, weight in own if key in base and list(base[key].shape) == list(weight.shape)}


def find_weights(network: nn.Layer, name: str, file: str | None) -> tuple[dict[str, paddle.Tensor], str]:
    """Reads a weights file for a network, or downloads its ImageNet weights; where it has a base, of that one.

    Args:
        file: None: ImageNet weights.

    Returns:
        Tensors by name, and where they are from, in words.

    Raises:
        UserError: See read_for and imagenet_weights.
    """
    base = BASES.get(name, name)
    if file is None:
        weights, where = imagenet_weights(base), f"ImageNet weights of {base}"
    else:
        weights, where = read_for(network, base, file)
    if base == name or weights.keys() == network.state_dict().keys():
        return weights, where
    shared = base_weights(name, network)
    return {key: weights[key] for key in weights if key in shared}, f"{where}, without the layers that only {base} has"


def imagenet_weights(name: str) -> dict[str, paddle.Tensor]:
    """Downloads the ImageNet weights that paddle.vision offers for a network.

    Raises:
        UserError: There are none, or they cannot be downloaded.
    """
    # A registered network is not Paddle's, whatever its name.
    if name in NETWORKS or name not in paddle_networks():
        raise UserError(f"pretrained=true: there are no ImageNet weights for {name}; use pretrained=false, FILE or RUN")
    try:
        with paddle.utils.unique_name.guard():
            return paddle_networks()[name](pretrained=True).state_dict()
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"pretrained=true: the weights of {name} could not be downloaded ({reason}); "
            "fetch them elsewhere and give pretrained=FILE (.pdparams; .safetensors or .pth of torchvision or timm), "
            "or start from a run of yours, pretrained=RUN"
        ) from None


def read_for(network: nn.Layer, name: str, file: str) -> tuple[dict[str, paddle.Tensor], str]:
    """Reads a weights file for a network, renamed and transposed where it is another zoo's.

    Returns:
        Tensors by name, and where they are from, in words.

    Raises:
        UserError: The file is missing, damaged or holds no weights.
    """
    found = read_arrays(file)
    if found is None:
        return read_weights(file), file
    weights, how = convert(found[0], network, name, found[1])
    wanted = wanted_preprocessing(Path(file), name)
    wants = f"; they want {', '.join(f'{key}={value}' for key, value in wanted.items())}" if wanted else ""
    return weights, f"{file} ({how}{wants})"


def head_axes(network: nn.Layer, name: str, num_classes: int, image_shape: Sequence[int]) -> dict[str, int]:
    """Returns the weights whose shape depends on the number of classes, and the axis of the classes.

    Found by comparing with a second network that has one class more, built without memory: no rule about layer names
    could be right for every architecture.
    """
    with paddle.utils.unique_name.guard(), paddle.LazyGuard():
        other = construct(name, num_classes + 1, image_shape).state_dict()
    return {
        key: next(axis for axis, side in enumerate(weight.shape) if side != other[key].shape[axis])
        for key, weight in network.state_dict().items()
        if list(weight.shape) != list(other[key].shape)
    }


def load_strictly(
    network: nn.Layer, weights: Mapping[str, paddle.Tensor], where: str, head: Collection[str]
) -> list[str]:
    """Loads weights by name; every one must fit, except those of the head, which may differ in shape or be absent.

    Args:
        where: Where the weights come from, as errors begin.
        head: Names that may keep the weights they have; empty: none may.

    Returns:
        Names that were not loaded, all of them in head.

    Raises:
        UserError: A weight is missing, unknown or of another shape.
    """
    own = network.state_dict()
    weights = {key: value for key, value in weights.items() if hasattr(value, "shape")}
    fitting = {key for key in own if key in weights and list(weights[key].shape) == list(own[key].shape)}
    kept = [key for key in own if key not in fitting]
    required = [key for key in kept if key not in head]
    mismatches = [f"{key} is missing" for key in required if key not in weights]
    mismatches += [
        f"{key} is {list(weights[key].shape)}, not {list(own[key].shape)}" for key in required if key in weights
    ]
    mismatches += [f"{key} is unknown" for key in weights if key not in own]
    if mismatches:
        remedy = "these are weights of another network; name the network they were trained with"
        raise problems(where, mismatches, remedy)
    # Paddle only warns about missing names, so what is kept is passed its own weights.
    network.set_state_dict({key: weights[key] if key in fitting else own[key] for key in own})
    return kept
