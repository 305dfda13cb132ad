"""Data sets over label lists, and the loader that feeds paddle.Model."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import paddle
from PIL import Image

import config
from annotation.lists import SPLITS, Sample, read_split
from imaging import cache
from imaging.images import read_image
from imaging.transforms import EvalTransform, TrainTransform
from system import machine, workers
from system.errors import UserError
from system.settings import Settings
from system.text import counted

# Separate random streams of one seed.
ORDER_STREAM, IMAGE_STREAM, MIX_STREAM = 0, 1, 2
# Label of a row that only makes batches of several processes equally large; no metric counts it.
PADDING = -1
# What workers send where there was no error; paddle refuses empty arrays.
NO_ERROR = b"\0"
# Batches prepared while the network works on another one.
AHEAD = 2


class ListDataset(paddle.io.Dataset):
    """Images of a list: item i is (image uint8 [3, H, W], label int64).

    With a TrainTransform the augmentation of image i depends on seed, epoch and i alone: not on the order of reading,
    on which process reads, or on whether there is a cache. Set `epoch` before each pass.

    A subclass whose items have another form, such as normalised float32 images for a loop of one's own, overrides
    `__getitem__` and `batch`, and reads pixels through `read`, as every command does.

    Attributes:
        cached: Images after the deterministic part of the transform; None: files are read.
    """

    def __init__(
        self, samples: Sequence[Sample], transform: EvalTransform | TrainTransform, max_pixels: int, seed: int = 0
    ):
        super().__init__()
        self.samples = list(samples)
        self.labels = np.asarray([sample.label for sample in self.samples], np.int64)
        self.transform = transform
        self.max_pixels = max_pixels
        self.seed = seed
        self.epoch = 0
        self.cached: cache.ImageCache | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, file: Path) -> np.ndarray:
        """Reads an image as a cache keeps it: uint8 [height, width, 3], after the deterministic part of the transform.

        Raises:
            ImageError: It cannot be read; a UserError that names the file.
        """
        if isinstance(self.transform, TrainTransform):
            return np.asarray(self.transform.reduce(read_image(file, self.max_pixels)))
        return self.transform.read(file, self.max_pixels).transpose(1, 2, 0)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.int64]:
        """Raises ImageError (a UserError that names the file) when the image cannot be read."""
        pixels = self.read(self.samples[index].file) if self.cached is None else self.cached[index]
        if isinstance(self.transform, TrainTransform):
            return self.transform.vary(Image.fromarray(pixels), self._generator(index)), self.labels[index]
        return np.ascontiguousarray(pixels.transpose(2, 0, 1)), self.labels[index]

    def batch(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns several items: (images uint8 [N, 3, H, W], labels int64 [N]); index PADDING makes a padding row."""
        labels = np.where(indices == PADDING, PADDING, self.labels[indices])
        transform, indices = self.transform, np.where(indices == PADDING, 0, indices)
        in_one = self.cached is not None and self.cached.has_size(transform.height, transform.width)
        if self.cached is None or not in_one or not transform.only_flips:
            return np.stack([self[index][0] for index in indices.tolist()]), labels
        images = np.ascontiguousarray(self.cached.take(indices).transpose(0, 3, 1, 2))
        if isinstance(transform, TrainTransform):
            transform.flip_batch(images, [self._generator(index) for index in indices.tolist()])
        return images, labels

    def _generator(self, index: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, IMAGE_STREAM, self.epoch, index))

    def use_cache(self, settings: Settings, name: str) -> str:
        """Fills the cache, if the settings ask for one and there is room.

        Returns:
            One line for the terminal: what was cached, and its size.

        Raises:
            UserError: There is no room for what was asked, or an image cannot be read.
        """
        if settings.cache == "none":
            return f"cache: none, {name} images are read from their files"
        files = [sample.file for sample in self.samples]
        size, free = cache.estimate(files, self.transform.cached_size), cache.free_memory()
        summary = f"{counted(len(self), f'{name} image')}, about {size / 2**20:.0f} MB"
        if settings.cache == "disk":
            print(f"cache: {summary} in {settings.cache_dir}", flush=True)
            file = f"{name}-{cache.key(files, self.transform.cache_key)}.pixels"
            self.cached = cache.on_disk(settings.cache_dir, file, files, self.read, size)
            return f"cache: {name} images are read from {settings.cache_dir}"
        if settings.cache == "auto" and size > free / 4:
            return (
                f"cache: {summary}, too many for the {free >> 20} MB that are free; reading files (or set cache=disk)"
            )
        if size > free:
            raise UserError(
                f"cache=ram: {summary} do not fit into the {free >> 20} MB that are free; use cache=disk or none"
            )
        self.cached = cache.build(files, self.read)
        return f"cache: {summary} in memory"


