"""Data sets over label lists, and the loader that feeds them to paddle.Model."""

import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import paddle

import runtime
from config import Settings, UserError
from lists import Entry
from pictures import read_image
from transforms import EvalTransform, TrainTransform

# Distinguishes the random streams that are drawn from one seed.
ORDER_STREAM, PICTURE_STREAM = 0, 1


class ListDataset(paddle.io.Dataset):
    """Pictures of a list: item i is (image uint8 [3, H, W], label int64).

    With a TrainTransform the changes to picture i depend on seed, epoch and i alone: not on the order of reading or
    on which process reads. Set `epoch` before each pass.
    """

    def __init__(self, entries: Sequence[Entry], transform: EvalTransform | TrainTransform, max_pixels: int, seed: int = 0):
        super().__init__()
        self.entries = list(entries)
        self.transform = transform
        self.max_pixels = max_pixels
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.int64]:
        """Raises PictureError (a UserError that names the file) when the picture cannot be read."""
        entry = self.entries[index]
        image = read_image(entry.file, self.max_pixels)
        if isinstance(self.transform, TrainTransform):
            generator = np.random.default_rng((self.seed, PICTURE_STREAM, self.epoch, index))
            return self.transform(image, generator), np.int64(entry.label)
        return self.transform(image), np.int64(entry.label)


class BatchLoader:
    """Yields batches (images uint8 [N, 3, H, W], labels int64 [N]), which paddle.Model turns into tensors.

    A picture that cannot be read raises its own error here, whatever the number of workers: paddle.io.DataLoader
    alone hangs (no workers) or hides the error (workers) when a data set raises.

    Attributes:
        epoch: Decides the order of a shuffled pass; `fit`'s callbacks set it.
    """

    def __init__(self, dataset: paddle.io.Dataset, batch_size: int, num_workers: int = 0, shuffle: bool = False):
        self.dataset = dataset
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.shuffle = shuffle
        self.epoch = 0

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def batches(self) -> list[np.ndarray]:
        """Indices of each batch of this epoch: every picture once.

        A shuffled pass makes its batches equally large, to within one, so that none is left with a picture or two,
        over which batch norm would compute useless statistics.
        """
        order = np.arange(len(self.dataset))
        if self.shuffle:
            order = np.random.default_rng((self.dataset.seed, ORDER_STREAM, self.epoch)).permutation(order)
            return np.array_split(order, len(self))
        return np.split(order, range(self.batch_size, len(order), self.batch_size))

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        self.dataset.epoch = self.epoch
        read = self._read_in_processes if self.num_workers else self._read_ahead
        yield from read(self.batches())

    def _read_ahead(self, batches: list[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        # One thread prepares the next batch while the network works on this one; Pillow lets go of the interpreter.
        with ThreadPoolExecutor(1) as pool:
            waiting = None
            for batch in batches:
                following = pool.submit(self._collate, batch)
                if waiting:
                    yield waiting.result()
                waiting = following
            if waiting:
                yield waiting.result()

    def _collate(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images, labels = zip(*(self.dataset[i] for i in batch.tolist()), strict=True)
        return np.stack(images), np.asarray(labels)

    def _read_in_processes(self, batches: list[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        loader = paddle.io.DataLoader(
            _Batches(self, batches),
            batch_size=None,
            num_workers=min(self.num_workers, len(batches)),
            use_shared_memory=_shared_memory_is_large(),
            return_list=True,
        )
        for images, labels, error in loader:
            if error.shape[0]:
                raise UserError(bytes(error.numpy()).decode())
            yield images.numpy(), labels.numpy()


class _Batches(paddle.io.Dataset):
    """Whole batches as items, for worker processes; an error travels as text because paddle would hide it."""

    def __init__(self, loader: BatchLoader, batches: list[np.ndarray]):
        super().__init__()
        self.loader, self.indices = loader, batches

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        try:
            return *self.loader._collate(self.indices[index]), np.zeros(0, np.uint8)
        except UserError as error:
            return np.zeros(0, np.uint8), np.zeros(0, np.int64), np.frombuffer(str(error).encode(), np.uint8)


def _shared_memory_is_large() -> bool:
    """Tells whether /dev/shm holds a few batches a worker; containers often have 64 MB, and then workers die of it."""
    try:
        state = os.statvfs("/dev/shm")
    except (OSError, AttributeError):
        return False
    return state.f_bavail * state.f_frsize >= 1 << 30


def choose_workers(settings: Settings, device: str) -> int:
    """Number of worker processes: the setting, or 0 on the CPU, which the network keeps busy itself."""
    if settings.num_workers != "auto":
        return settings.num_workers
    return 0 if device == "cpu" or sys.platform == "win32" else min(8, runtime.cores() - 1)
