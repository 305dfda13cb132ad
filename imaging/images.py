"""The one door through which image files become pixels: every command reads images here.

It never imports paddle, so checking a folder starts at once.
"""

import functools
import io
import os
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from system.errors import UserError

# Our own limit replaces Pillow's, which warns at one size and raises at another.
Image.MAX_IMAGE_PIXELS = None
# What its decoders warn of (odd EXIF, palette with bytes) changes no pixel; what breaks pixels raises. Set once:
# images are read in threads, where warnings.catch_warnings would undo other filters.
warnings.filterwarnings("ignore", module=r"PIL\.")

LFS_POINTER = b"version https://git-lfs"

# How files of common formats begin: Pillow tries one reader instead of forty, and a broken image is told from a text.
SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"\0\0\1\0", "ICO"),
    (b"8BPS", "PSD"),
)
# Images and documents that people do put into image folders and that Pillow does not read.
FOREIGN = (
    (b"%!PS", "EPS"),
    (b"%PDF", "PDF"),
    (b"<svg", "SVG"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
)
AVIF_BRANDS = (b"avif", b"avis")
HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1")


@functools.cache
def suffixes() -> dict[str, str]:
    """Maps the file name suffixes of images to the formats they announce; it loads all of Pillow's readers."""
    return {**Image.registered_extensions(), ".mpo": "MPO"}


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    # Pillow hands EPS to Ghostscript, another program that runs what the file says; an image must not do that.
    return tuple(sorted(set(Image.OPEN) - {"EPS"}))


class ImageError(UserError):
    """A file that does not become an image.

    Attributes:
        reason: Its code, one of those that `rejects.tsv` lists.
        detail: What is wrong and what to do.
        image: The image as far as it was opened (format, mode, size), or None.
    """

    def __init__(self, where: str, reason: str, detail: str, image: Image.Image | None = None):
        super().__init__(f"{where}: {detail}")
        self.reason = reason
        self.detail = detail
        self.image = image


def sniff(data: bytes) -> str:
    """Names the format that a file's first bytes announce; "" where they announce none."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp" and data[8:12] in AVIF_BRANDS:
        return "AVIF"
    return next((name for start, name in SIGNATURES if data.startswith(start)), "")


def _foreign(data: bytes) -> str:
    if data[4:8] == b"ftyp" and data[8:12] in HEIF_BRANDS:
        return "HEIC"
    text = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"<?xml") and b"<svg" in data[:2048]:
        return "SVG"
    return next((name for start, name in FOREIGN if text.startswith(start)), "")


def read_file(source: str | os.PathLike, where: str | None = None) -> bytes:
    """Reads an image file's bytes.

    Raises:
        ImageError: The file is missing, may not be read, is larger than the memory, or the disk fails.
    """
    where = where or os.fsdecode(source)
    try:
        with open(source, "rb", buffering=0) as file:
            return file.read()
    except MemoryError:
        raise ImageError(where, "too_much_memory", "the file is larger than the memory; take it out") from None
    except OSError as error:
        reason = {FileNotFoundError: "missing", PermissionError: "no_permission"}.get(type(error), "unreadable")
        raise ImageError(where, reason, f"cannot be read ({error.strerror}); check the path and its rights") from None


def open_image(
    source: str | os.PathLike | bytes, max_pixels: int, name: str | None = None, least: int | None = None
) -> Image.Image:
    """Opens an image and decodes it fully, as it is stored (first frame, own mode, not yet turned).

    Args:
        source: Path of the file, or its bytes.
        max_pixels: Largest width x height that is decoded.
        name: What errors call the image; its path when left out.
        least: Lets a JPEG come out at 1/2, 1/4 or 1/8 of its size, no side below this; info["stored_size"] is its own.
            Its whole stream is decoded all the same, so that the same files are broken: only the arithmetic that
            turns frequencies into pixels, which cannot fail, is shortened.

    Raises:
        ImageError: The file cannot be read, is no image, is broken, or has more than max_pixels.
    """
    where = name or (os.fsdecode(source) if not isinstance(source, bytes) else "image")
    data = source if isinstance(source, bytes) else read_file(source, where)
    if not data:
        raise ImageError(where, "empty", "the file is empty; copy it anew")
    if data.startswith(LFS_POINTER):
        raise ImageError(where, "lfs_pointer", "this is a Git LFS pointer, not the image; run `git lfs pull`")
    return _decode(data, max_pixels, where, least)


def _decode(data: bytes, max_pixels: int, where: str, least: int | None) -> Image.Image:
    image = None
    try:
        image = _identify(data)
        size = image.size
        if size[0] * size[1] <= max_pixels:
            if least and image.format == "JPEG" and min(size) >= 2 * least:
                image.info["stored_size"] = size
                image.draft(None, (least, least))
            return _load(image)
    except UnidentifiedImageError:
        raise ImageError(where, *_unidentified(data)) from None
    except MemoryError:
        detail = "decoding it needs more memory than there is; shrink it"
        raise ImageError(where, "too_much_memory", detail, image) from None
    # Decoders raise whatever a broken file makes them stumble over: OSError, SyntaxError, ValueError, struct.error ...
    except Exception as error:
        reason = "truncated" if "truncated" in str(error).lower() or _ends_early(data) else "corrupt"
        raise ImageError(where, reason, f"the image is broken ({error}); copy it anew", image) from None
    raise ImageError(where, "too_large", too_large(image.width, image.height), image)


def _ends_early(data: bytes) -> bool:
    """Tells a WebP that is shorter than it says; its decoder only says that it cannot begin."""
    return sniff(data) == "WEBP" and int.from_bytes(data[4:8], "little") + 8 > len(data)


def _load(image: Image.Image) -> Image.Image:
    """Decodes fully; a PNG that goes on after a broken chunk keeps what was decoded and is marked as damaged.

    Pillow refuses such a file when it is asked first and hands it out when it is asked again: data that ends too early,
    or that does not decompress, it refuses both times. Viewers show the image, so it stays one, with a remark.
    """
    try:
        image.load()
    except OSError:
        if image.format != "PNG":
            raise
        image.load()
        image.info["damaged"] = True
    return image


def too_large(width: int, height: int) -> str:
    """Says what lets an image of this size in."""
    return f"{width}x{height} is {width * height} pixels; set max_pixels={width * height} to let it in"


def _identify(data: bytes) -> Image.Image:
    announced = sniff(data)
    if announced:
        try:
            return Image.open(io.BytesIO(data), formats=(announced,))
        except UnidentifiedImageError:
            pass
    return Image.open(io.BytesIO(data), formats=_formats())


def _unidentified(data: bytes) -> tuple[str, str]:
    foreign, announced = _foreign(data), sniff(data)
    if foreign:
        return "unsupported_format", f"Pillow does not read {foreign}; save it as JPEG or PNG"
    if announced:
        return "corrupt", f"the file begins like {announced}, but its header is broken; copy it anew"
    return "not_a_picture", "no image format that Pillow knows; take it out"


def upright(image: Image.Image) -> Image.Image:
    """Turns an image as its EXIF orientation says; a broken EXIF block leaves it as it is."""
    try:
        return ImageOps.exif_transpose(image)
    # Pillow's EXIF reader raises many types (struct.error, TypeError, ValueError ...); the pixels are fine.
    except Exception:
        return image


def to_rgb(image: Image.Image) -> Image.Image:
    """Turns a decoded image upright (EXIF) and into 8-bit RGB: transparency over white, 16 bits scaled down."""
    image = upright(image)
    if image.mode.startswith("I"):
        # Pillow clips 16-bit greys at 255 where a viewer would scale them.
        image = Image.fromarray((np.asarray(image).astype(np.float64) / 257).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def read_image(source: str | os.PathLike | bytes, max_pixels: int, name: str | None = None) -> Image.Image:
    """Reads an image as every command sees it: decoded, upright, RGB.

    Args:
        source: Path of the file, or its bytes.
        max_pixels: Largest width x height that is decoded.
        name: What errors call the image; its path when left out.

    Returns:
        An RGB image, 8 bits a channel.

    Raises:
        ImageError: The file cannot be read, is no image, is broken, or has more than max_pixels.
    """
    return to_rgb(open_image(source, max_pixels, name))
