"""Colour profiles: images in other RGB spaces become sRGB, in every command alike; broken profiles break nothing."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

import config
from imaging.colour import to_srgb
from imaging.formats import is_non_srgb_profile
from imaging.images import read_image
from imaging.transforms import EvalTransform, TrainTransform

# Chromaticities of red, green and blue adapted to D50, as XYZ columns, and the exponent of the levels. Sources: Adobe
# RGB (1998), section 4.3; Display P3 as adapted by the Bradford matrix of ICC.1:2022, annex E.
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)), 2.19921875
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)), 2.4
# The same of sRGB (IEC 61966-2-1).
SRGB_PRIMARIES = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def profile(primaries: tuple, exponent: float) -> bytes:
    """A display profile with a matrix and one exponent (ICC version 2)."""

    def fixed(*numbers: float) -> bytes:
        return struct.pack(f">{len(numbers)}i", *(round(number * 65536) for number in numbers))

    tags = {
        name: b"XYZ \0\0\0\0" + fixed(*xyz) for name, xyz in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)
    }
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(exponent * 256)) + b"\0\0"
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve) | {b"wtpt": b"XYZ \0\0\0\0" + fixed(0.9642, 1, 0.8249)}
    table, body, start = b"", b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content
    head = struct.pack(
        ">I4sI4s4s4s12s4s", start + len(body), b"none", 0x02100000, b"mntr", b"RGB ", b"XYZ ", bytes(12), b"acsp"
    )
    head += bytes(28) + fixed(0.9642, 1, 0.8249) + bytes(48)
    return head + struct.pack(">I", len(tags)) + table + body


def encode(image: Image.Image, icc_profile: bytes | None, form: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, icc_profile=icc_profile, **options)
    return file.getvalue()


def pixel(data: bytes, *overrides: str) -> np.ndarray:
    settings = config.load(None, ["image_shape=[3,8,8]", *overrides])
    return EvalTransform.from_settings(settings)(read_image(data, 10**6))[:, 4, 4].astype(int)


def expected(colour: tuple[int, int, int], primaries: tuple, exponent: float) -> np.ndarray:
    """Linear light, matrix to sRGB, its curve, clipped: levels 0..255."""
    light = np.transpose(primaries) @ (np.array(colour) / 255) ** exponent
    linear = (np.linalg.inv(np.transpose(SRGB_PRIMARIES)) @ light).clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.effect("color_profile")
def test_wide_colours_are_what_a_screen_would_show():
    """Guards against a green of Adobe RGB that trains as a dull one, and one of Display P3 as another colour."""
    for colour in ((100, 200, 50), (180, 60, 90), (20, 40, 160)):
        image = Image.new("RGB", (20, 20), colour)
        for space in (ADOBE_RGB, DISPLAY_P3):
            assert pixel(encode(image, profile(*space))) == pytest.approx(expected(colour, *space), abs=4)
        assert pixel(encode(image, profile(*ADOBE_RGB)), "color_profile=ignore").tolist() == list(colour)
    shown = pixel(encode(Image.new("RGB", (20, 20), (0, 255, 0)), profile(*DISPLAY_P3)))
    assert shown.tolist() == [0, 255, 0]  # outside sRGB: its greenest
    for space in (ADOBE_RGB, DISPLAY_P3):
        assert pixel(encode(Image.new("RGB", (20, 20), "white"), profile(*space))) == pytest.approx([255] * 3, abs=1)


@pytest.mark.parametrize(
    "form, mode", [("PNG", "RGBA"), ("PNG", "P"), ("JPEG", "RGB"), ("WEBP", "RGB"), ("TIFF", "RGB")]
)
def test_a_profile_is_applied_in_every_format(form, mode):
    """Guards against a profile that is lost on the way through transparency, palette or another format."""
    image = Image.new("RGB", (20, 20), (100, 200, 50)).convert(mode)
    changed = pixel(encode(image, profile(*ADOBE_RGB), form)) - pixel(encode(image, None, form))
    assert abs(changed).max() > 40


def test_training_sees_the_colours_that_evaluation_sees(plain):
    """Guards against a profile that only one of the two transforms applies."""
    data = encode(Image.new("RGB", (90, 90), (100, 200, 50)), profile(*ADOBE_RGB))
    settings = config.load(None, ["image_shape=[3,8,8]", *(f"augment.{key}={value}" for key, value in plain.items())])
    trained = TrainTransform.from_settings(settings)(read_image(data, 10**6), np.random.default_rng(0))
    assert trained[:, 4, 4].tolist() == pixel(data).tolist() != pixel(data, "color_profile=ignore").tolist()


@given(st.binary(max_size=300), st.integers(0, 400), st.booleans())
def test_a_broken_profile_changes_nothing_and_breaks_nothing(noise, place, cut):
    """Guards against an image that is refused, or a command that ends, for the sake of its metadata."""
    whole = profile(*ADOBE_RGB)
    for content in (noise, whole[:place] if cut else whole[:place] + noise + whole[place + len(noise) :]):
        image = Image.new("RGB", (3, 3), (100, 200, 50))
        image.info["icc_profile"] = content
        assert to_srgb(image).size == (3, 3)


def test_only_other_colours_are_converted():
    """Guards against levels that change by rounding in images that are sRGB already, and of grey and CMYK profiles."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8))
    for content in (SRGB, SRGB.replace(b"RGB ", b"GRAY", 1), None):
        image.info["icc_profile"] = content
        assert to_srgb(image) is image and not is_non_srgb_profile(content)
    image.info["icc_profile"] = profile(*DISPLAY_P3)
    assert to_srgb(image) is not image and is_non_srgb_profile(profile(*DISPLAY_P3))
