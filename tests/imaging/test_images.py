"""Image decoding: every mode becomes upright RGB, and every broken file is refused with its reason."""

import contextlib
import io
import os
import random
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from imaging.images import ImageError, open_image, read_file, read_image

LIMIT = 10_000


def encode(image: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def two_colours(mode: str = "RGB") -> Image.Image:
    """Left half red, right half blue, 40 x 20."""
    image = Image.new("RGB", (40, 20), (255, 0, 0))
    image.paste((0, 0, 255), (20, 0, 40, 20))
    return image.convert(mode)


def reason(data: bytes, limit: int = LIMIT) -> str:
    with pytest.raises(ImageError) as caught:
        open_image(data, limit, "it.jpg")
    assert str(caught.value).startswith("it.jpg: ")
    return caught.value.reason


def test_every_kind_of_broken_file_has_its_reason():
    """Guards against a broken file that is accepted, or refused with the reason of another kind."""
    jpeg = encode(two_colours(), "JPEG")
    png = encode(Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)), "PNG")
    broken_stream = bytearray(png)
    broken_stream[len(png) // 2] ^= 0xFF
    assert reason(b"") == "empty"
    assert reason(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n") == "lfs_pointer"
    assert reason(b"console.log(1)") == "not_a_picture"
    assert reason(jpeg[:-30]) == "truncated"
    # Pillow shows what it decoded of a PNG whose data is broken in the middle: an image, marked as damaged.
    assert open_image(bytes(broken_stream), 10**6).info["damaged"]
    assert reason(b"GIF89a\0\0\0\0") == "corrupt"
    # Cut short, these are still images that somebody should copy again, not files that do not belong here.
    for form in ("WEBP", "AVIF", "ICO"):
        assert reason(encode(two_colours(), form)[:100]) in ("truncated", "corrupt")
    for lost in (9, 4):
        assert reason(encode(two_colours(), "WEBP", lossless=True)[:-lost]) == "truncated"
    assert reason(b"<svg xmlns='http://www.w3.org/2000/svg'/>") == "unsupported_format"
    assert reason(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic") == "unsupported_format"
    assert reason(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n") == "unsupported_format"
    assert reason(jpeg, limit=799) == "too_large"


def test_too_large_names_the_number_to_set():
    """Guards against a limit that the user cannot find out how to lift."""
    data = encode(two_colours(), "JPEG")
    with pytest.raises(ImageError, match="max_pixels=800 "):
        open_image(data, 799)
    assert open_image(data, 800).size == (40, 20)


def test_a_bomb_is_refused_before_it_is_decoded():
    """Guards against a header of 65,000 x 65,000 pixels that fills the memory."""
    header = struct.pack(">II5B", 65000, 65000, 8, 2, 0, 0, 0)
    data = encode(two_colours(), "PNG")
    assert reason(data[:16] + header + data[29:]) in ("too_large", "corrupt")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    """Guards against phone photos that lie on their side."""
    turns = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    upright = Image.new("RGB", (40, 20), "red")
    upright.paste("blue", (20, 0, 40, 20))
    upright.paste("green", (0, 10, 10, 20))
    stored = upright if turns[orientation] is None else upright.transpose(Image.Transpose(turns[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = read_image(encode(stored, "PNG", exif=exif.tobytes()), LIMIT)
    assert np.array_equal(np.asarray(decoded), np.asarray(upright))


def test_every_mode_becomes_rgb():
    """Guards against transparency that turns black, and 16 bits that turn white."""
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert read_image(encode(clear, "PNG"), LIMIT).getpixel((0, 0)) == (255, 255, 255)
    grey = Image.fromarray(np.full((4, 4), 0x8080, np.uint16))
    assert read_image(encode(grey, "PNG"), LIMIT).getpixel((0, 0)) == (128, 128, 128)
    for mode, form in (("L", "PNG"), ("P", "GIF"), ("1", "PNG"), ("CMYK", "JPEG"), ("LA", "PNG")):
        assert read_image(encode(two_colours().convert(mode), form), LIMIT).mode == "RGB"


def test_a_broken_exif_block_is_ignored():
    """Guards against an image refused for its metadata."""
    data = encode(two_colours(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\xff" * 40)
    assert read_image(data, LIMIT).size == (40, 20)


def broken_jpegs() -> Iterator[bytes]:
    """JPEGs of every kind, cut short, with bytes changed, lost or overwritten."""
    draw = random.Random(4)
    blobs = Image.fromarray(np.random.default_rng(4).integers(0, 256, (12, 16, 3), np.uint8))
    photo = blobs.resize((208, 156), Image.Resampling.BICUBIC)
    for number in range(240):
        options = {"quality": (30, 95)[number % 2], "progressive": number % 3 == 0, "subsampling": number % 5 % 3}
        data = bytearray(encode(photo.convert(("RGB", "L", "CMYK")[number % 7 % 3]), "JPEG", **options))
        place, length = draw.randrange(4, len(data)), draw.randrange(1, 300)
        if number % 4 == 0:
            del data[place:]
        elif number % 4 == 1:
            data[place] ^= draw.randrange(1, 256)
        elif number % 4 == 2:
            del data[place : place + length]
        else:
            data[place : place + length] = bytes(length)
        yield bytes(data)


def test_a_reduced_jpeg_is_refused_exactly_when_the_full_one_is():
    """Guards against a check that passes, at an eighth of the size, what training cannot decode in full."""
    ends = []
    for data in broken_jpegs():
        outcomes = []
        for least in (None, 64, 8):
            try:
                open_image(data, 10**6, "it.jpg", least)
                outcomes.append(("decoded", ""))
            except ImageError as error:
                outcomes.append((error.reason, "" if error.reason == "not_a_picture" else error.detail))
        assert outcomes[0] == outcomes[1] == outcomes[2]
        ends.append(outcomes[0][0])
    assert ends.count("decoded") > 20 and ends.count("truncated") > 60 and ends.count("corrupt") > 5


def test_a_reduced_jpeg_keeps_its_stored_size():
    """Guards against reports that show the reduced size."""
    image = open_image(encode(two_colours().resize((400, 200)), "JPEG"), 10**6, least=64)
    assert image.size == (200, 100) and image.info["stored_size"] == (400, 200)


def test_a_missing_file_has_another_reason_than_an_unreadable_one(tmp_path):
    """Guards against one reason for two causes."""
    with pytest.raises(ImageError) as caught:
        open_image(tmp_path / "none.jpg", LIMIT)
    assert caught.value.reason == "missing"
    with pytest.raises(ImageError) as caught:
        open_image(tmp_path, LIMIT)
    assert caught.value.reason == "not_a_file"


def tiff(levels: np.ndarray, **tags: int) -> bytes:
    numbers = {"white": 281, "photometric": 262}
    return encode(Image.fromarray(levels), "TIFF", tiffinfo={numbers[name]: value for name, value in tags.items()})


@given(st.integers(256, 65535), st.integers(0, 255))
def test_grey_of_fewer_bits_is_as_bright_as_its_tags_say(white, shade):
    """Guards against pictures of a 12-bit camera that turn black."""
    levels = np.full((4, 4), shade * white // 255, np.uint16)
    shown = read_image(tiff(levels, white=white), LIMIT).getpixel((0, 0))[0]
    assert abs(shown - shade) <= 1


def test_grey_whose_zero_is_white_is_turned_round():
    """Guards against negatives of medical images, which store white as 0."""
    levels = np.array([[0, 16384], [32768, 65535]], np.uint16)
    shown = np.asarray(read_image(tiff(levels, photometric=0), LIMIT))[..., 0]
    assert shown.tolist() == [[255, 191], [127, 0]]


@pytest.mark.parametrize("kind", [np.int32, np.float32])
@pytest.mark.parametrize("highest", [1, 255, 65535])
def test_grey_of_32_bits_is_refused_by_name(kind, highest):
    """Guards against images of a microscope that turn black, or white, in silence."""
    with pytest.raises(ImageError, match=r"it\.tif: its value range is unknown .*; save it with") as caught:
        read_image(tiff(np.full((4, 4), highest, kind)), LIMIT, "it.tif")
    assert caught.value.reason == "unknown_range"


def test_grey_of_32_bits_in_a_portable_graymap_is_scaled():
    """Guards against a refusal of the one format whose reader scales 16 bits to 32 by itself."""
    assert read_image(b"P5 2 2 4095\n" + b"\x08\0" * 4, LIMIT).getpixel((0, 0)) == (127,) * 3


@given(st.integers(1, 60), st.integers(1, 60), st.booleans(), st.integers(1, 3000))
def test_an_icon_is_as_large_as_what_is_in_it(width, height, bitmap, limit):
    """Guards against an icon whose table says 16 x 16, and whose content fills the memory."""
    form = "BMP" if bitmap else "PNG"
    # A bitmap in an icon has no file header, and twice the height: the mask is below it.
    nested = encode(Image.new("RGB", (width, height * (1 + bitmap))), form)[14 * bitmap :]
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 24, len(nested), 22)
    data = b"\0\0\1\0\1\0" + entry + nested
    if width * height > limit:
        assert reason(data, limit) == "too_large"
    else:
        with contextlib.suppress(ImageError):
            assert open_image(data, limit).size == (width, height)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def test_what_breaks_a_conversion_is_a_broken_image():
    """Guards against a worker that dies of a palette with more transparencies than colours."""
    header = chunk(b"IHDR", struct.pack(">II5B", 9, 9, 1, 3, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0\0\0" * 9))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"tRNS", bytes(300)) + pixels + chunk(b"IEND", b"")
    with pytest.raises(ImageError, match=r"it\.png: the image is broken") as caught:
        read_image(data, LIMIT, "it.png")
    assert caught.value.reason == "corrupt"


def test_a_file_that_grows_while_it_is_read_is_read_to_its_end(tmp_path, monkeypatch):
    """Guards against images cut where their file ended a moment ago, and against a loop without end."""
    data = encode(two_colours(), "PNG")
    (tmp_path / "a.png").write_bytes(data)
    status = os.stat(tmp_path / "a.png")
    for size in (0, 10, len(data) - 1, len(data), len(data) + 5):
        told = os.stat_result((*status[:6], size, *status[7:]))
        monkeypatch.setattr(os, "fstat", lambda handle, told=told: told)
        assert read_file(tmp_path / "a.png") == data


@pytest.mark.parametrize(("side", "reduced"), [(127, False), (128, True), (200, True)])
def test_only_jpegs_of_twice_the_wanted_size_are_reduced(side, reduced):
    """Guards against a check at fewer pixels than it needs, and one that reads every pixel of large photos."""
    photo = Image.new("RGB", (side, side + 40), "red")
    image = open_image(encode(photo, "JPEG"), 10**6, least=64)
    assert (image.size != photo.size) == reduced and min(image.size) >= 64
    assert ("stored_size" in image.info) == reduced
    assert open_image(encode(photo, "PNG"), 10**6, least=8).size == photo.size


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="this system has no /proc")
def test_files_are_closed(tmp_path):
    """Guards against a scan or a training that ends after a thousand images, for want of files."""
    (tmp_path / "a.png").write_bytes(encode(two_colours(), "PNG"))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        read_file(tmp_path / "a.png")
    assert len(os.listdir("/proc/self/fd")) <= before
