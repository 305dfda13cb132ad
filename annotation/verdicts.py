"""What is known of one image file: the worker processes run this code, and only they decode."""

import hashlib
import io
import os
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageFile

from imaging.images import ImageError, open_image, read_file, read_image, suffixes, to_rgb, upright

HASHED = 32  # side of the grey image that is hashed
KEPT_FREQUENCIES = 8  # lowest frequencies a side that make the hash: 8 x 8 = 64 bits
MARK = 4  # side of the tiny colour image kept beside the hash
LEAST_SIDE = 64  # of an image that is about to be shrunk to HASHED or COMPARED
COMPARED = 32  # side at which two images are laid over each other
ANIMATED_FORMATS = frozenset({"GIF", "WEBP", "PNG", "TIFF", "AVIF"})
# One file format under several names: a camera's MPO is a JPEG with a second image behind the first.
FAMILIES = {"MPO": "JPEG", "DIB": "BMP"}

# Why an image that is not stored as RGB is left out under non_rgb=skip, by Pillow's mode.
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
    """What decoding a file told.

    Attributes:
        reason: Code of what keeps the file out whatever the settings; "" for none.
        non_rgb: Code of what keeps it out under non_rgb=skip; "" for an image stored as RGB.
        remarks: Codes of what is worth knowing about a readable image, joined by commas.
        digest: SHA-1 of the file's bytes.
        phash: Perceptual hash, a signed 64-bit integer, of the upright image.
        contrast: Standard deviation of the hashed grey image, 0 to 127.
        mark: MARK x MARK x 3 bytes, the upright image in miniature.
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
    mark: bytes = b""


def judge(paths: list[bytes], max_pixels: int) -> list[Verdict]:
    """Decodes every file fully and says what it is; hashes are computed for all of them at once."""
    judged = [_look(path, max_pixels) for path in paths]
    imaged = [(verdict, small) for verdict, small in judged if small]
    if imaged:
        # On one sheet: on an image of 32 px every call costs more than its work.
        sheet = Image.new("RGB", (HASHED, HASHED * len(imaged)))
        for place, (_, small) in enumerate(imaged):
            sheet.paste(small, (0, HASHED * place))
        greys = np.asarray(sheet.convert("L")).reshape(-1, HASHED, HASHED)
        hashes, contrasts = perceptual_hashes(greys).tolist(), _contrasts(greys).tolist()
        marks = np.asarray(sheet.reduce(HASHED // MARK)).reshape(len(imaged), -1)
        for place, (verdict, _) in enumerate(imaged):
            verdict.phash, verdict.contrast, verdict.mark = hashes[place], contrasts[place], marks[place].tobytes()
    return [verdict for verdict, _ in judged]


def _contrasts(greys: np.ndarray) -> np.ndarray:
    flat = greys.reshape(len(greys), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    return np.sqrt(np.einsum("ij,ij->i", flat, flat) / flat.shape[1]).astype(int)


def _look(path: bytes, max_pixels: int) -> tuple[Verdict, Image.Image | None]:
    """Judges one file; returns its image at HASHED x HASHED as well, None where it has none."""
    try:
        data = read_file(path)
        # SHA-1 is the fastest that processors have an instruction for; it guards against chance, not against forgers.
        digest = hashlib.sha1(data, usedforsecurity=False).digest()
        image = open_image(data, max_pixels, "", LEAST_SIDE)
        verdict = Verdict("", "", image.format, image.mode, *_stored_size(image), digest=digest)
        verdict.non_rgb = "" if image.mode == "RGB" else NON_RGB.get(image.mode, "other_mode")
        small = shrink(image)
        if small.size != (HASHED, HASHED):
            small = small.resize((HASHED, HASHED), Image.Resampling.LANCZOS, reducing_gap=1.0)
        verdict.remarks = ",".join(_remarks(path, image))
        return verdict, small
    except ImageError as error:
        image = error.image
        known = (image.format or "", image.mode, *_stored_size(image)) if image else ()
        return Verdict(error.reason, error.detail, *known), None
    except MemoryError:
        return Verdict("too_much_memory", "decoding it needs more memory than there is; shrink it"), None


def _stored_size(image: Image.Image) -> tuple[int, int]:
    return image.info.get("stored_size", image.size)


def shrink(image: Image.Image, least: int = LEAST_SIDE) -> Image.Image:
    """Makes an upright RGB image whose short side is at least `least` px where the image has as many."""
    if image.mode not in ("RGB", "L"):
        image = to_rgb(image)
    factor = min(image.size) // least
    small = image.reduce(factor) if factor > 1 else image
    # reduce() drops the EXIF block that says how to turn the image.
    if "exif" in image.info:
        small.info["exif"] = image.info["exif"]
    small = upright(small) if "exif" in small.info else small
    return to_rgb(small) if small.mode != "RGB" else small


def _remarks(path: bytes, image: Image.Image) -> list[str]:
    remarks = ["damaged"] if "damaged" in image.info else []
    if "exif" in image.info and upright_orientation(image) != 1:
        remarks.append("exif_rotated")
    suffix = os.path.splitext(os.fsdecode(path))[1].lower()
    family = FAMILIES.get(image.format, image.format)
    announced = announced_format(suffix)
    if FAMILIES.get(announced, announced) != family:
        remarks.append("wrong_suffix")
    # Asked last: looking for a second frame moves the reader on.
    if image.format in ANIMATED_FORMATS and _animated(image):
        remarks.append("animation")
    return remarks


@cache
def announced_format(suffix: str) -> str | None:
    """Names the format that a file name suffix announces; the common ones without loading all of Pillow's readers."""
    Image.preinit()
    return Image.EXTENSION.get(suffix) or suffixes().get(suffix)


