"""recipes/cifar.py: archives in the published form become class folders that annotate.py takes."""

import importlib.util
import io
import os
import pickle
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import annotate
import config
from system.files import file_digest

ROOT = Path(__file__).resolve().parent.parent
FINE, COARSE = [b"beaver", b"rose", b"seal"], [b"aquatic_mammals", b"flowers"]


class Stranger:
    """What must not be unpickled."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("made-by-a-pickle",)


@pytest.fixture
def cifar(monkeypatch, tmp_path):
    """The script as a module, in an empty folder."""
    specification = importlib.util.spec_from_file_location("cifar", ROOT / "recipes" / "cifar.py")
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, "cifar", module)
    specification.loader.exec_module(module)
    module.archives = list(module.PUBLISHED.values())
    monkeypatch.chdir(tmp_path)
    return module


def batch(count: int, seed: int, **labels: list[int]) -> dict[bytes, object]:
    images = np.random.default_rng(seed).integers(0, 256, (count, 3072), np.uint8)
    return {b"data": images, **{key.encode(): values for key, values in labels.items()}}


def pack(file: str, members: dict[str, object]) -> None:
    with tarfile.open(file, "w:gz") as tar:
        for name, content in members.items():
            data = pickle.dumps(content, 2)
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


def publish(cifar, monkeypatch, file: str, number: int) -> None:
    """Makes a file one of the published archives."""
    monkeypatch.setattr(cifar, "PUBLISHED", {file_digest(Path(file)): cifar.archives[number]})


def hundred(**train: object) -> dict[str, object]:
    labels = {"fine_labels": [2, 0, 1, 0], "coarse_labels": [0, 0, 1, 0]}
    return {
        "cifar-100-python/file.txt~": b"",
        "cifar-100-python/meta": {b"fine_label_names": FINE, b"coarse_label_names": COARSE},
        "cifar-100-python/train": batch(4, 1, **labels) | train,
        "cifar-100-python/test": batch(2, 2, fine_labels=[1, 2], coarse_labels=[1, 0]),
    }


def test_cifar_10_becomes_class_folders(cifar, call, monkeypatch):
    """Guards against images beside another label, exchanged channels, and classes in another order than published."""
    members = {f"cifar-10-batches-py/data_batch_{n}": batch(3, n, labels=[0, 1, 1]) for n in range(1, 6)}
    members["cifar-10-batches-py/test_batch"] = batch(2, 9, labels=[1, 0])
    pack("ten.tar.gz", members | {"cifar-10-batches-py/batches.meta": {b"label_names": [b"ship", b"cat"]}})
    publish(cifar, monkeypatch, "ten.tar.gz", 0)
    ended = call(cifar, "ten.tar.gz", "ten")
    assert ended.status == 0 and "15 train images, 2 test images" in ended.out, ended
    assert Path("ten/labels.txt").read_text() == "ship\ncat\n"
    pixels = np.asarray(Image.open("ten/train/cat/cat-00005.png"))
    assert (
        pixels == members["cifar-10-batches-py/data_batch_2"][b"data"][1].reshape(3, 32, 32).transpose(1, 2, 0)
    ).all()
    settings = config.load(None, ["data_dir=ten", "scan_workers=1", "valid_fraction=0.2", "duplicates=none"])
    summary, _, _ = annotate.annotate(settings)
    assert {split: summary.total(split) for split in ("train", "valid", "test")} == {"train": 12, "valid": 3, "test": 2}
    call(cifar, "ten.tar.gz", "ten").refused("ten: exists already")
    call(cifar, "ten.tar.gz", "other", "--coarse").refused("CIFAR-10 has no superclasses")


def test_cifar_100_has_fine_and_coarse_classes(cifar, call, monkeypatch):
    """Guards against superclasses that are another class's."""
    pack("hundred.tar.gz", hundred())
    publish(cifar, monkeypatch, "hundred.tar.gz", 1)
    assert call(cifar, "hundred.tar.gz", "fine").status == 0
    files = {str(path.relative_to("fine")) for path in Path("fine").rglob("*.png")}
    assert files == {
        *("train/seal/seal-00001.png", "train/beaver/beaver-00002.png", "train/rose/rose-00003.png"),
        *("train/beaver/beaver-00004.png", "test/rose/rose-00001.png", "test/seal/seal-00002.png"),
    }
    assert Path("fine/superclasses.tsv").read_text() == (
        "beaver\taquatic_mammals\nrose\tflowers\nseal\taquatic_mammals\n"
    )
    assert call(cifar, "hundred.tar.gz", "coarse", "--coarse").status == 0
    assert sorted(os.listdir("coarse/train/aquatic_mammals")) == [
        *("beaver-00002.png", "beaver-00004.png", "seal-00001.png"),
    ]
    assert Path("coarse/labels.txt").read_text() == "aquatic_mammals\nflowers\n"


def test_what_was_not_published_is_refused(cifar, call, monkeypatch):
    """Guards against archives of strangers: programs in their pickles, and members of any size."""
    pack("strange.tar.gz", hundred(other=Stranger()))
    call(cifar, "strange.tar.gz", "out").refused("its SHA-256 is that of no published archive")
    call(cifar, "missing.tar.gz", "out").refused("missing.tar.gz: cannot be read")
    publish(cifar, monkeypatch, "strange.tar.gz", 1)
    with pytest.raises(pickle.UnpicklingError, match=r"(posix|nt)\.mkdir"):
        cifar.convert("strange.tar.gz", Path("out"))
    pack("large.tar.gz", hundred())
    publish(cifar, monkeypatch, "large.tar.gz", 1)
    monkeypatch.setattr(cifar, "MAX_BYTES", 10**4)
    call(cifar, "large.tar.gz", "out").refused("cifar-100-python/train has")
    assert sorted(os.listdir()) == ["large.tar.gz", "strange.tar.gz"]
