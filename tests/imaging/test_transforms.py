"""Transforms: which pixels evaluation keeps of an image, and what augmentation may do to a training image."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import config
from imaging.transforms import EvalTransform, TrainTransform

ROOT = Path(__file__).resolve().parents[2]


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


@pytest.mark.parametrize("size", [(40, 40), (41, 40), (40, 97), (333, 40), (7, 5), (1, 1), (1000, 3), (1, 30_000)])
@pytest.mark.parametrize("resize", ["crop", "stretch", "pad"])
@pytest.mark.parametrize("fraction", [1.0, 0.875])
@pytest.mark.effect("image_shape")
def test_every_image_becomes_the_networks_size(size, resize, fraction):
    """Guards against rows or columns lost to rounding, and against height and width swapped."""
    overrides = [f"resize={resize}", f"crop_fraction={fraction}", "image_shape=[3,24,32]"]
    pixels = EvalTransform.from_settings(config.load(None, overrides))(noise(*size))
    assert pixels.shape == (3, 24, 32) and pixels.dtype == np.uint8 and pixels.flags.c_contiguous


def test_an_image_of_the_right_size_is_unchanged():
    """Guards against a resize that blurs an image that needs none, and against channels in another order."""
    for resize in ("crop", "stretch", "pad"):
        transform = EvalTransform.from_settings(config.load(None, [f"resize={resize}", "image_shape=[3,32,32]"]))
        assert (transform(noise(32, 32)) == chw(noise(32, 32))).all()


@pytest.mark.effect("resize")
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


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 50), st.integers(1, 50))
def test_pad_is_the_whole_image_between_borders_of_the_mean(width, height, high, wide):
    """Guards against a pixel of the image that is lost, moved or filtered otherwise, whatever is odd."""
    overrides = [f"image_shape=[3,{high},{wide}]", "resize=pad", "mean=[0.1,0.5,2.0]"]
    image = noise(width, height)
    scale = min(wide / width, high / height)
    inside = max(1, round(width * scale)), max(1, round(height * scale))
    expected = Image.new("RGB", (wide, high), (26, 128, 255))
    expected.paste(image.resize(inside, Image.Resampling.BILINEAR), ((wide - inside[0]) // 2, (high - inside[1]) // 2))
    assert (EvalTransform.from_settings(config.load(None, overrides))(image) == chw(expected)).all()


@pytest.mark.effect("resize", "mean")
def test_pad_shows_both_ends(plain):
    """Guards against an object at one end that evaluation or training does not see, and against black borders."""
    overrides = ["resize=pad", "image_shape=[3,40,40]", *(f"augment.{key}={value}" for key, value in plain.items())]
    settings = config.load(None, overrides)
    pixels = EvalTransform.from_settings(settings)(gradient(160, 40))
    assert (pixels[:, [0, 14, 25, 39]] == np.reshape((124, 116, 104), (3, 1, 1))).all()
    assert pixels[0, 20, 0] < 8 and pixels[0, 20, -1] > 247 and pixels[1, 15, 20] < 32 and pixels[1, 24, 20] > 223
    train = TrainTransform.from_settings(settings)
    assert (
        train(gradient(40, 10), np.random.default_rng(0)) == EvalTransform.from_settings(settings)(gradient(40, 10))
    ).all()
    red = train(gradient(1600, 400), np.random.default_rng(0))[0]
    assert (red[[0, 39]] == 124).all() and red[20, 0] < 8 and red[20, -1] > 247


def test_pad_crops_the_padded_image_in_training(plain):
    """Guards against random crops of the image's own height, which lose an object at one end of a long image."""
    settings = [f"augment.{key}={value}" for key, value in (plain | {"crop_scale": [0.64, 1.0]}).items()]
    transform = TrainTransform.from_settings(config.load(None, ["resize=pad", "image_shape=[3,40,40]", *settings]))
    shown = []
    for seed in range(50):
        pixels = transform(gradient(160, 40), np.random.default_rng(seed)).astype(int)
        assert (pixels == transform(gradient(160, 40), np.random.default_rng(seed))).all()
        row = pixels[0, (pixels[0] != 124).any(axis=1)][3]
        shown.append((row[-1] - row[0]) / 255)
    # A crop of 0.64 of the area keeps 0.8 of the width.
    assert 0.78 < min(shown) < 0.86 and max(shown) > 0.95


