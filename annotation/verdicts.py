"""Verdicts on image files: decoding, hashes, remarks. Runs in the worker processes."""

import hashlib
import os
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from imaging.formats import is_non_srgb_profile, suffixes
from imaging.images import ImageError, open_image, read_file, to_rgb, upright, white_level

# Sides in pixels.
HASHED = 32  # of the greyscale image that is hashed
MINIATURE = 4  # of the colour miniature stored beside the hash
MIN_SIDE = 64  # of an image that will be reduced to HASHED, or compared
FREQUENCIES = 8  # lowest ones in either direction that make the hash: 8 x 8 = 64 bits
ANIMATED_FORMATS = frozenset({"GIF", "WEBP", "PNG", "TIFF", "AVIF"})
# Formats with several names: a camera's MPO is a JPEG with a second image after the first.
FAMILIES = {"MPO": "JPEG", "DIB": "BMP"}

# Pillow's mode -> code of why non_rgb=skip leaves the image out.
NON_RGB = {
    "1": "greyscale",
    "L": "greyscale",
    "P": "palette",
    "LA": "alpha",
    "La": "alpha",
    "PA": "alpha",
    "RGBA": "alpha",
    "RGBa": "alpha",
    "CMYK": "cmyk",
    "I": "sixteen_bit",
    "I;16": "sixteen_bit",
    "I;16B": "sixteen_bit",
    "I;16L": "sixteen_bit",
    "I;16N": "sixteen_bit",
}


@dataclass
class Verdict:
    """Result of decoding a file.

    Attributes:
        reason: Code of why the file cannot be used, whatever the settings; "" if it can.
        detail: The reason in words, and what to do.
        format: Pillow's name of the file format.
        mode: Pillow's mode of the stored image.
        width: In pixels, as stored.
        height: In pixels, as stored.
        non_rgb: Code of why non_rgb=skip leaves it out; "" for an image stored as RGB.
        remarks: Codes of what a user should know about a usable image, joined by commas.
        digest: SHA-1 of the file's bytes.
        phash: Perceptual hash, a signed 64-bit integer, of the upright image.
        contrast: Standard deviation of the hashed greyscale image, 0 to 127.
        miniature: MINIATURE x MINIATURE x 3 bytes, the upright RGB image.
    """

    reason: str = ""
    detail: str = ""
    format: str = ""
    mode: str = ""
    width: int = 0
    height: int = 0
    non_rgb: str = ""
    remarks: str = ""
    digest: bytes = b""
    phash: int = 0
    contrast: int = 0
    miniature: bytes = b""


