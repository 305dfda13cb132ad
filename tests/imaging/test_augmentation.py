"""Random changes to images: each does what its setting says, and nothing else."""

import numpy as np
import pytest
from PIL import Image

import config
from imaging import augmentation
from imaging.transforms import TrainTransform


def make_transform(plain: dict, **changes) -> TrainTransform:
    base = config.load()
    augment = base.augment.model_copy(update={k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()})
    return TrainTransform(32, 32, augment.model_copy(update=changes))


@pytest.fixture
def image() -> Image.Image:
    """Smooth colours without symmetry, 32x32."""
    rows, columns = np.mgrid[0:32, 0:32]
    return Image.fromarray(np.stack([rows * 7, columns * 5, (rows + columns) * 2 + 60], axis=2).astype(np.uint8))


def results(transform: TrainTransform, image: Image.Image, count: int = 60) -> np.ndarray:
    return np.stack([transform(image, np.random.default_rng(seed)) for seed in range(count)]).astype(int)


@pytest.mark.parametrize(
    "change",
    [
        {"crop_scale": (0.4, 0.8)},
        {"horizontal_flip": 0.5},
        {"vertical_flip": 0.5},
        {"rotation": 20},
        {"scale": (0.7, 1.3)},
        {"shift": 0.2},
        {"brightness": 0.4},
        {"contrast": 0.4},
        {"saturation": 0.8},
        {"hue": 0.3},
        {"invert": 0.5},
        {"randaugment_num_ops": 2, "randaugment_magnitude": 15},
        {"random_erasing": 0.5},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_setting_changes_images_and_zero_changes_none(plain, image, change):
    """Guards against a setting that nothing reads, and against a change that comes without being asked for."""
    original = np.asarray(image).transpose(2, 0, 1)
    assert (results(make_transform(plain), image) == original).all()
    changed = results(make_transform(plain, **change), image)
    assert changed.shape == (60, 3, 32, 32)
    assert len({drawn.tobytes() for drawn in changed}) > 1


def test_brightness_stays_within_its_limit(plain, image):
    """Guards against a limit that is read as a standard deviation or as a percentage."""
    dim = image.point([level // 2 for level in range(256)] * 3)
    means = results(make_transform(plain, brightness=0.3), dim).mean(axis=(1, 2, 3)) / np.asarray(dim).mean()
    assert 0.69 < means.min() < 0.8
    assert 1.2 < means.max() < 1.31


def test_hue_turns_colours_and_keeps_greys():
    """Guards against a shift of the wrong channel of HSV, which would change light instead of colour."""
    red, grey = (Image.new("RGB", (2, 2), colour) for colour in ((200, 0, 0), (90, 90, 90)))
    r, g, b = augmentation.rotate_hue(red, 1 / 3).getpixel((0, 0))
    assert g > 190
    assert r < 10
    assert b < 10
    assert augmentation.rotate_hue(red, 2 / 3).getpixel((0, 0))[2] > 190
    assert augmentation.rotate_hue(grey, 0.3).getpixel((0, 0)) == (90, 90, 90)


def test_rotation_turns_about_the_centre_and_fills_the_corners(plain):
    """Guards against a turn about a corner, and against black corners, which normalise to the strongest value."""
    image = Image.new("RGB", (33, 33), "white")
    image.putpixel((16, 16), (0, 0, 0))
    transform = TrainTransform(33, 33, make_transform(plain, rotation=180).augment)
    for seed in range(10):
        turned = transform(image, np.random.default_rng(seed))
        assert turned[:, 16, 16].max() < 60
    assert any((results(transform, image)[:, :, 0, 0] == augmentation.FILL).all(axis=1))


def test_scale_above_one_enlarges(plain):
    """Guards against a factor that is applied to the wrong side of the transform."""
    image = Image.new("RGB", (32, 32), "black")
    image.paste("white", (12, 12, 20, 20))
    white = (results(make_transform(plain, scale=(2.0, 2.0)), image, 1) > 127).mean()
    assert white == pytest.approx(4 * 64 / 1024, rel=0.1)


def test_shift_moves_by_no_more_than_its_share(plain):
    """Guards against a shift in pixels that is meant as a share, or the reverse."""
    image = Image.new("RGB", (32, 32), "black")
    image.paste("white", (15, 15, 17, 17))
    places = [np.argwhere(found[0] > 160).mean(axis=0) for found in results(make_transform(plain, shift=0.25), image)]
    moved = np.abs(np.asarray(places) - 15.5)
    assert moved.max() <= 8.01
    assert moved.max(axis=0).min() > 5


def test_every_operation_of_rand_augment_works_and_most_change_something(image):
    """Guards against an operation that fails on some image, or that does nothing at full strength."""
    changed = []
    for operation in augmentation.RANDAUGMENT_OPS:
        found = operation(image, 1.0, -1)
        assert (found.mode, found.size) == ("RGB", (32, 32))
        changed.append(found.tobytes() != image.tobytes())
    assert changed.count(False) <= 2


def test_erased_rectangles_have_the_size_that_was_drawn(plain):
    """Guards against holes over the edge, empty ones, and holes that are black instead of neutral."""
    holes = results(make_transform(plain, random_erasing=1.0), Image.new("RGB", (32, 32), "white"), 200)
    assert set(np.unique(holes)) == {255, *augmentation.FILL}
    shares = (holes[:, 0] != 255).mean(axis=(1, 2))
    assert 0.01 < shares.min() < 0.06
    assert 0.25 < shares.max() < 0.36


@pytest.mark.parametrize("way", ["mixup", "cutmix"])
def test_mixed_targets_say_how_much_of_each_image_is_left(plain, way):
    """Guards against targets that do not match the pixels, which would teach the wrong class."""
    augment = make_transform(plain, **{way: 1.0}).augment
    labels = np.arange(4)
    images = np.broadcast_to((labels * 80).astype(np.uint8)[:, None, None, None], (4, 3, 20, 20)).copy()
    several = 0
    for seed in range(20):
        before = images.copy()
        mixed, targets = augmentation.mix(images, labels, 4, augment, np.random.default_rng(seed))
        assert (images == before).all()
        assert mixed.dtype == np.uint8
        assert targets.dtype == np.float32
        np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
        expected = targets @ (labels * 80)
        np.testing.assert_allclose(mixed.mean(axis=(1, 2, 3)), expected, atol=1)
        several += ((targets > 0.05).sum(axis=1) > 1).any()
    assert several > 5
