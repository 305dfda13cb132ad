"""Turns a published archive of CIFAR-10 or CIFAR-100 into class folders for annotate.py.

    python recipes/cifar.py cifar-10-python.tar.gz cifar10
    python recipes/cifar.py cifar-100-python.tar.gz cifar100             # 100 fine classes
    python recipes/cifar.py cifar-100-python.tar.gz cifar20 --coarse     # their 20 superclasses

The archives ("python version") are at https://www.cs.toronto.edu/~kriz/cifar.html. FOLDER then holds train/CLASS/*.png,
test/CLASS/*.png and labels.txt, in the order of the archive's label names; of CIFAR-100 also superclasses.tsv. The name
of each image begins with its fine class.
"""

import argparse
import io
import os
import shutil
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image
from tqdm import tqdm

from annotation.lists import LABELS, name_fault
from system import cli
from system.errors import UserError
from system.files import file_digest
from system.pickles import ArrayUnpickler

# The largest member, CIFAR-100's train, has 148 MiB.
MAX_BYTES = 200 << 20
SHAPE = (3, 32, 32)


@dataclass(frozen=True)
class Archive:
    """What an archive holds.

    Attributes:
        meta: Member with the names of the classes.
        splits: Members with the images of each split.
        kinds: Of labels, fine ones first: key of an image's index, and of the names.
    """

    meta: str
    splits: dict[str, tuple[str, ...]]
    kinds: tuple[tuple[bytes, bytes], ...]


# By SHA-256, as the page's archives have had it ever since (Keras and torchvision check the same files).
PUBLISHED = {
    "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce": Archive(
        "cifar-10-batches-py/batches.meta",
        {
            "train": tuple(f"cifar-10-batches-py/data_batch_{number}" for number in range(1, 6)),
            "test": ("cifar-10-batches-py/test_batch",),
        },
        ((b"labels", b"label_names"),),
    ),
    "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7": Archive(
        "cifar-100-python/meta",
        {"train": ("cifar-100-python/train",), "test": ("cifar-100-python/test",)},
        ((b"fine_labels", b"fine_label_names"), (b"coarse_labels", b"coarse_label_names")),
    ),
}


def main() -> None:
    """Command line of cifar.py."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", metavar="ARCHIVE.tar.gz")
    parser.add_argument("folder", metavar="FOLDER", help="is created")
    parser.add_argument("--coarse", action="store_true", help="CIFAR-100: folders of the 20 superclasses")
    arguments = parser.parse_args()
    counts = convert(arguments.archive, Path(arguments.folder), arguments.coarse)
    print(f"{arguments.folder}: {', '.join(f'{count:,} {split} images' for split, count in counts.items())}")
    print(f"next: python annotate.py data_dir={arguments.folder}, with --config of a recipe for it")


def convert(archive: str | os.PathLike, folder: Path, coarse: bool = False) -> dict[str, int]:
    """Writes the images of an archive into a new folder; nothing is left where that fails.

    Args:
        coarse: Folders of superclasses instead of the fine classes.

    Returns:
        The number of images by split.

    Raises:
        UserError: The archive is not one of those published, or the folder exists or cannot be written.
    """
    if os.path.lexists(folder):
        raise UserError(f"{folder}: exists already; name a new folder")
    try:
        found = PUBLISHED.get(file_digest(Path(archive)))
    except OSError as error:
        raise UserError(f"{archive}: cannot be read ({error.strerror}); check the path") from None
    if found is None:
        raise UserError(
            f"{archive}: its SHA-256 is that of no published archive; download it again, the python version"
        )
    if coarse and len(found.kinds) < 2:
        raise UserError(f"{archive}: CIFAR-10 has no superclasses; leave out --coarse")
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        counts = _write(dict(_members(archive, found)), found, unfinished, int(coarse))
        os.replace(unfinished, folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); free some space, or name another") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return counts


def _members(path: str | os.PathLike, archive: Archive) -> Iterator[tuple[str, dict[bytes, Any]]]:
    """Yields the members that are needed, unpickled: nothing is extracted, and nothing in them is run."""
    wanted = {archive.meta, *(name for names in archive.splits.values() for name in names)}
    with tarfile.open(path, "r:gz") as tar:
        for member in tar:
            file = tar.extractfile(member) if member.name in wanted and member.isreg() else None
            if file is not None:
                if member.size > MAX_BYTES:
                    raise UserError(f"{path}: {member.name} has {member.size:,} bytes; download the archive again")
                yield member.name, ArrayUnpickler(io.BytesIO(file.read()), encoding="bytes").load()


def _write(members: dict[str, dict[bytes, Any]], archive: Archive, folder: Path, kind: int) -> dict[str, int]:
    names = [[name.decode() for name in members[archive.meta][key]] for _, key in archive.kinds]
    if wrong := [name for name in [*names[0], *names[-1]] if name_fault(name) or "/" in name or name.startswith(".")]:
        raise UserError(f"{archive.meta}: {wrong[0]!r} cannot be the name of a folder; download the archive again")
    counts, parents = {}, {}
    for split, files in archive.splits.items():
        for name in names[kind]:
            (folder / split / name).mkdir(parents=True)
        images = np.concatenate([members[file][b"data"].reshape(-1, *SHAPE) for file in files])
        labels = [np.concatenate([members[file][key] for file in files]).tolist() for key, _ in archive.kinds]
        rows = zip(images.transpose(0, 2, 3, 1), *labels, strict=True)
        for number, (pixels, *indices) in enumerate(tqdm(rows, split, len(images), disable=None, leave=False), 1):
            fine, name = names[0][indices[0]], names[kind][indices[kind]]
            Image.fromarray(pixels).save(folder / split / name / f"{fine}-{number:05}.png")
            parents[fine] = names[-1][indices[-1]]
        counts[split] = len(images)
    (folder / LABELS).write_text("".join(f"{name}\n" for name in names[kind]), encoding="utf-8")
    if len(names) > 1:
        table = "".join(f"{fine}\t{parents[fine]}\n" for fine in names[0] if fine in parents)
        (folder / "superclasses.tsv").write_text(table, encoding="utf-8")
    return counts


if __name__ == "__main__":
    cli.command(main)
