"""Features of the images of a list: what a network computes below its head, at the speed of inference."""

import contextlib
import hashlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from functools import cached_property
from pathlib import Path

import numpy as np
import paddle

from annotation.lists import Sample
from dataset import BatchLoader, ListDataset
from features import cache as feature_cache
from features.backbone import find_head, without_head
from imaging import cache
from imaging.transforms import EvalTransform
from inference import engines
from inference.graphs import save_graph
from inference.interfaces import Engine
from models.classifier import Classifier
from system import machine, progress
from system.settings import Settings
from system.text import counted
from system.workers import choose_workers, reporting_dead_workers

# How far the graph's features may be from those of the dynamic network, relative to the largest; images compared.
TOLERANCE, COMPARED = 1e-3, 2
# Features by file, by identity of what computed them; None: nothing is remembered.
_MEMORY: ContextVar[dict[str, dict[Path, np.ndarray]] | None] = ContextVar("features", default=None)


class FeatureExtractor:
    """A network without its head.

    On a CPU it runs as a graph with oneDNN, several times as fast as paddle's dynamic layers, once its features of a
    few images have been compared with theirs.

    Attributes:
        classifier: The whole network, in eval mode.
        head: Its last dense layer; None where something else computes the logits, which then are the features.
        transform: What images go through.
        width: Number of features of an image.
    """

    def __init__(self, classifier: Classifier, settings: Settings, device: str):
        classifier.eval()
        self.classifier, self.settings, self.device = classifier, settings, device
        self.transform = EvalTransform.from_settings(settings)
        self.head = find_head(classifier, settings.image_shape)
        self.width = int(self.head.weight.shape[0]) if self.head else self._dynamic(self._zeros()).shape[1]
        self.engine: Engine | None = None

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Computes features float32 [N, D] of raw pixels uint8 [N, 3, H, W]."""
        if self.engine is None:
            self.engine = self._choose(images[:COMPARED])
        return self.engine(images)

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Computes the logits float32 [N, C] of features float32 [N, D], as the head does."""
        if self.head is None:
            return features
        logits = features @ self.head.weight.numpy()
        return logits if self.head.bias is None else logits + self.head.bias.numpy()

    @cached_property
    def identity(self) -> str:
        """A text that changes with all that features depend on, besides the images; SHA-256, hexadecimal."""
        head = {id(weight) for weight in self.head.parameters()} if self.head else set()
        digest = hashlib.sha256(f"{paddle.__version__} {self.device} {self._may_compile()}".encode())
        for name, tensor in [*self.classifier.network.state_dict().items(), *self.classifier.named_buffers()]:
            if id(tensor) not in head:
                digest.update(name.encode())
                digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()

    def _zeros(self) -> np.ndarray:
        return np.zeros((1, *self.transform.image_shape), np.uint8)

    def _may_compile(self) -> bool:
        return self.device == "cpu" and self.settings.cpu_speedups

    def _choose(self, images: np.ndarray) -> Engine:
        if not self._may_compile():
            return self._dynamic
        compiled, expected = self._compile(), self._dynamic(images)
        agrees = np.abs(compiled(images) - expected).max() <= TOLERANCE * np.abs(expected).max()
        return compiled if agrees else self._dynamic

    def _compile(self) -> Engine:
        threads, shape = machine.threads(self.settings), self.transform.image_shape
        with (
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
            without_head(self.classifier, self.head),
        ):
            save_graph(self.classifier, shape, Path(folder))
            graph = engines.load(Path(folder), "onednn", "cpu", threads, shape)
        return lambda images: graph(images.astype(np.float32))

    def _dynamic(self, images: np.ndarray) -> np.ndarray:
        with paddle.no_grad(), without_head(self.classifier, self.head):
            return self.classifier(paddle.to_tensor(images)).flatten(1).numpy()


def of_samples(extractor: FeatureExtractor, samples: Sequence[Sample], name: str) -> np.ndarray:
    """Returns the features of a list's images, computed now or by an earlier command; several processes share the work.

    Args:
        name: Of the list, for the terminal.

    Returns:
        float32 [N, D] in the order of the list, memory-mapped where they take more than a quarter of the free memory;
        no rows in processes other than the first.

    Raises:
        UserError: An image cannot be read; or cache=disk, and the folder cannot be written to.
    """
    memory = _MEMORY.get()
    if memory is None:
        return _of_list(extractor, samples, name)
    known = memory.setdefault(extractor.identity, {})
    missing = [sample for sample in samples if sample.file not in known]
    if missing:
        found = _of_list(extractor, missing, name)
        known.update((sample.file, row) for sample, row in zip(missing, found, strict=False))
    rows = [known[sample.file] for sample in samples if sample.file in known]
    return np.stack(rows) if rows else np.zeros((0, extractor.width), np.float32)


