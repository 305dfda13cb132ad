"""Fuzzer of decoding: any file becomes pixels or an ImageError (`make.py fuzz`; a part in `make.py test`)."""

import io
import os
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from imaging.images import ImageError
from imaging.transforms import EvalTransform

COUNT = int(os.environ.get("FUZZ_IMAGES", "600"))
LIMIT = 40_000  # pixels
TRANSFORMS = [
    EvalTransform(16, 16, (16, 16)),
    EvalTransform(9, 31, None),
    EvalTransform(24, 8, (30, 30), "ignore"),
    EvalTransform(24, 9, None, "convert", (1, 2, 3)),
]


def originals() -> list[bytes]:
    """One file of each format, mode and feature that Pillow writes."""
    draw = np.random.default_rng(0)
    photo = Image.fromarray(draw.integers(0, 256, (30, 40, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "text"
    text = PngImagePlugin.PngInfo()
    text.add_text("a", "b" * 40)
    files = []
    for mode in ("RGB", "L", "P", "1", "RGBA", "LA", "CMYK", "I;16", "F", "I"):
        image = Image.fromarray(draw.integers(0, 65536, (30, 40), np.uint16)) if mode == "I;16" else photo.convert(mode)
        for form in (
            "PNG",
            "JPEG",
            "GIF",
            "WEBP",
            "BMP",
            "TIFF",
            "ICO",
            "PPM",
            "TGA",
            "PCX",
            "AVIF",
            "JPEG2000",
            "SGI",
        ):
            file = io.BytesIO()
            options = {"exif": exif.tobytes()} if form in ("PNG", "JPEG", "WEBP", "AVIF") else {}
            options |= {"pnginfo": text, "transparency": 3} if form == "PNG" and mode == "P" else {}
            try:
                image.save(file, form, **options)
            except Exception:
                continue
            files.append(file.getvalue())
    for options in (
        {"progressive": True},
        {"subsampling": 0},
        {"icc_profile": b"x" * 200},
        {"restart_marker_blocks": 1},
    ):
        file = io.BytesIO()
        photo.save(file, "JPEG", **options)
        files.append(file.getvalue())
    frames = io.BytesIO()
    photo.save(frames, "GIF", save_all=True, append_images=[photo.rotate(90)] * 3)
    return [*files, frames.getvalue()]


def mutated(data: bytes, generator: random.Random) -> bytes:
    """Changes, drops, doubles or moves bytes; of a PNG half the time with checksums that are right again."""
    content = bytearray(data)
    for _ in range(generator.randint(1, 4)):
        place, length = generator.randrange(len(content)), generator.randint(1, 12)
        kind = generator.randrange(6)
        if kind == 0:
            content[place] = generator.randrange(256)
        elif kind == 1:
            content[place] ^= 1 << generator.randrange(8)
        elif kind == 2:
            del content[place : place + length]
        elif kind == 3:
            content[place:place] = content[place : place + length]
        elif kind == 4:
            content[place : place + 4] = struct.pack(
                generator.choice("<>") + "I", generator.choice([0, 1, 2**16, 2**31, 2**32 - 1])
            )
        else:
            del content[place:]
        if not content:
            return b""
    return (
        _with_checksums(bytes(content))
        if content.startswith(b"\x89PNG") and generator.random() < 0.5
        else bytes(content)
    )


def _with_checksums(data: bytes) -> bytes:
    """Behind wrong checksums no decoder looks."""
    fixed, place = data[:8], 8
    while place + 8 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        body = data[place + 4 : place + 8 + length]
        if len(body) < 4 + length:
            return fixed + data[place:]
        fixed += data[place : place + 4] + body + struct.pack(">I", zlib.crc32(body))
        place += 12 + length
    return fixed + data[place:]


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_image_becomes_pixels_or_an_error():
    """Guards against an exception that ends a worker, an annotate, or a training, over one file."""
    files, generator = originals(), random.Random(1)
    assert len(files) > 60
    outcomes = {"pixels": 0, "refused": 0}
    for number in range(COUNT):
        data = mutated(files[number % len(files)], generator)
        transform = TRANSFORMS[number % len(TRANSFORMS)]
        try:
            pixels = transform.read(data, LIMIT, "a.png")
        except ImageError as error:
            assert str(error).startswith("a.png: ") and "\n" not in str(error)
            outcomes["refused"] += 1
        except Exception as error:
            pytest.fail(f"{type(error).__name__}: {error}; the file is {data[:3000]!r}")
        else:
            assert pixels.dtype == np.uint8 and pixels.shape == (3, transform.height, transform.width)
            outcomes["pixels"] += 1
    assert min(outcomes.values()) > COUNT / 20
