"""Colour profiles: from an image's own colours, such as those of a phone's wide gamut, to sRGB."""

import functools
import io

import numpy as np
from PIL import Image, ImageCms

from imaging.formats import is_rgb_profile

# Profiles of more bytes have no effect: those of cameras and screens have 500 to 10,000, printers' up to 2,000,000.
LARGEST = 4 << 20
# Levels by which rounding alone changes colours on their way through a profile that is sRGB.
ROUNDING = 2
# Levels of each channel at which a profile is compared with sRGB.
PROBED = np.linspace(0, 255, 9).astype(np.uint8)


def to_srgb(image: Image.Image) -> Image.Image:
    """Converts the colours of an RGB image that has a profile of another RGB space; others are returned unchanged.

    Profiles that are broken, or of grey or CMYK, have no effect.
    """
    conversion = _conversion_of(image)
    if conversion is None:
        return image
    converted = ImageCms.applyTransform(image, conversion)
    assert converted is not None  # None only where it is done in place
    return converted


def _conversion_of(image: Image.Image) -> ImageCms.ImageCmsTransform | None:
    profile = image.info.get("icc_profile")
    return _conversion(profile) if isinstance(profile, bytes) and len(profile) <= LARGEST else None


@functools.lru_cache(maxsize=8)
def _conversion(profile: bytes) -> ImageCms.ImageCmsTransform | None:
    """Returns the conversion from a profile to sRGB; None if it is sRGB itself, or none that can be applied to RGB."""
    if not is_rgb_profile(profile):
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        conversion = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "RGB", "RGB")
    except (ImageCms.PyCMSError, OSError):
        return None
    colours = np.stack(np.meshgrid(PROBED, PROBED, PROBED), axis=-1).reshape(-1, 1, 3)
    changed = np.asarray(ImageCms.applyTransform(Image.fromarray(colours), conversion)).astype(int)
    return conversion if np.abs(changed - colours).max() > ROUNDING else None