def verify(paths: list[bytes], max_pixels: int) -> list[Verdict]:
    """Decodes every file fully; hashes are computed for all of them at once."""
    # In one image: for one of 32 px every call costs more than its work. Each is pasted at once, so that the next is
    # decoded into its memory.
    sheet = Image.new("RGB", (HASHED, HASHED * len(paths)))
    verdicts = [_decode(path, max_pixels, sheet, HASHED * place) for place, path in enumerate(paths)]
    greys = np.asarray(sheet.convert("L")).reshape(-1, HASHED, HASHED)
    hashes, contrasts = perceptual_hashes(greys).tolist(), _contrasts(greys).tolist()
    miniatures = np.asarray(sheet.reduce(HASHED // MINIATURE)).reshape(len(paths), -1)
    for verdict, phash, contrast, miniature in zip(verdicts, hashes, contrasts, miniatures, strict=True):
        if not verdict.reason:
            verdict.phash, verdict.contrast, verdict.miniature = phash, contrast, miniature.tobytes()
    return verdicts


def _contrasts(greys: np.ndarray) -> np.ndarray:
    flat = greys.reshape(len(greys), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    return np.sqrt(np.einsum("ij,ij->i", flat, flat) / flat.shape[1]).astype(int)


def _decode(path: bytes, max_pixels: int, sheet: Image.Image, top: int) -> Verdict:
    """Decodes one file; an image is pasted into the sheet at HASHED x HASHED."""
    try:
        data = read_file(os.fsdecode(path))
        # SHA-1 is the fastest hash with processor support; collisions on purpose are of no concern here.
        digest = hashlib.sha1(data, usedforsecurity=False).digest()
        image = open_image(data, max_pixels, "", MIN_SIDE)
        verdict = Verdict("", "", image.format or "", image.mode, *_stored_size(image), digest=digest)
        verdict.non_rgb = "" if image.mode == "RGB" else NON_RGB.get(image.mode, "other_mode")
        small = shrink(image)
        if small.size != (HASHED, HASHED):
            small = small.resize((HASHED, HASHED), Image.Resampling.LANCZOS, reducing_gap=1.0)
        verdict.remarks = ",".join(_remarks(path, image))
        sheet.paste(small, (0, top))
        return verdict
    except ImageError as error:
        verdict = Verdict(error.reason, error.detail)
        if error.image:
            verdict.format, verdict.mode = error.image.format or "", error.image.mode
            verdict.width, verdict.height = _stored_size(error.image)
        return verdict
    except MemoryError:
        return Verdict("too_much_memory", "decoding it needs more memory than there is; shrink it")


def _stored_size(image: Image.Image) -> tuple[int, int]:
    return image.info.get("stored_size", image.size)


def shrink(image: Image.Image, min_side: int = MIN_SIDE) -> Image.Image:
    """Returns an upright RGB image, reduced as far as its short side stays at min_side or above."""
    if image.mode not in ("RGB", "L"):
        image = to_rgb(image)
    factor = min(image.size) // min_side
    small = image.reduce(factor) if factor > 1 else image
    # reduce() drops the EXIF block, which has the orientation.
    if "exif" in image.info:
        small.info["exif"] = image.info["exif"]
    small = upright(small) if "exif" in small.info else small
    return to_rgb(small) if small.mode != "RGB" else small


def _remarks(path: bytes, image: Image.Image) -> list[str]:
    remarks = ["damaged"] if "damaged" in image.info else []
    if image.mode.startswith("I;16") and np.asarray(image).max() < white_level(image) / 4:
        remarks.append("dark")
    if is_non_srgb_profile(image.info.get("icc_profile")):
        remarks.append("color_profile")
    if "exif" in image.info and upright_orientation(image) != 1:
        remarks.append("exif_rotated")
    suffix = os.path.splitext(os.fsdecode(path))[1].lower()
    if _family(announced_format(suffix)) != _family(image.format):
        remarks.append("wrong_suffix")
    # Last, since looking for a second frame moves the reader on.
    if image.format in ANIMATED_FORMATS and _animated(image):
        remarks.append("animation")
    return remarks


def _family(file_format: str | None) -> str | None:
    return FAMILIES.get(file_format, file_format) if file_format else None


@cache
def announced_format(suffix: str) -> str | None:
    """Format of a file name suffix, None if unknown; common ones are found without loading all of Pillow's readers."""
    Image.preinit()
    return Image.EXTENSION.get(suffix) or suffixes().get(suffix)


def upright_orientation(image: Image.Image) -> int:
    """Reads the EXIF orientation, 1 (upright) to 8; 1 where the block is broken."""
    try:
        return image.getexif().get(0x0112, 1)
    # Pillow's EXIF reader raises many types on a broken block; such an image is not rotated.
    except Exception:
        return 1


def _animated(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    # A broken second frame does not matter: only the first one is used.
    except Exception:
        return False


@cache
def cosines(frequencies: int, side: int) -> np.ndarray:
    """Rows of the lowest frequencies of the DCT-II, not normalised, float64 [frequencies, side]."""
    frequency, place = np.arange(frequencies)[:, None], np.arange(side)[None, :]
    return 2 * np.cos(np.pi * frequency * (2 * place + 1) / (2 * side))


def perceptual_hashes(greys: np.ndarray) -> np.ndarray:
    """Hashes images by their lowest frequencies, bit for bit as `imagehash.phash` does, but in a batch.

    imagehash takes longer for one image than decoding a small JPEG; a batch costs next to nothing.

    Args:
        greys: uint8 [N, HASHED, HASHED].

    Returns:
        int64 [N]; the more bits differ, the less similar are two images.

    Source: imagehash.phash of the ImageHash package (DCT of a 32 x 32 image, 8 x 8 lowest frequencies, median).
    """
    waves = cosines(FREQUENCIES, HASHED)
    rows = greys.reshape(-1, HASHED).astype(np.float64) @ waves.T
    low = (waves @ rows.reshape(len(greys), HASHED, -1)).reshape(len(greys), -1)
    middle = low.shape[1] // 2
    medians = np.sort(low, axis=1)[:, middle - 1 : middle + 1].mean(axis=1, keepdims=True)
    bits = low > medians
    return np.packbits(bits, axis=1).view(">i8").astype(np.int64).ravel()
