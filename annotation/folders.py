"""Folders of the data folder: which hold splits, which an archive made, and which are left out."""

import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from annotation.lists import SPLITS
from imaging.folders import is_skipped
from system.errors import UserError

# Names of split folders, in any case.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation", "dev", "eval"),
    "test": ("test", "testing", "holdout"),
}
WHOLE = "all"  # the split of a data folder that has class folders only
HIDDEN = "hidden or created by an operating system; rename it to use it"
# First bytes of images whose names have no suffix. Loading a decoder would slow down re-runs.
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*", b"BM", b"RIFF")
MAX_UNPACKED = 8
# Of folders that are left out, these suffixes alone show that there are images; annotate itself reads every file.
SUFFIXES = tuple(
    ".jpg .jpeg .jpe .jfif .png .gif .bmp .dib .tif .tiff .webp .avif .heic .heif .jp2 .j2k .jxl "
    ".ppm .pgm .pbm .pnm .tga .ico .mpo .psd .svg .pcx .dds .exr .hdr".split()
)


def split_of(name: str) -> str | None:
    """Returns the split that a folder's name stands for, in any case; None if it stands for none."""
    return next((split for split, names in SPLIT_NAMES.items() if name.lower() in names), None)


def all_folders_in(folder: Path) -> list[str]:
    """Lists the folders in a folder, hidden ones too.

    Raises:
        UserError: It cannot be read.
    """
    try:
        with os.scandir(folder) as found:
            return [entry.name for entry in found if entry.is_dir()]
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}); check the folder's rights") from None


def folders_in(folder: Path) -> list[str]:
    """Lists the folders in a folder that may hold images."""
    return [name for name in all_folders_in(folder) if not is_skipped(name)]


def is_image(path: str, name: str) -> bool:
    """Guesses whether a file is an image, from the suffix, or from the first bytes of a file without one."""
    if is_skipped(name) or not os.path.isfile(path):
        return False
    if "." in name:
        return name.lower().endswith(SUFFIXES)
    try:
        with open(path, "rb") as file:
            return file.read(4).startswith(SIGNATURES)
    except OSError:
        return False


def holds_images(folder: Path, below: bool = True) -> bool:
    """Returns True if there is an image in a folder, or in one of its subfolders."""
    for parent, folders, files in os.walk(folder):
        if any(is_image(os.path.join(parent, name), name) for name in files):
            return True
        if not below:
            folders.clear()
    return False


def unpacked(data_dir: Path, labels: Iterable[str]) -> str:
    """Returns the folder of the splits or classes, relative to data_dir: below folders that only an archive made.

    Args:
        labels: Classes of an existing label map, which are never taken for such a folder.
    """
    folder = ""
    # Links may form a circle.
    for _ in range(MAX_UNPACKED):
        names = folders_in(data_dir / folder)
        if any(map(split_of, names)):
            return folder
        filled = [*itertools.islice((name for name in names if holds_images(data_dir / folder / name)), 2)]
        if len(filled) > 1:
            return folder
        if not filled or filled[0] in labels or holds_images(data_dir / folder, below=False):
            break
        inner = os.path.join(folder, filled[0])
        has_splits = any(map(split_of, folders_in(data_dir / inner)))
        # Images of its own make it a class; an empty class may lie beside it.
        if holds_images(data_dir / inner, below=False) or (len(names) > 1 and not has_splits):
            break
        folder = inner
    return ""


def split_folders(data_dir: Path, root: str) -> dict[str, str]:
    """Finds the folder of each split; WHOLE stands for all where there are class folders only.

    Raises:
        UserError: There are two of one split, or none of train.
    """
    inside = set(folders_in(data_dir / root))
    found = {
        split: sorted((name for name in inside if split_of(name) == split), key=_place_in(SPLIT_NAMES[split]))
        for split in SPLITS
    }
    known = {name for names in found.values() for name in names}
    # A class may be called "train" (bus, plane, train): that folder has no folders in it, and others beside it.
    if not known or (inside - known and not any(folders_in(data_dir / root / name) for name in known)):
        return {WHOLE: root}
    double = [names for names in found.values() if len(names) > 1]
    if double:
        raise UserError(f"{data_dir / root}: {' and '.join(double[0])} are the same split; keep one of them")
    if not found["train"]:
        raise UserError(f"{data_dir / root}: {', '.join(sorted(known))} but no train folder; name one train/")
    return {split: _same_below(data_dir, os.path.join(root, names[0])) for split, names in found.items() if names}


def _place_in(names: Sequence[str]) -> Callable[[str], tuple[int, str]]:
    return lambda name: (names.index(name.lower()), name)


def _same_below(data_dir: Path, folder: str) -> str:
    """Returns train/train for an archive train.zip that was unpacked into a folder train."""
    names = folders_in(data_dir / folder)
    if len(names) == 1 and split_of(names[0]) == split_of(os.path.basename(folder)):
        inner = os.path.join(folder, names[0])
        if folders_in(data_dir / inner):
            return inner
    return folder


def left_out(data_dir: Path, root: str, folders: dict[str, str]) -> dict[str, str]:
    """Finds the folders that hold images but are in no split: hidden ones, and those beside the split folders."""
    used = {"", root, *folders.values(), *map(os.path.dirname, folders.values())}
    # An archive may have made several, one in the other.
    used |= {str(above) for folder in used for above in Path(folder).parents if str(above) != "."}
    candidates: dict[str, str] = {}
    for folder in sorted(used):
        names = all_folders_in(data_dir / folder)
        candidates |= {os.path.join(folder, name): HIDDEN for name in names if is_skipped(name)}
        if folder not in folders.values():
            beside = (os.path.join(folder, name) for name in names if not is_skipped(name))
            reason = "no split has this name; name it train, valid or test, or move its images into one"
            candidates |= {path: reason for path in beside if not _is_above(path, used)}
    found = {path: reason for path, reason in candidates.items() if holds_images(data_dir / path)}
    for folder in sorted(used - set(folders.values())):
        if holds_images(data_dir / folder, below=False):
            found[folder or "."] = "images beside the folders of splits or classes; move each into its class"
    return found


def _is_above(path: str, used: Iterable[str]) -> bool:
    return any(folder == path or folder.startswith(path + os.sep) for folder in used)
