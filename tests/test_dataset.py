"""Data sets and batches: every image once per epoch, whatever num_workers is; a broken image raises its own error."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import config
import train
from annotation.lists import read_split
from dataset import BatchLoader, ListDataset
from imaging.images import read_image
from imaging.transforms import EvalTransform, TrainTransform
from system.errors import UserError
from system.workers import choose_workers, shared_memory_is_large

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def loader_for(drawn, settings_for, monkeypatch):
    """Makes a loader over the training images."""
    monkeypatch.chdir(drawn.parent)

    def build(batch_size=4, num_workers=0, shuffle=True, training=True, seed=1) -> BatchLoader:
        settings = settings_for("data")
        samples, _ = read_split(settings, "train")
        transform = (TrainTransform if training else EvalTransform).from_settings(settings)
        return BatchLoader(ListDataset(samples, transform, settings.max_pixels, seed), batch_size, num_workers, shuffle)

    return build


def all_images(loader: BatchLoader) -> np.ndarray:
    return np.concatenate([np.asarray(images) for images, _ in loader])


def test_items_are_the_listed_images(loader_for, settings_for):
    """Guards against labels of another image, and against pixels of a second decoder."""
    dataset = loader_for(training=False).dataset
    transform = EvalTransform.from_settings(settings_for("data"))
    assert len(dataset) == 18
    for index, sample in enumerate(dataset.samples):
        image, label = dataset[index]
        assert image.dtype == np.uint8 and image.shape == (3, 24, 24)
        assert label == sample.label and label.dtype == np.int64
        assert (image == transform(read_image(sample.file, 10**8))).all()


@pytest.mark.parametrize("batch_size", [1, 4, 5, 18, 100])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_image_comes_once_per_epoch(loader_for, batch_size, shuffle):
    """Guards against images dropped with the last batch, or drawn twice."""
    loader = loader_for(batch_size, shuffle=shuffle, training=False)
    whole = loader.dataset.samples
    expected = sorted((loader.dataset[i][0].tobytes(), int(whole[i].label)) for i in range(len(whole)))
    for epoch in range(2):
        loader.epoch = epoch
        batches = list(loader)
        assert len(batches) == len(loader)
        assert all(1 <= len(labels) <= batch_size for _, labels in batches)
        seen = [
            (image.tobytes(), int(label))
            for images, labels in batches
            for image, label in zip(images, labels, strict=True)
        ]
        assert sorted(seen) == expected


def test_an_unshuffled_pass_keeps_the_order_of_the_list(loader_for):
    """Guards against predictions written beside other images of the list."""
    loader = loader_for(5, shuffle=False, training=False)
    labels = np.concatenate([labels for _, labels in loader])
    assert labels.tolist() == [sample.label for sample in loader.dataset.samples]


def test_order_and_augmentation_change_from_epoch_to_epoch_and_with_the_seed(loader_for):
    """Guards against a training that sees the same batches in every epoch."""
    loader = loader_for()
    first = all_images(loader)
    loader.epoch = 1
    second = all_images(loader)
    loader.epoch = 0
    assert (all_images(loader) == first).all()
    assert (second != first).any()
    assert (all_images(loader_for(seed=2)) != first).any()

    dataset = loader.dataset
    dataset.epoch = 0
    zero = dataset[3][0]
    dataset.epoch = 1
    assert (dataset[3][0] != zero).any()


def test_augmentation_depends_on_nothing_but_seed_epoch_and_image(loader_for):
    """Guards against images that change with the batch size, the order of reading or the image read before."""
    dataset, again = loader_for().dataset, loader_for().dataset
    forwards = [dataset[i][0] for i in range(6)]
    backwards = [again[i][0] for i in reversed(range(6))][::-1]
    assert all((one == other).all() for one, other in zip(forwards, backwards, strict=True))


@pytest.mark.parametrize("training", [True, False])
def test_worker_processes_change_nothing(loader_for, training):
    """Guards against results that depend on num_workers: seeds of workers, order of batches, shared memory."""
    alone, helped = (list(loader_for(num_workers=workers, training=training, shuffle=training)) for workers in (0, 2))
    assert len(alone) == len(helped)
    for (images, labels), (same_images, same_labels) in zip(alone, helped, strict=True):
        assert (np.asarray(images) == np.asarray(same_images)).all()
        assert (np.asarray(labels) == np.asarray(same_labels)).all()


BROKEN = """
import sys; sys.path.insert(0, sys.argv[1])
import config
from system import machine
from system.errors import UserError
machine.prepare(config.load(None, ["threads=1"]))
import paddle
from dataset import BatchLoader, ListDataset
from annotation.lists import read_split
from imaging.transforms import EvalTransform
settings = config.load(None, sys.argv[3:])
samples, class_names = read_split(settings, "train")
for num_workers in (0, 2):
    dataset = ListDataset(samples, EvalTransform.from_settings(settings), settings.max_pixels)
    network = paddle.nn.Sequential(paddle.nn.Flatten(), paddle.nn.Linear(3 * 24 * 24, 3))
    model = paddle.Model(network)
    model.prepare(loss=paddle.nn.CrossEntropyLoss())
    try:
        if sys.argv[2] == "loop":
            list(BatchLoader(dataset, 2, num_workers))
        else:
            inputs = ((images.astype("float32"), labels) for images, labels in BatchLoader(dataset, 2, num_workers))
            model.evaluate(inputs, verbose=0)
    except UserError as error:
        print(type(error).__name__, error)
