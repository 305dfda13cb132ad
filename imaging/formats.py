"""Formats of image files: by their first bytes, by their suffix, and which of them are read."""

import functools
import re
import struct
from collections.abc import Iterator

from PIL import Image

PNG = b"\x89PNG\r\n\x1a\n"
# Files of several images: Windows' icons and Apple's.
ICONS = (b"\0\0\1\0", b"icns")
NESTED_PNG = re.compile(re.escape(PNG) + rb"....IHDR(.{8})", re.DOTALL)

# First bytes of common formats: Pillow tries one reader instead of forty, and a broken image is not taken for text.
SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (PNG, "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (ICONS[0], "ICO"),
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
def formats() -> tuple[str, ...]:
    """Names of the formats that are read; loads all of Pillow's readers."""
    Image.init()
    # Pillow hands EPS to Ghostscript, which runs the file as a program, and opens the image in an IPTC file unlimited.
    return tuple(sorted(set(Image.OPEN) - {"EPS", "IPTC"}))


def is_rgb_profile(icc_profile: bytes) -> bool:
    """Returns whether a colour profile is of an RGB space. Source: ICC.1:2022, section 7.2."""
    return icc_profile[16:20] == b"RGB "


def is_non_srgb_profile(icc_profile: bytes | None) -> bool:
    """Returns whether a colour profile is of an RGB space that is not called sRGB; a guess that needs no decoder."""
    names = (b"sRGB", "sRGB".encode("utf-16-be"))
    return (
        isinstance(icc_profile, bytes)
        and is_rgb_profile(icc_profile)
        and not any(name in icc_profile for name in names)
    )


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


def nested_sizes(data: bytes) -> Iterator[tuple[int, int]]:
    """Yields the sizes of the images inside one of ICONS; Pillow believes its table, and decodes while it opens."""
    for matched in NESTED_PNG.finditer(data):
        yield struct.unpack(">II", matched[1])
    if data.startswith(ICONS[0]):
        for entry in range(6, min(6 + 16 * int.from_bytes(data[4:6], "little"), len(data)), 16):
            start = int.from_bytes(data[entry + 12 : entry + 16], "little")
            header = data[start : start + 12]
            if len(header) == 12 and header[:8] != PNG:
                # A bitmap without its file header; its height counts the mask too.
                width, height = struct.unpack("<ii", header[4:])
                yield abs(width), abs(height) // 2


def unidentified(data: bytes) -> tuple[str, str]:
    """Returns why Pillow reads no image in a file: the code of the reason, and what to do."""
    unsupported, announced = _unsupported(data), sniff(data)
    if unsupported:
        return "unsupported_format", f"Pillow does not read {unsupported}; save it as JPEG or PNG"
    if announced:
        return "corrupt", f"the file begins like {announced}, but its header is broken; copy it again"
    return "not_a_picture", "no image format that Pillow knows; take it out"