def upright_orientation(image: Image.Image) -> int:
    """Reads the EXIF orientation, 1 (upright) to 8; 1 where the block is broken."""
    try:
        return image.getexif().get(0x0112, 1)
    # Pillow's EXIF reader raises many types on a broken block; such an image is taken as it lies.
    except Exception:
        return 1


def _animated(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    # A broken second frame does not matter: the first one counts.
    except Exception:
        return False


@cache
def _cosines() -> np.ndarray:
    """Rows of the DCT-II that the hash keeps, float64 [KEPT_FREQUENCIES, HASHED]."""
    frequency, place = np.arange(KEPT_FREQUENCIES)[:, None], np.arange(HASHED)[None, :]
    return 2 * np.cos(np.pi * frequency * (2 * place + 1) / (2 * HASHED))


def perceptual_hashes(greys: np.ndarray) -> np.ndarray:
    """Hashes images by their lowest frequencies, bit for bit as `imagehash.phash` does, but a batch at once.

    One image takes imagehash longer than decoding a small JPEG does; a batch costs next to nothing.

    Args:
        greys: [N, HASHED, HASHED], 0 to 255.

    Returns:
        int64 [N]; the number of bits that differ tells how unlike two images are.

    Source: imagehash.phash of the ImageHash package (DCT of a 32 x 32 image, 8 x 8 lowest frequencies, median).
    """
    rows = greys.reshape(-1, HASHED).astype(np.float64) @ _cosines().T
    low = (_cosines() @ rows.reshape(len(greys), HASHED, -1)).reshape(len(greys), -1)
    middle = low.shape[1] // 2
    medians = np.sort(low, axis=1)[:, middle - 1 : middle + 1].mean(axis=1, keepdims=True)
    bits = low > medians
    return np.packbits(bits, axis=1).view(">i8").astype(np.int64).ravel()


def pixel_digests(paths: list[bytes], max_pixels: int) -> list[bytes]:
    """Digests the pixels that training would see; b"" where the file cannot be read any more."""
    return [_pixel_digest(path, max_pixels) for path in paths]


def _pixel_digest(path: bytes, max_pixels: int) -> bytes:
    try:
        image = read_image(os.fsdecode(path), max_pixels)
    except (ImageError, MemoryError):
        return b""
    return hashlib.sha1(repr(image.size).encode() + image.tobytes(), usedforsecurity=False).digest()


def differences(pairs: list[tuple[bytes, bytes]], max_pixels: int) -> list[float]:
    """Says how unlike the images of each pair are when laid over each other, 0 (the same) to 1 or more."""
    return [_difference(first, second, max_pixels) for first, second in pairs]


def _difference(first: bytes, second: bytes, max_pixels: int) -> float:
    try:
        pair = [shrink(open_image(os.fsdecode(path), max_pixels, least=LEAST_SIDE)) for path in (first, second)]
    except (ImageError, MemoryError):
        return 9.0
    return overlay_difference(*pair)


# Windows on an image, as shares of its sides (left, top, right, bottom), that a slightly cropped copy may show.
WINDOWS = [(0.0, 0.0, 1.0, 1.0)] + [
    (x * cut, y * cut, 1 - (1 - x) * cut, 1 - (1 - y) * cut)
    for cut in (0.05, 0.1, 0.15)
    for x in (0.0, 0.5, 1.0)
    for y in (0.0, 0.5, 1.0)
]


def _views(image: Image.Image) -> np.ndarray:
    size = (COMPARED, COMPARED)
    boxes = [(a * image.width, b * image.height, c * image.width, d * image.height) for a, b, c, d in WINDOWS]
    views = b"".join(image.resize(size, Image.Resampling.BILINEAR, box=box).tobytes() for box in boxes)
    return np.frombuffer(views, np.uint8).reshape(len(WINDOWS), -1).astype(np.float64)


def overlay_difference(first: Image.Image, second: Image.Image) -> float:
    """Lays each image over windows of the other and measures the best fit.

    Returns:
        1 - r, where r is the correlation of all pixels and channels, brightness and contrast taken out.
    """
    one, two = _views(first), _views(second)
    return float(1 - max(_correlations(one[0], two).max(), _correlations(two[0], one).max()))


def _correlations(view: np.ndarray, others: np.ndarray) -> np.ndarray:
    # A mean for each channel: under one mean, two blue skies would correlate whatever flies there. With the means taken
    # out of one side, those of the others fall out of the products; only their lengths need them.
    means = view.reshape(-1, 3).mean(axis=0)
    view = (view.reshape(-1, 3) - means).ravel()
    squares = np.einsum("ij,ij->i", others, others) - ((others @ _channels()) ** 2).sum(axis=1) / COMPARED**2
    return others @ view / np.maximum(np.sqrt(np.maximum(squares, 0) * (view @ view)), 1e-9)


@cache
def _channels() -> np.ndarray:
    """Sums each channel of flat pixels, float64 [COMPARED * COMPARED * 3, 3]."""
    return np.tile(np.eye(3), (COMPARED**2, 1))


def thumbnails(paths: list[bytes], max_pixels: int, side: int) -> list[bytes]:
    """Makes small JPEGs of images; b"" of what cannot be decoded."""
    return [_thumbnail(path, max_pixels, side) for path in paths]


def _thumbnail(path: bytes, max_pixels: int, side: int) -> bytes:
    try:
        image = shrink(_as_far_as_it_goes(path, max_pixels, side), side)
    # A broken image may break anything here; it then has no thumbnail, as its verdict has said already.
    except Exception:
        return b""
    image.thumbnail((side, side))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return file.getvalue()


def _as_far_as_it_goes(path: bytes, max_pixels: int, least: int) -> Image.Image:
    """Opens an image; of a broken one, what can still be seen."""
    try:
        return open_image(os.fsdecode(path), max_pixels, least=least)
    except ImageError as error:
        if error.image is None or error.reason not in ("truncated", "corrupt"):
            raise
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        return open_image(os.fsdecode(path), max_pixels, least=least)
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