"""


@pytest.mark.parametrize("caller", ["loop", "paddle.Model"])
def test_a_broken_image_raises_its_own_error(data, arguments_for, tmp_path, caller):
    """Guards against the loader that hangs for ever when an image is broken, and the one that hides which it was."""
    broken = sorted(Path("data/train/dog").glob("*.jpg"))[2]
    broken.write_bytes(broken.read_bytes()[:400])
    script = tmp_path / "reads.py"
    script.write_text(BROKEN)
    line = [sys.executable, str(script), str(ROOT), caller, *arguments_for("data")]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=180)
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.splitlines()) == 2 and ended.stdout.count(broken.name) == 2, ended.stdout


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import config
from system import cli, machine
machine.prepare(config.load(None, sys.argv[3:]))
import dataset
original = dataset._Batches.__getitem__
def killed(self, index):
    if index == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, index)
dataset._Batches.__getitem__ = killed
import evaluate, train
command = evaluate if sys.argv[2] == "evaluate.py" else train
sys.argv[1:] = ["num_workers=1"] if command is evaluate else sys.argv[3:]
cli.command(command.main)
"""


@pytest.mark.parametrize("command_name", ["train.py", "evaluate.py"])
def test_a_worker_that_is_killed_is_said_in_a_line(data, arguments_for, tmp_path, command_name):
    """Guards against a traceback of paddle's where the system ended a worker for want of memory."""
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    arguments = arguments_for("data", num_workers=1, batch_size=2)
    if command_name == "evaluate.py":
        train.train(config.load(None, arguments_for("data")))
    line = [sys.executable, str(script), str(ROOT), command_name, *arguments]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=180)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr, ended.stderr
    assert "num_workers: a process that reads images has ended" in ended.stderr


def test_a_loader_can_be_left_and_used_again(loader_for):
    """Guards against worker processes or a reading thread that block a second pass after a first was broken off."""
    for workers in (0, 2):
        loader = loader_for(2, num_workers=workers)
        next(iter(loader))
        assert len(list(loader)) == len(loader)


@pytest.mark.effect("num_workers")
def test_num_workers_is_the_setting_or_follows_the_device(settings_for, drawn):
    """Guards against worker processes that fight the network for the CPU, and against none beside a GPU."""
    assert choose_workers(settings_for(drawn, num_workers=3), "cpu") == 3
    assert choose_workers(settings_for(drawn, num_workers="auto"), "cpu") == 0
    assert choose_workers(settings_for(drawn, num_workers="auto"), "gpu:0") >= 1


def test_a_list_is_refused_with_what_is_wrong_in_it(data, settings_for):
    """Guards against rows without a tab, wrong indices and missing files that come up in the middle of a training."""
    settings, file = settings_for("data"), Path("data/train.txt")
    rows = file.read_text().splitlines()
    for row, word in (
        ("data/train/dog/1.jpg 2", "line 19 is not PATH<TAB>INDEX"),
        ("data/train/dog/1.jpg\t3", "line 19 has index '3', not 0 to 2"),
        ("data/train/dog/1.jpg\t-1", "line 19 has index '-1'"),
        ("data/train/dog/1.jpg\tdog", "line 19 has index 'dog'"),
        ("data/train/dog/none.jpg\t2", "data/train/dog/none.jpg is missing"),
    ):
        file.write_text("\n".join([*rows, row]) + "\n")
        with pytest.raises(UserError) as error:
            read_split(settings, "train")
        assert word in str(error.value) and "annotate.py" in str(error.value)


@pytest.mark.effect("max_pixels")
def test_max_pixels_is_read_by_the_loader(data, settings_for):
    """Guards against an image bomb that annotate would leave out, but an older list still names."""
    settings = settings_for("data", max_pixels=100)
    samples, _ = read_split(settings, "train")
    with pytest.raises(UserError, match="pixels"):
        ListDataset(samples, EvalTransform.from_settings(settings), settings.max_pixels)[0]


def test_workers_use_shared_memory_where_there_is_enough(monkeypatch):
    """Guards against workers that are killed in containers, whose /dev/shm holds 64 MB."""
    sizes = SimpleNamespace(f_bavail=1 << 18, f_frsize=1 << 12)
    monkeypatch.setattr(os, "statvfs", lambda folder: sizes, raising=False)
    assert shared_memory_is_large()
    sizes.f_bavail -= 1
    assert not shared_memory_is_large()
    monkeypatch.delattr(os, "statvfs")
    assert not shared_memory_is_large()


def test_a_pass_that_begins_later_is_as_much_shorter(loader_for):
    """Guards against a progress bar, or a fit, that waits for batches which were trained on before."""
    loader = loader_for(4)
    whole = len(loader)
    loader.first_step = 2
    assert len(loader) == whole - 2 == len(list(loader))
