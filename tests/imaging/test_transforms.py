"""Transforms: which pixels evaluation keeps of an image, and what augmentation may do to a training image."""

import numpy as np
import pytest
from PIL import Image

import config
from imaging.transforms import EvalTransform, TrainTransform


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def gradient(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards, from 0 to 255."""
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([red, green, np.zeros_like(red)], axis=-1).astype(np.uint8))


def chw(image: Image.Image) -> np.ndarray:
    return np.asarray(image).transpose(2, 0, 1)


def train_transform(height: int, width: int, augment: dict, plain: dict) -> TrainTransform:
    settings = config.load(None, [f"augment.{key}={value}" for key, value in (plain | augment).items()])
    return TrainTransform(height, width, settings.augment)


@pytest.mark.parametrize("size", [(40, 40), (41, 40), (40, 97), (333, 40), (7, 5), (1, 1), (1000, 3)])
@pytest.mark.parametrize("resize", ["crop", "stretch"])
@pytest.mark.parametrize("fraction", [1.0, 0.875])
def test_every_image_becomes_the_networks_size(size, resize, fraction):
    """Guards against rows or columns lost to rounding, and against height and width swapped."""
    overrides = [f"resize={resize}", f"crop_fraction={fraction}", "image_shape=[3,24,32]"]
    pixels = EvalTransform.from_settings(config.load(None, overrides))(noise(*size))
    assert pixels.shape == (3, 24, 32) and pixels.dtype == np.uint8 and pixels.flags.c_contiguous


def test_an_image_of_the_right_size_is_unchanged():
    """Guards against a resize that blurs an image that needs none, and against channels in another order."""
    for resize in ("crop", "stretch"):
        transform = EvalTransform.from_settings(config.load(None, [f"resize={resize}", "image_shape=[3,32,32]"]))
        assert (transform(noise(32, 32)) == chw(noise(32, 32))).all()


def test_crop_keeps_the_aspect_ratio_and_the_centre():
    """Guards against a squeezed image, and against a crop that is not the centre."""
    transform = EvalTransform.from_settings(config.load(None, ["resize=crop", "image_shape=[3,40,40]"]))
    red, green, _ = transform(gradient(160, 80)).astype(int)
    assert abs(red[20].mean() - 127.5) < 2 and 60 < red[20, 0] < 70 and 186 < red[20, -1] < 196
    assert green[0, 20] < 8 and green[-1, 20] > 247
    red, _, _ = EvalTransform.from_settings(config.load(None, ["resize=stretch", "image_shape=[3,40,40]"]))(
        gradient(160, 80)
    )
    assert red[20, 0] < 8 and red[20, -1] > 247


def test_crop_fraction_zooms_in():
    """Guards against a crop_fraction that changes nothing."""
    transform = EvalTransform.from_settings(config.load(None, ["crop_fraction=0.5", "image_shape=[3,40,40]"]))
    red = transform(gradient(160, 160))[0].astype(int)
    assert 58 < red[20, 0] < 70 and 185 < red[20, -1] < 197


def test_without_augmentation_a_training_image_is_an_eval_image(plain):
    """Guards against randomness that no setting turns off."""
    image = noise(32, 32)
    for seed in range(3):
        pixels = train_transform(32, 32, {}, plain)(image, np.random.default_rng(seed))
        assert (pixels == chw(image)).all()


def test_flips_mirror_the_right_axis(plain):
    """Guards against horizontal and vertical swapped."""
    image = noise(32, 32)
    pixels = train_transform(32, 32, {"horizontal_flip": 1}, plain)(image, np.random.default_rng(0))
    assert (pixels == chw(image)[:, :, ::-1]).all()
    pixels = train_transform(32, 32, {"vertical_flip": 1}, plain)(image, np.random.default_rng(0))
    assert (pixels == chw(image)[:, ::-1]).all()


def test_a_flip_is_as_frequent_as_its_probability(plain):
    """Guards against a probability that is read as always or never."""
    transform, image = train_transform(8, 8, {"horizontal_flip": 0.25}, plain), noise(8, 8)
    generator = np.random.default_rng(0)
    flipped = sum((transform(image, generator) != chw(image)).any() for _ in range(400))
    assert 70 <= flipped <= 130


def test_a_rotation_stays_within_its_angle(plain):
    """Guards against degrees taken for radians, and against an angle that is always the same."""
    transform, image = train_transform(64, 64, {"rotation": 10}, plain), gradient(64, 64)
    slopes = []
    for seed in range(20):
        middle = transform(image, np.random.default_rng(seed))[1, 28:36, 16:48].astype(float)
        slopes.append(np.degrees(np.arctan2((middle[:, -1] - middle[:, 0]).mean() / 31, 255 / 63)))
    assert max(map(abs, slopes)) <= 11 and max(slopes) > 3 and min(slopes) < -3


def test_a_crop_keeps_its_fraction_of_the_area(plain):
    """Guards against a crop larger or smaller than crop_scale, or always in the same place."""
    transform = train_transform(40, 40, {"crop_scale": [0.25, 0.25]}, plain)
    lefts = []
    for seed in range(20):
        red = transform(gradient(160, 160), np.random.default_rng(seed))[0].astype(int)
        assert 118 < red[20, -1] - red[20, 0] < 134
        lefts.append(red[20, 0])
    assert max(lefts) - min(lefts) > 40


@pytest.mark.parametrize("size", [(1, 1), (2, 90), (90, 2), (37, 53)])
def test_every_training_image_becomes_the_networks_size(size):
    """Guards against a crop outside the image, or of no pixel, with the default augmentation."""
    transform = TrainTransform.from_settings(config.load(None, ["image_shape=[3,24,32]", "augment.rotation=180"]))
    for seed in range(10):
        pixels = transform(noise(*size), np.random.default_rng(seed))
        assert pixels.shape == (3, 24, 32) and pixels.dtype == np.uint8


def test_the_same_generator_state_returns_the_same_image():
    """Guards against random numbers from another, unseeded source."""
    transform = TrainTransform.from_settings(config.load())
    first, again, other = (transform(noise(50, 60), np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()