@pytest.mark.parametrize("resize, key", [("crop", "cover=(20, 20)"), ("stretch", "cover=None")])
def test_caches_of_the_other_ways_keep_their_keys(resize, key):
    """Guards against features and images that every run computes again, and against a cache with other borders."""
    settings = config.load(None, [f"resize={resize}", "image_shape=[3,20,20]"])
    expected = f"EvalTransform(height=20, width=20, {key}, color_profile='convert')"
    assert EvalTransform.from_settings(settings).cache_key == expected
    assert TrainTransform.from_settings(settings).cache_key == "short side 25, color profile convert"
    padded = [settings.model_copy(update={"resize": "pad", "mean": (mean, 0.5, 0.5)}) for mean in (0.4, 0.5)]
    for kind in (EvalTransform, TrainTransform):
        keys = {kind.from_settings(one).cache_key for one in (settings, *padded)}
        assert len(keys) == 3


@pytest.mark.parametrize("size, shape", [((128, 32), (32, 128)), ((32, 128), (128, 32)), ((200, 90), (40, 60))])
def test_crop_shows_all_that_fits_of_a_shape_that_is_not_square(size, shape):
    """Guards against the middle sixteenth of a number plate in evaluation, where training saw the whole."""
    overrides = ["resize=crop", f"image_shape=[3,{shape[0]},{shape[1]}]"]
    red, green, _ = EvalTransform.from_settings(config.load(None, overrides))(gradient(*size)).astype(int)
    shown = red[shape[0] // 2, -1] - red[shape[0] // 2, 0], green[-1, shape[1] // 2] - green[0, shape[1] // 2]
    wide, high = size
    expected = 255 * min(1, high * shape[1] / shape[0] / wide), 255 * min(1, wide * shape[0] / shape[1] / high)
    assert shown == pytest.approx(expected, abs=12)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 50), st.sampled_from([1.0, 0.875, 0.3]))
def test_a_square_crop_is_what_it_always_was(width, height, side, fraction):
    """Guards against other pixels for the shape that nearly every run has."""
    image = noise(width, height)
    transform = EvalTransform.from_settings(
        config.load(None, [f"image_shape=[3,{side},{side}]", f"crop_fraction={fraction}", "resize=crop"])
    )
    scale = round(side / fraction) / min(image.size)
    resized = image.resize((round(width * scale), round(height * scale)), Image.Resampling.BILINEAR)
    left, top = (resized.width - side) // 2, (resized.height - side) // 2
    assert (transform(image) == chw(resized.crop((left, top, left + side, top + side)))).all()


@given(
    st.integers(1, 20), st.integers(20, 900), st.booleans(), st.integers(20, 40), st.integers(20, 40),
    st.sampled_from([1.0, 0.8]), st.integers(0, 9),
)  # fmt: skip
def test_a_limit_of_memory_changes_levels_by_one_at_most(short, long, lies, high, wide, fraction, seed):
    """Guards against a strip whose crop lies elsewhere once only a part of it is resized."""
    overrides = [f"image_shape=[3,{high},{wide}]", "resize=crop", f"crop_fraction={fraction}"]
    transform = EvalTransform.from_settings(config.load(None, overrides))
    image = noise(*((long, short) if lies else (short, long)), seed)
    free, limited = transform(image, 10**9).astype(int), transform(image, 1).astype(int)
    assert np.abs(free - limited).max() <= 1


STRIPS = [(1, 8_000), (30_000_001, 1), (1, 30_000_001)]