class ZodiacDataset(paddle.io.Dataset):
    """The zodiac course's data set: item i is (image float32 [3, H, W], normalised by mean and std; label int).

    A network of paddle.vision.models takes these images as they are. Images are read when the set is made, as far as
    the setting `cache` allows: paddle.Model.fit waits for ever for one that cannot be read later.

    Attributes:
        class_names: Label map.
    """

    def __init__(self, mode: str = "train", settings: Settings | None = None):
        """Reads the list of a split.

        Args:
            mode: "train", whose images are augmented, "valid" or "test".
            settings: By default those of config.yaml.

        Raises:
            UserError: There is no such split, its list is missing, or an image cannot be read.
        """
        super().__init__()
        if mode not in SPLITS:
            raise UserError(f"ZodiacDataset: mode={mode!r} is no split; take one of {', '.join(SPLITS)}")
        settings = settings or config.load()
        machine.prepare(settings)
        samples, self.class_names = read_split(settings, mode)
        transform = (TrainTransform if mode == "train" else EvalTransform).from_settings(settings)
        self.images = ListDataset(samples, transform, settings.max_pixels, settings.seed)
        self.images.use_cache(settings, mode)
        self.mean, self.std = (
            np.float32(255 * np.reshape(values, (3, 1, 1))) for values in (settings.mean, settings.std)
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Augmentation is drawn anew each time, from NumPy's global generator, which paddle seeds in its workers."""
        self.images.epoch = np.random.randint(2**31)
        pixels, label = self.images[index]
        return (pixels - self.mean) / self.std, int(label)


class BatchLoader:
    """Yields batches (images uint8 [N, 3, H, W], labels int64 [N]), which paddle.Model turns into tensors.

    An image that cannot be read raises its own error here, whatever the number of workers: paddle.io.DataLoader
    hangs (no workers) or hides the error (workers) when a data set raises.

    Attributes:
        epoch: Seeds the order of a shuffled pass; `fit`'s callbacks set it.
        first_step: Batches of the epoch to skip because they were trained on before an interruption.
        mix: Turns (images, labels, generator) into (images, targets float32 [N, C]); None: labels stay.
    """

    def __init__(
        self,
        dataset: ListDataset,
        batch_size: int,
        num_workers: int = 0,
        shuffle: bool = False,
        balanced: bool = False,
        rank: int = 0,
        processes: int = 1,
    ):
        self.dataset = dataset
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.shuffle = shuffle
        self.balanced = balanced
        self.rank, self.processes = rank, processes
        self.epoch = 0
        self.first_step = 0
        self.mix: Callable[..., tuple[np.ndarray, np.ndarray]] | None = None

    @property
    def steps(self) -> int:
        """Batches per epoch, equal in every process."""
        count = len(self.dataset)
        if self.shuffle:
            # Each process gets at least one image.
            return max(1, min(-(-count // (self.batch_size * self.processes)), count // self.processes))
        return -(-count // (self.batch_size * self.processes))

    def __len__(self) -> int:
        """Number of batches that the next pass yields."""
        return self.steps - self.first_step

    def sizes(self) -> list[int]:
        """Number of images of each step of an epoch, all processes together."""
        return [len(part) for part in np.array_split(np.arange(len(self.dataset)), self.steps)]

    def batches(self) -> list[np.ndarray]:
        """Indices of each batch of this epoch, for this process; every image is in one of the processes.

        Batches of a shuffled pass are equally large, to within one, so that none has only an image or two, over which
        batch norm would compute useless statistics. A plain pass is padded with PADDING until every
        process has as many images.
        """
        if self.shuffle:
            return [part[self.rank :: self.processes] for part in np.array_split(self._order(), self.steps)]
        order = np.arange(len(self.dataset))
        order = np.append(order, np.full(-len(order) % self.processes, PADDING))[self.rank :: self.processes]
        return np.split(order, range(self.batch_size, len(order), self.batch_size))

    def _order(self) -> np.ndarray:
        generator = np.random.default_rng((self.dataset.seed, ORDER_STREAM, self.epoch))
        if not self.balanced:
            return generator.permutation(len(self.dataset))
        classes = generator.permutation(np.unique(self.dataset.labels))
        shares = [len(part) for part in np.array_split(np.arange(len(self.dataset)), len(classes))]
        drawn = []
        for label, share in zip(classes, shares, strict=True):
            members = np.flatnonzero(self.dataset.labels == label)
            # Every image of a class once before one is repeated.
            rounds = [generator.permutation(members) for _ in range(-(-share // len(members)))]
            drawn.append(np.concatenate(rounds)[:share])
        return generator.permutation(np.concatenate(drawn))

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        self.dataset.epoch = self.epoch
        read = self._read_in_processes if self.num_workers else self._read_ahead
        yield from read(list(enumerate(self.batches()))[self.first_step :])

    def collate(self, step: int, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Loads one batch; `step` counts from 0 in the epoch."""
        images, labels = self.dataset.batch(batch)
        if self.mix is None:
            return images, labels
        generator = np.random.default_rng((self.dataset.seed, MIX_STREAM, self.epoch, step, self.rank))
        return self.mix(images, labels, generator=generator)

    def _read_ahead(self, batches: list[tuple[int, np.ndarray]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        # One thread prepares the next batches while the network works on this one; Pillow releases the GIL.
        with ThreadPoolExecutor(1) as pool:
            waiting: deque[Future] = deque()
            for step, batch in batches:
                waiting.append(pool.submit(self.collate, step, batch))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _read_in_processes(self, batches: list[tuple[int, np.ndarray]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        loader = paddle.io.DataLoader(
            _Batches(self, batches),
            batch_size=None,
            num_workers=min(self.num_workers, max(1, len(batches))),
            use_shared_memory=workers.shared_memory_is_large(),
            return_list=True,
        )
        for images, labels, error in loader if batches else ():
            text = bytes(error.numpy())
            if text != NO_ERROR:
                raise UserError(text.decode())
            yield images.numpy(), labels.numpy()


class _Batches(paddle.io.Dataset):
    """Batches as items, for worker processes; an error is sent as text because paddle would hide it."""

    def __init__(self, loader: BatchLoader, batches: list[tuple[int, np.ndarray]]):
        super().__init__()
        self.loader, self.indices = loader, batches

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        try:
            return *self.loader.collate(*self.indices[index]), np.frombuffer(NO_ERROR, np.uint8)
        except UserError as error:
            return np.zeros(1, np.uint8), np.zeros(1, np.int64), np.frombuffer(str(error).encode(), np.uint8)