@contextlib.contextmanager
def remembering() -> Iterator[None]:
    """Makes `of_samples` compute the features of an image once for all lists, as long as the block lasts."""
    token = _MEMORY.set({})
    try:
        yield
    finally:
        _MEMORY.reset(token)


def _of_list(extractor: FeatureExtractor, samples: Sequence[Sample], name: str) -> np.ndarray:
    settings, (rank, processes) = extractor.settings, machine.rank()
    if processes > 1:
        paddle.distributed.init_parallel_env()
    file = _file(extractor, samples)
    found = feature_cache.load(file, len(samples)) if rank == 0 and settings.cache in ("auto", "disk") else None
    shape, started = (len(samples), extractor.width), time.monotonic()
    # The first process alone knows, for each machine has a cache of its own.
    if not _of_first_process(found is not None):
        if rank:
            for _ in _compute(extractor, samples, name):
                pass
            return np.zeros((0, extractor.width), np.float32)
        found = feature_cache.build(file, shape, lambda: _compute(extractor, samples, name), settings)
        where = f"in {time.monotonic() - started:.1f} s" + (f", kept in {file.parent}" if file.is_file() else "")
    else:
        where = f"from {file.parent}"
    if rank or found is None:
        return np.zeros((0, extractor.width), np.float32)
    size = f"{counted(shape[0], f'{name} image')} x {shape[1]:,}, {found.nbytes / 2**20:.1f} MB"
    print(f"features: {size}, {where}", flush=True)
    return found


def logits_of_samples(extractor: FeatureExtractor, samples: Sequence[Sample], name: str) -> np.ndarray:
    """Returns the logits of a list's images, float32 [N, C] in its order; from features that are cached, if they are.

    Args:
        name: Of the list, for the progress bar.

    Raises:
        UserError: An image cannot be read.
    """
    kept = None
    if extractor.settings.cache in ("auto", "disk"):
        kept = feature_cache.load(_file(extractor, samples), len(samples))
    chunks = _compute(extractor, samples, name) if kept is None else [kept]
    return np.concatenate([extractor.logits(chunk) for chunk in chunks])


def _file(extractor: FeatureExtractor, samples: Sequence[Sample]) -> Path:
    key = cache.key([sample.file for sample in samples], f"{extractor.transform.cache_key} {extractor.identity}")
    return Path(extractor.settings.cache_dir) / f"features-{key}.npy"


def _of_first_process(value: bool) -> bool:
    if machine.rank()[1] == 1:
        return value
    flag = paddle.to_tensor([int(value)])
    paddle.distributed.broadcast(flag, src=0)
    return bool(flag.item())


def _compute(extractor: FeatureExtractor, samples: Sequence[Sample], name: str) -> Iterator[np.ndarray]:
    """Yields the features of all processes' next batches, in the order of the list."""
    settings, (rank, processes) = extractor.settings, machine.rank()
    dataset = ListDataset(samples, extractor.transform, settings.max_pixels)
    workers = choose_workers(settings, extractor.device)
    loader = BatchLoader(dataset, settings.batch_size, workers, rank=rank, processes=processes)
    left = len(samples)
    with reporting_dead_workers(), progress.bar(left, "images", name) as bar:
        for images, _ in loader:
            rows = extractor(images)
            if processes > 1:
                rows = _gathered(rows)
            # The last rows of a pass are padding.
            rows = rows[:left]
            left -= len(rows)
            bar.update(len(rows))
            yield np.ascontiguousarray(rows)


def _gathered(rows: np.ndarray) -> np.ndarray:
    """Gathers the rows [n, D] of every process: [n * processes, D], in the order of the list."""
    parts: list[paddle.Tensor] = []
    paddle.distributed.all_gather(parts, paddle.to_tensor(rows))
    return np.stack([part.numpy() for part in parts], axis=1).reshape(-1, rows.shape[1])
