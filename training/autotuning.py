"""Autotuning: which algorithm computes each convolution fastest on this processor, measured once and remembered."""

import json
import time
from pathlib import Path
from typing import Any

import paddle
from paddle import nn

from models import acceleration
from models.convolutions import ALGORITHMS, AlgorithmSelector, fastest, plain, shape_name
from system import machine
from system.errors import UserError
from system.publishing import write_text
from system.settings import Settings
from system.text import counted
from training.measurements import circumstances, remember, remembered

# In a run: what it is trained with. In cache_dir: what was measured, by `circumstances`.
FILE = "convolutions.json"

Measured = dict[str, str]


def autotune(network: nn.Layer, settings: Settings, bfloat16: bool, run: Path | None) -> tuple[AlgorithmSelector, str]:
    """Finds the fastest algorithm of each convolution for which none is always the fastest.

    A run that has begun goes on with what it began with: other algorithms round differently. So does another training
    on this machine, for the same settings give the same weights. Several processes compute by rule.

    Args:
        network: On the CPU; its weights and state stay as they are.
        bfloat16: Whether bfloat16 may be chosen.
        run: The run's folder; None: there is none.

    Returns:
        What convolves, and a line about what was measured; "" where nothing had to be.

    Raises:
        UserError: The run's file is damaged, or cannot be written.
    """
    selector = AlgorithmSelector(bfloat16=bfloat16)
    if machine.rank()[1] > 1:
        return selector, ""
    if run and (run / FILE).is_file():
        selector.measured = _read_run(run / FILE)
        return selector, ""
    undecided = _undecided(network, settings, selector)
    memory, content = Path(settings.cache_dir) / FILE, remembered(Path(settings.cache_dir) / FILE)
    threads = f"{machine.threads(settings)} threads"
    key = circumstances(threads, f"batch {settings.batch_size}", f"amp {settings.amp}")
    known = _sound(content.get(key))
    started = time.perf_counter()
    new = {
        name: fastest(layer, [settings.batch_size, *shape], algorithms)
        for name, (layer, shape, algorithms) in undecided.items()
        if known.get(name) not in algorithms
    }
    seconds = time.perf_counter() - started
    selector.measured = {name: new.get(name) or known[name] for name in undecided}
    if run and undecided:
        write_text(run / FILE, json.dumps(selector.measured, indent=2) + "\n")
    if not undecided:
        return selector, ""
    if not new:
        return selector, f"convolutions: {counted(len(undecided), 'shape')} as measured before, in {memory}"
    kept = remember(memory, {**content, key: {**known, **new}}) or f", kept in {memory}"
    return selector, f"convolutions: {counted(len(new), 'shape')} measured in {seconds:.1f} s{kept}"


def _undecided(
    network: nn.Layer, settings: Settings, selector: AlgorithmSelector
) -> dict[str, tuple[nn.Conv2D, list[int], list[str]]]:
    """Lists the convolutions with several candidates, by `shape_name`: layer, image [C, H, W], candidates."""
    found = {}

    def convolve(layer: nn.Conv2D, images: paddle.Tensor) -> paddle.Tensor:
        algorithms = selector.candidates(layer, images)
        if len(algorithms) > 1:
            found[shape_name(layer, images)] = layer, images.shape[1:], algorithms
        return plain(layer, images)

    modes = [(layer, layer.training) for layer in network.sublayers(include_self=True)]
    network.eval()
    try:
        with paddle.no_grad(), acceleration.speed_up(network, convolve):
            network(paddle.zeros([1, *settings.image_shape]))
    finally:
        for layer, is_training in modes:
            layer.training = is_training
    return found


def _sound(algorithms: Any) -> Measured:
    """What a file holds, less what is damaged."""
    found = algorithms.items() if isinstance(algorithms, dict) else ()
    return {name: algorithm for name, algorithm in found if isinstance(algorithm, str) and algorithm in ALGORITHMS}


def _read_run(file: Path) -> Measured:
    content = remembered(file)
    if content and _sound(content) == content:
        return content
    raise UserError(
        f"{file}: this is no list of convolutions; remove it, and training goes on with newly measured ones"
    )
