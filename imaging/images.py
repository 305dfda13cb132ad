"""Image decoding: the only reader of image files."""

import io
import math
import os
import stat
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from imaging.formats import ICONS, formats, nested_sizes, sniff, unidentified
from system.errors import UserError

# max_pixels replaces Pillow's limits, which warn at one size and raise at another.
Image.MAX_IMAGE_PIXELS = None
# Warnings of its decoders (odd EXIF, palette with bytes) concern no pixel; what breaks pixels raises. Set once: images
# are read in threads, where warnings.catch_warnings would undo other filters.
warnings.filterwarnings("ignore", module=r"PIL\.")

# TIFF tags that tell which level is white.
BITS_PER_SAMPLE, PHOTOMETRIC, MAX_SAMPLE_VALUE, WHITE_IS_ZERO = 258, 262, 281, 0
# Without O_NONBLOCK a pipe would be waited for.
OPENED = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
LFS_POINTER = b"version https://git-lfs"


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


def read_file(source: str | os.PathLike, where: str | None = None) -> bytes:
    """Reads an image file's bytes.

    Raises:
        ImageError: The file is missing, may not be read, is larger than the memory, or the disk fails.
    """
    where = where or os.fsdecode(source)
    try:
        handle = os.open(source, OPENED)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise ImageError(where, "not_a_file", "this is a folder, a pipe, a socket or a device; name an image")
            return _read_all(handle, status.st_size)
        finally:
            os.close(handle)
    except MemoryError:
        raise ImageError(where, "too_much_memory", "the file is larger than the memory; take it out") from None
    except OSError as error:
        reason = {FileNotFoundError: "missing", PermissionError: "no_permission"}.get(type(error), "unreadable")
        raise ImageError(where, reason, f"cannot be read ({error.strerror}); check the path and its rights") from None


def _read_all(handle: int, size: int) -> bytes:
    data = os.read(handle, size + 1)
    if len(data) == size:
        return data
    # Larger than one call reads, or still growing.
    parts = [data]
    while parts[-1]:
        parts.append(os.read(handle, 1 << 24))
    return b"".join(parts)


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
    if data.startswith(ICONS):
        nested = max(nested_sizes(data), key=math.prod, default=(0, 0))
        if math.prod(nested) > max_pixels:
            raise ImageError(where, "too_large", too_large(*nested))
    with _Decoding(where, data) as decoding:
        decoding.image = image = _identify(data)
        size = image.size
        if size[0] * size[1] > max_pixels:
            raise ImageError(where, "too_large", too_large(*size), image)
        if least and image.format == "JPEG" and min(size) >= 2 * least:
            image.info["stored_size"] = size
            image.draft(None, (least, least))
        return _load(image)


class _Decoding:
    """Turns whatever a broken file makes Pillow raise into an ImageError.

    Attributes:
        data: The file's content.
        image: The image as far as it was opened.
    """

    __slots__ = ("data", "image", "where")

    def __init__(self, where: str, data: bytes = b"", image: Image.Image | None = None):
        self.where, self.data, self.image = where, data, image

    def __enter__(self) -> "_Decoding":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        # Decoders raise whatever they stumble over: OSError, SyntaxError, ValueError, struct.error ...
        if not isinstance(error, Exception) or isinstance(error, ImageError):
            return
        if isinstance(error, UnidentifiedImageError):
            raise ImageError(self.where, *unidentified(self.data)) from None
        if isinstance(error, MemoryError):
            detail = "decoding it needs more memory than there is; shrink it"
            raise ImageError(self.where, "too_much_memory", detail, self.image) from None
        reason = "truncated" if "truncated" in str(error).lower() or _ends_early(self.data) else "corrupt"
        raise ImageError(self.where, reason, f"the image is broken ({error}); copy it again", self.image) from None


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
    return Image.open(io.BytesIO(data), formats=formats())


def count_pixels(data: bytes) -> int:
    """Returns width x height as an image's header says; 0 where it says none. Decodes nothing."""
    try:
        return math.prod(_identify(data).size)
    # Whatever is wrong with the file, decoding it will say.
    except Exception:
        return 0


def upright(image: Image.Image) -> Image.Image:
    """Applies the EXIF orientation; images with a broken EXIF block are returned unchanged."""
    try:
        return ImageOps.exif_transpose(image)
    # Pillow's EXIF reader raises many types (struct.error, TypeError, ValueError ...); the pixels are fine.
    except Exception:
        return image


def to_rgb(image: Image.Image, where: str = "image") -> Image.Image:
    """Converts a decoded image to upright 8-bit RGB: EXIF applied, transparency over white, 16 bits scaled.

    Args:
        where: Name of the image in errors.

    Raises:
        ImageError: Its pixels cannot be converted, or their value range is unknown.
    """
    with _Decoding(where, image=image):
        levels = upright(image)
        if levels.mode == "F" or levels.mode.startswith("I"):
            levels = _to_8_bits(levels, image, where)
        if levels.has_transparency_data:
            levels = levels.convert("RGBA")
            white = Image.new("RGBA", levels.size, "white")
            white.info = levels.info
            levels = Image.alpha_composite(white, levels)
        return levels.convert("RGB")


def _to_8_bits(levels: Image.Image, image: Image.Image, where: str) -> Image.Image:
    """Scales grey levels of more than 8 bits as viewers do; Pillow clips them at 255."""
    if levels.mode in ("F", "I") and image.format != "PPM":
        detail = f"its value range is unknown (mode {levels.mode}, 32 bits); save it with 8 or 16 bits"
        raise ImageError(where, "unknown_range", detail, image)
    scaled = (np.asarray(levels).astype(np.float64) / (white_level(image) / 255)).clip(0, 255)
    if getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO:
        scaled = 255 - scaled
    return Image.fromarray(scaled.astype(np.uint8))


def white_level(image: Image.Image) -> int:
    """Returns the level that is white in a 16-bit grey image: 65535, or less where a TIFF says so."""
    tags = getattr(image, "tag_v2", {})
    highest = 2 ** tags.get(BITS_PER_SAMPLE, (16,))[0] - 1
    stated = tags.get(MAX_SAMPLE_VALUE, highest)
    stated = stated[0] if isinstance(stated, tuple) else stated
    return stated if 255 < stated < highest else highest


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
    where = name or (os.fsdecode(source) if not isinstance(source, bytes) else "image")
    return to_rgb(open_image(source, max_pixels, name), where)
