"""Image decoding: the only reader of image files."""

import functools
import io
import os
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from system.errors import UserError

# max_pixels replaces Pillow's limits, which warn at one size and raise at another.
Image.MAX_IMAGE_PIXELS = None
# Warnings of its decoders (odd EXIF, palette with bytes) concern no pixel; what breaks pixels raises. Set once: images
# are read in threads, where warnings.catch_warnings would undo other filters.
warnings.filterwarnings("ignore", module=r"PIL\.")

LFS_POINTER = b"version https://git-lfs"

# First bytes of common formats: Pillow tries one reader instead of forty, and a broken image is not taken for text.
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
# Formats found in image folders that Pillow does not read.
UNSUPPORTED = (
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
    """Maps file name suffixes of images to formats; loads all of Pillow's readers."""
    return {**Image.registered_extensions(), ".mpo": "MPO"}


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    # Pillow hands EPS to Ghostscript, which runs the file as a program.
    return tuple(sorted(set(Image.OPEN) - {"EPS"}))


class ImageError(UserError):
    """A file that cannot be decoded as an image.

    Attributes:
        reason: Its code, one of those that `rejects.tsv` lists.
        detail: What is wrong and what to do.
        image: The image as far as it was opened (format, mode, size); None if it was not.
    """

    def __init__(self, where: str, reason: str, detail: str, image: Image.Image | None = None):
        super().__init__(f"{where}: {detail}")
        self.reason = reason
        self.detail = detail
        self.image = image


def sniff(data: bytes) -> str:
    """Returns the format that a file's first bytes announce, "" for none."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp" and data[8:12] in AVIF_BRANDS:
        return "AVIF"
    return next((name for start, name in SIGNATURES if data.startswith(start)), "")


def _unsupported(data: bytes) -> str:
    if data[4:8] == b"ftyp" and data[8:12] in HEIF_BRANDS:
        return "HEIC"
    text = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"<?xml") and b"<svg" in data[:2048]:
        return "SVG"
    return next((name for start, name in UNSUPPORTED if text.startswith(start)), "")


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
    """Opens an image and decodes it fully, as stored: first frame, own mode, EXIF orientation not applied.

    Args:
        source: Path of the file, or its bytes.
        max_pixels: Largest width x height that is decoded.
        name: Name of the image in errors; its path by default.
        least: Allows a JPEG to be decoded at 1/2, 1/4 or 1/8 of its size, with no side below this; info["stored_size"]
            is its full size. The whole stream is decoded all the same, so that the same files are refused: only the
            inverse DCT, which cannot fail, is shortened.

    Raises:
        ImageError: The file cannot be read, is no image, is broken, or has more than max_pixels.
    """
    where = name or (os.fsdecode(source) if not isinstance(source, bytes) else "image")
    data = source if isinstance(source, bytes) else read_file(source, where)
    if not data:
        raise ImageError(where, "empty", "the file is empty; copy it again")
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
        raise ImageError(where, reason, f"the image is broken ({error}); copy it again", image) from None
    raise ImageError(where, "too_large", too_large(image.width, image.height), image)


def _ends_early(data: bytes) -> bool:
    """Whether a WebP file is shorter than its header says; its decoder does not report that as truncated."""
    return sniff(data) == "WEBP" and int.from_bytes(data[4:8], "little") + 8 > len(data)


def _load(image: Image.Image) -> Image.Image:
    """Decodes fully; a PNG with a broken chunk keeps what could be decoded and is marked as damaged.

    Pillow raises at the first call of `load` on such a file and succeeds at the second; data that ends too early, or
    does not decompress, raises both times. Image viewers show these files, so they are accepted, with a remark.
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
    """Returns the error text for an image of this size."""
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
    unsupported, announced = _unsupported(data), sniff(data)
    if unsupported:
        return "unsupported_format", f"Pillow does not read {unsupported}; save it as JPEG or PNG"
    if announced:
        return "corrupt", f"the file begins like {announced}, but its header is broken; copy it again"
    return "not_a_picture", "no image format that Pillow knows; take it out"


def upright(image: Image.Image) -> Image.Image:
    """Applies the EXIF orientation; images with a broken EXIF block are returned unchanged."""
    try:
        return ImageOps.exif_transpose(image)
    # Pillow's EXIF reader raises many types (struct.error, TypeError, ValueError ...); the pixels are fine.
    except Exception:
        return image


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts a decoded image to upright 8-bit RGB: EXIF applied, transparency over white, 16 bits scaled."""
    image = upright(image)
    if image.mode.startswith("I"):
        # Pillow clips 16-bit grey at 255; viewers scale it.
        image = Image.fromarray((np.asarray(image).astype(np.float64) / 257).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def read_image(source: str | os.PathLike | bytes, max_pixels: int, name: str | None = None) -> Image.Image:
    """Reads an image as every command does: decoded, upright, RGB.

    Args:
        source: Path of the file, or its bytes.
        max_pixels: Largest width x height that is decoded.
        name: Name of the image in errors; its path by default.

    Returns:
        An RGB image, 8 bits per channel.

    Raises:
        ImageError: The file cannot be read, is no image, is broken, or has more than max_pixels.
    """
    return to_rgb(open_image(source, max_pixels, name))