@pytest.mark.parametrize("size", STRIPS)
def test_a_strip_takes_no_more_memory_than_an_image(size, measured):
    """Guards against gigabytes for a long image of a few bytes, in evaluation and in training."""
    evaluate = [[f"resize={resize}", "image_shape=[3,224,224]"] for resize in ("crop", "stretch", "pad")]
    for overrides in evaluate:
        assert measured(f"EvalTransform.from_settings(config.load(None, {overrides}))(image)", size) < 900
    for resize in ("crop", "pad"):
        varied = f"TrainTransform.from_settings(config.load(None, ['image_shape=[3,224,224]', 'resize={resize}']))"
        assert measured(f"{varied}(image, np.random.default_rng(0))", size) < 900


@pytest.fixture
def measured():
    """Returns the memory in MB that an expression takes beyond an image of the given size, in a process of its own."""
    resource = pytest.importorskip("resource")
    del resource
    code = """
import resource, numpy as np
from PIL import Image
import config
from imaging.transforms import EvalTransform, TrainTransform
image = Image.new("RGB", {size}, (9, 99, 199))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
result = {expression}
assert result.shape == (3, 224, 224)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""

    def measure(expression: str, size: tuple[int, int]) -> int:
        program = code.format(expression=expression, size=size)
        ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        return int(ended.stdout)

    return measure


def test_only_covers_with_equal_sides_are_a_short_side():
    """Guards against an export that tells PaddleX a length which holds for one side only."""
    assert [EvalTransform(2, 3, cover).resize_short for cover in (None, (4, 4), (4, 5))] == [None, 4, None]


@pytest.mark.effect("crop_fraction")
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


@pytest.mark.effect("augment.horizontal_flip", "augment.vertical_flip")
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


@pytest.mark.effect("augment.rotation")
def test_a_rotation_stays_within_its_angle(plain):
    """Guards against degrees taken for radians, and against an angle that is always the same."""
    transform, image = train_transform(64, 64, {"rotation": 20}, plain), gradient(64, 64)
    slopes = []
    for seed in range(20):
        middle = transform(image, np.random.default_rng(seed))[1, 28:36, 16:48].astype(float)
        slopes.append(np.degrees(np.arctan2((middle[:, -1] - middle[:, 0]).mean() / 31, 255 / 63)))
    assert 14 < max(map(abs, slopes)) <= 21 and max(slopes) > 6 and min(slopes) < -6


@pytest.mark.effect("augment.crop_scale")
def test_a_crop_keeps_its_fraction_of_the_area(plain):
    """Guards against a crop larger or smaller than crop_scale, or always in the same place."""
    transform = train_transform(40, 40, {"crop_scale": [0.25, 0.25]}, plain)
    lefts = []
    for seed in range(20):
        red = transform(gradient(160, 160), np.random.default_rng(seed))[0].astype(int)
        assert 118 < red[20, -1] - red[20, 0] < 134
        lefts.append(red[20, 0])
    assert max(lefts) - min(lefts) > 40


@pytest.mark.parametrize("size", [(1, 1), (2, 90), (90, 2), (37, 53), (1, 30_000), (30_000, 1)])
@pytest.mark.parametrize("resize", ["crop", "pad"])
def test_every_training_image_becomes_the_networks_size(size, resize):
    """Guards against a crop outside the image, or of no pixel, with the default augmentation."""
    overrides = ["image_shape=[3,24,32]", "augment.rotation=180", f"resize={resize}"]
    transform = TrainTransform.from_settings(config.load(None, overrides))
    for seed in range(10):
        pixels = transform(noise(*size), np.random.default_rng(seed))
        assert pixels.shape == (3, 24, 32) and pixels.dtype == np.uint8


def test_the_same_generator_state_returns_the_same_image():
    """Guards against random numbers from another, unseeded source."""
    transform = TrainTransform.from_settings(config.load())
    first, again, other = (transform(noise(50, 60), np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()
