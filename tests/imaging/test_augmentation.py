"""Augmentation: each setting changes what it names, as strongly and as often as its value, and nothing else."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

import config
from imaging import augmentation
from imaging.transforms import TrainTransform
from system.errors import UserError


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
        {"crop_ratio": (0.5, 2.0)},
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
@pytest.mark.effect("augment.hue")
def test_each_setting_changes_images_and_zero_changes_none(plain, image, change):
    """Guards against a setting that nothing reads, and against an image that changes while every setting is neutral."""
    original = np.asarray(image).transpose(2, 0, 1)
    assert (results(make_transform(plain), image) == original).all()
    transform = make_transform(plain, **change)
    changed = results(transform, image)
    assert changed.shape == (60, 3, 32, 32)
    assert len({drawn.tobytes() for drawn in changed}) > 1
    # The fast path flips whole batches and does nothing else.
    assert transform.only_flips == (change.keys() <= {"horizontal_flip", "vertical_flip"})


@pytest.mark.effect("augment.brightness")
def test_brightness_stays_within_its_limit(plain, image):
    """Guards against a limit that is read as a standard deviation or as a percentage."""
    dim = image.point([level // 2 for level in range(256)] * 3)
    means = results(make_transform(plain, brightness=0.2), dim).mean(axis=(1, 2, 3)) / np.asarray(dim).mean()
    assert 0.79 < means.min() < 0.85
    assert 1.15 < means.max() < 1.21


def test_hue_rotates_colours_and_keeps_greys():
    """Guards against a rotation of the wrong HSV channel, which would change brightness instead of colour."""
    red, grey = (Image.new("RGB", (2, 2), colour) for colour in ((200, 0, 0), (90, 90, 90)))
    r, g, b = augmentation.rotate_hue(red, 1 / 3).getpixel((0, 0))
    assert g > 190
    assert r < 10
    assert b < 10
    assert augmentation.rotate_hue(red, 2 / 3).getpixel((0, 0))[2] > 190
    assert augmentation.rotate_hue(grey, 0.3).getpixel((0, 0)) == (90, 90, 90)


def test_rotation_is_about_the_centre_and_fills_the_corners(plain):
    """Guards against a rotation about a corner, and against black corners, far from zero once normalised."""
    image = Image.new("RGB", (33, 33), "white")
    image.putpixel((16, 16), (0, 0, 0))
    transform = TrainTransform(33, 33, make_transform(plain, rotation=180).augment)
    for seed in range(10):
        rotated = transform(image, np.random.default_rng(seed))
        assert rotated[:, 16, 16].max() < 60
    assert any((results(transform, image)[:, :, 0, 0] == augmentation.FILL).all(axis=1))


@pytest.mark.effect("augment.scale")
def test_scale_above_one_enlarges(plain):
    """Guards against a factor that is applied to the wrong side of the transform."""
    image = Image.new("RGB", (32, 32), "black")
    image.paste("white", (12, 12, 20, 20))
    white = (results(make_transform(plain, scale=(2.0, 2.0)), image, 1) > 127).mean()
    assert white == pytest.approx(4 * 64 / 1024, rel=0.1)


@pytest.mark.effect("augment.shift")
def test_shift_moves_by_at_most_its_fraction_of_the_sides(plain):
    """Guards against a fraction of the sides that is read as pixels, or the reverse."""
    image = Image.new("RGB", (32, 32), "black")
    image.paste("white", (15, 15, 17, 17))
    places = [np.argwhere(found[0] > 160).mean(axis=0) for found in results(make_transform(plain, shift=0.25), image)]
    moved = np.abs(np.asarray(places) - 15.5)
    assert moved.max() <= 8.01
    assert moved.max(axis=0).min() > 5


def dot(width: int, height: int, x: int, y: int) -> Image.Image:
    """A white square of 3 x 3 pixels on black, its centre at x, y."""
    image = Image.new("RGB", (width, height), "black")
    image.paste("white", (x - 1, y - 1, x + 2, y + 2))
    return image


def place_of_dot(image: Image.Image) -> tuple[float, float]:
    """Centre of the brightest pixels; what FILL, ImageNet's mean colour, covers is dark."""
    assert tuple(round(255 * mean) for mean in (0.485, 0.456, 0.406)) == augmentation.FILL
    levels = np.asarray(image.convert("L"), float)
    levels[(np.asarray(image) == augmentation.FILL).all(axis=2)] = 0
    levels[levels < levels.max() * 0.6] = 0
    rows, columns = np.mgrid[: image.height, : image.width]
    return float((columns * levels).sum() / levels.sum()), float((rows * levels).sum() / levels.sum())


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("magnitude", [0.25, 1.0])
def test_randaugment_operations_are_as_strong_as_the_paper_says(magnitude, sign, image):
    """Guards against one of fourteen operations that is weaker, stronger or mirrored, which no training would show."""
    (same, contrasted, equalised, rotated, solarised, posterised, coloured, contrast, brighter, sharper, sheared_x,
     sheared_y, moved_x, moved_y) = augmentation.RANDAUGMENT_OPS  # fmt: skip
    assert same(image, magnitude, sign) is image
    assert contrasted(image, magnitude, sign) == ImageOps.autocontrast(image)
    assert equalised(image, magnitude, sign) == ImageOps.equalize(image)
    assert rotated(image, magnitude, sign) == image.rotate(
        {1: 30, 0.25: 7.5}[magnitude] * sign, Image.Resampling.BILINEAR, fillcolor=augmentation.FILL
    )
    assert solarised(image, magnitude, sign) == ImageOps.solarize(image, {1: 0, 0.25: 192}[magnitude])
    assert posterised(image, magnitude, sign) == ImageOps.posterize(image, {1: 4, 0.25: 7}[magnitude])
    factor = 1 + sign * {1: 0.9, 0.25: 0.225}[magnitude]
    for operation, enhancer in (
        (coloured, "Color"),
        (contrast, "Contrast"),
        (brighter, "Brightness"),
        (sharper, "Sharpness"),
    ):
        # A photo has colours, contrast and edges to change.
        photo = Image.fromarray(np.random.default_rng(0).integers(40, 200, (9, 9, 3), np.uint8))
        assert operation(photo, magnitude, sign) == getattr(ImageEnhance, enhancer)(photo).enhance(factor), enhancer
    # Sheared about the centre, moved by a share of the sides: where a dot goes.
    wide = dot(81, 61, 50, 40)
    shear, share = 0.3 * magnitude * sign, 0.45 * magnitude * sign
    middle_x, middle_y = 40.5, 30.5
    for operation, expected in (
        (sheared_x, (50 - shear * (40 - middle_y), 40)),
        (sheared_y, (50, 40 - shear * (50 - middle_x))),
        (moved_x, (50 + share * 81, 40)),
        (moved_y, (50, 40 + share * 61)),
    ):
        if 2 < expected[0] < 78 and 2 < expected[1] < 58:
            assert place_of_dot(operation(wide, magnitude, sign)) == pytest.approx(expected, abs=0.8)


def test_randaugment_draws_every_operation_and_sign_equally_often(plain, monkeypatch):
    """Guards against operations that are never drawn, and against changes that go one way only."""
    drawn = []
    operations = tuple(
        lambda image, magnitude, sign, number=number: drawn.append((number, magnitude, sign)) or image
        for number in range(14)
    )
    monkeypatch.setattr(augmentation, "RANDAUGMENT_OPS", operations)
    for seed in range(400):
        image = Image.new("RGB", (2, 2))
        assert augmentation.randaugment(image, np.random.default_rng(seed), 3, 12) is image
    assert len(drawn) == 1200 and {magnitude for _, magnitude, _ in drawn} == {12 / 30}
    assert all(40 < count < 140 for count in Counter(number for number, *_ in drawn).values())
    assert len({number for number, *_ in drawn}) == 14
    assert 500 < sum(sign == 1 for *_, sign in drawn) < 700


def test_a_turned_and_moved_image_keeps_its_shape(plain):
    """Guards against a rotation that shears, zooms or mirrors, and against a shift the other way."""
    image = dot(61, 61, 45, 30)
    for angle, factor, right, down in ((0.5, 1.0, 0, 0), (-0.9, 1.2, 3, -4), (2.0, 0.8, -5, 6)):
        cosine, sine = np.cos(angle) / factor, np.sin(angle) / factor
        x, y = 45.5 - 30.5, 30.5 - 30.5
        # Where the point goes: turned about the centre, enlarged, moved.
        expected = (
            30 + factor * (np.cos(angle) * x - np.sin(angle) * y) + right,
            30 + factor * (np.sin(angle) * x + np.cos(angle) * y) + down,
        )
        moved = augmentation._affine(image, cosine, sine, right, down)
        assert place_of_dot(moved) == pytest.approx(expected, abs=0.8)


def test_affine_draws_within_its_limits_and_reaches_them(monkeypatch):
    """Guards against an angle in one direction only, zooms that are not as likely in as out, and sides mixed up."""
    calls = []
    monkeypatch.setattr(augmentation, "_affine", lambda image, *values: calls.append(values) or image)
    image = Image.new("RGB", (100, 40))
    for seed in range(300):
        augmentation.affine(image, np.random.default_rng(seed), 30, (0.5, 2.0), 0.1)
    cosine, sine, right, down = np.array(calls).T
    angle, factor = np.rad2deg(np.arctan2(sine, cosine)), 1 / np.hypot(cosine, sine)
    assert angle.min() < -28 and angle.max() > 28 and abs(angle).max() <= 30
    assert 0.5 <= factor.min() < 0.55 and 1.8 < factor.max() <= 2.0 and 120 < (factor > 1).sum() < 180
    assert 9 < abs(right).max() <= 10 and 3.5 < abs(down).max() <= 4
    assert right.min() < -8 and down.min() < -3


def test_every_randaugment_operation_works_and_most_change_something(image):
    """Guards against an operation that fails on some image, or that does nothing at the largest magnitude."""
    changed = []
    for operation in augmentation.RANDAUGMENT_OPS:
        found = operation(image, 1.0, -1)
        assert (found.mode, found.size) == ("RGB", (32, 32))
        changed.append(found.tobytes() != image.tobytes())
    assert changed.count(False) <= 2


def test_erased_rectangles_have_the_size_that_was_drawn(plain):
    """Guards against rectangles beyond the edge, empty ones, and black ones instead of the mean colour."""
    # Those of the paper.
    assert (augmentation.ERASED_AREA, augmentation.ERASED_RATIO) == ((0.02, 0.33), (0.3, 3.3))
    holes = results(make_transform(plain, random_erasing=1.0), Image.new("RGB", (32, 32), "white"), 200)
    assert set(np.unique(holes)) == {255, *augmentation.FILL}
    shares = (holes[:, 0] != 255).mean(axis=(1, 2))
    assert 0.01 < shares.min() < 0.06
    assert 0.25 < shares.max() < 0.36
    boxes = [np.argwhere(hole[0] != 255) for hole in holes]
    sides = np.array([box.max(axis=0) - box.min(axis=0) + 1 for box in boxes])
    ratios = sides[:, 1] / sides[:, 0]
    assert ratios.min() < 0.45 and ratios.max() > 2.2 and 70 < (ratios > 1).sum() < 130
    corners = np.array([box.min(axis=0) for box in boxes])
    assert (corners.min(axis=0) == 0).all() and (corners.max(axis=0) > 18).all()


@pytest.mark.parametrize("method", ["mixup", "cutmix"])
def test_mixed_targets_are_the_fractions_of_the_images(plain, method):
    """Guards against targets that do not match the pixels, which would teach the wrong class."""
    augment = make_transform(plain, **{method: 1.0}).augment
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


@pytest.mark.parametrize("method", ["mixup", "cutmix"])
@pytest.mark.effect("augment.mixup", "augment.cutmix")
def test_a_larger_alpha_mixes_more_evenly(plain, method):
    """Guards against an alpha that nothing reads: small ones keep one image nearly whole, large ones take halves."""
    labels, images = np.arange(2), np.zeros((2, 3, 40, 40), np.uint8)
    images[1] = 200

    def smaller_shares(alpha: float) -> np.ndarray:
        augment = make_transform(plain, **{method: alpha}).augment
        targets = [augmentation.mix(images, labels, 2, augment, np.random.default_rng(n))[1] for n in range(300)]
        mixed = np.stack(targets)[:, 0]
        return mixed[mixed[:, 0] < 1].min(axis=1)

    few, many = smaller_shares(0.1), smaller_shares(10.0)
    assert np.median(few) < 0.05 and np.median(many) > 0.3


def test_with_both_each_batch_is_mixed_in_one_of_two_ways(plain):
    """Guards against a second method that is never taken."""
    images = np.zeros((2, 3, 20, 20), np.uint8)
    images[1] = 200
    augment = make_transform(plain, mixup=1.0, cutmix=1.0).augment
    blended = 0
    for seed in range(200):
        mixed, _ = augmentation.mix(images, np.arange(2), 2, augment, np.random.default_rng(seed))
        blended += bool(set(np.unique(mixed)) - {0, 200})
    # Half of the batches are blended, and of those half keep both images whole: a partner may be itself.
    assert 20 < blended < 80


def test_a_pasted_rectangle_lies_anywhere(plain):
    """Guards against rectangles that are always at an edge, or of another size than the targets say."""
    images = np.zeros((2, 3, 40, 40), np.uint8)
    images[1] = 200
    augment = make_transform(plain, cutmix=1.0).augment
    tops = []
    for seed in range(200):
        mixed, targets = augmentation.mix(images, np.arange(2), 2, augment, np.random.default_rng(seed))
        found = np.argwhere(mixed[0, 0] == 200)
        if len(found):
            tops.append(tuple(found.min(axis=0)))
            sides = found.max(axis=0) - found.min(axis=0) + 1
            assert sides.prod() == len(found) == pytest.approx(targets[0, 1] * 1600, abs=0.5)
            assert abs(sides[0] - sides[1]) <= 1
    assert len(set(tops)) > 30 and {top for top, _ in tops} != {left for _, left in tops[:1]}


def flat(level: int) -> Image.Image:
    return Image.new("RGB", (32, 32), (level, level, level))


@pytest.mark.effect("augment.saturation")
def test_saturation_changes_colours_and_keeps_greys(plain, image):
    """Guards against saturation swapped with contrast or brightness."""
    grey = image.convert("L").convert("RGB")
    assert (results(make_transform(plain, saturation=0.9), grey) == np.asarray(grey).transpose(2, 0, 1)).all()
    spread = np.ptp(results(make_transform(plain, saturation=0.9), image), axis=1).mean(axis=(1, 2))
    original = np.ptp(np.asarray(image).astype(int), axis=2).mean()
    assert 0.1 <= spread.min() / original < 0.4 and spread.max() / original > 1.3


@pytest.mark.effect("augment.contrast")
def test_contrast_changes_the_spread_and_keeps_flat_images(plain, image):
    """Guards against contrast swapped with saturation or brightness, and against another limit than its setting."""
    assert (results(make_transform(plain, contrast=0.9), flat(90)) == 90).all()
    narrow = image.point([64 + level // 4 for level in range(256)] * 3)
    spread = results(make_transform(plain, contrast=0.5), narrow).std(axis=(1, 2, 3)) / np.asarray(narrow).std()
    assert 0.45 < spread.min() < 0.65 and 1.35 < spread.max() < 1.55


@pytest.mark.effect("augment.crop_ratio")
def test_crop_ratio_is_the_aspect_ratio_of_the_crop():
    """Guards against a crop_ratio that nothing reads, or that is read upside down."""
    augment = config.load(None, ["augment.crop_scale=[0.25,0.25]", "augment.crop_ratio=[1.5,2.0]"]).augment
    ratios = []
    for seed in range(200):
        drawn = augmentation.Geometry.draw(np.random.default_rng(seed))
        left, top, right, bottom = drawn.crop_box((100, 100), 1.0, augment)
        assert 0 <= left < right <= 100 and 0 <= top < bottom <= 100
        assert (right - left) * (bottom - top) == pytest.approx(2500)
        ratios.append((right - left) / (bottom - top))
    assert 1.5 <= min(ratios) < 1.55 and 1.94 < max(ratios) <= 2.0


def test_a_batch_draws_the_geometry_that_single_images_draw():
    """Guards against images that are flipped differently on the fast path."""
    generators = [[np.random.default_rng(seed) for seed in range(5)] for _ in range(2)]
    batch = augmentation.Geometry.draw_batch(iter(generators[0]), 5)
    single = [augmentation.Geometry.draw(generator) for generator in generators[1]]
    assert (np.stack(batch, axis=1) == np.asarray(single)).all()
    assert [a.random() == b.random() for a, b in zip(*generators, strict=True)] == [True] * 5


@pytest.mark.parametrize("setting", ["invert", "random_erasing"])
@pytest.mark.effect("augment.invert", "augment.random_erasing")
def test_a_probability_is_the_fraction_of_changed_images(plain, setting):
    """Guards against a change that is made always, or never, whatever the probability."""
    changed = (results(make_transform(plain, **{setting: 0.3}), flat(200), 400) != 200).any(axis=(1, 2, 3))
    assert 90 <= changed.sum() <= 150


@pytest.mark.effect("augment.randaugment_num_ops", "augment.randaugment_magnitude")
def test_randaugment_is_as_strong_as_its_magnitude(plain, image):
    """Guards against a magnitude that nothing reads, and a number of operations that is always one."""
    original = np.asarray(image).transpose(2, 0, 1).astype(int)

    def change(num_ops: int, magnitude: float) -> float:
        transform = make_transform(plain, randaugment_num_ops=num_ops, randaugment_magnitude=magnitude)
        return float(np.abs(results(transform, image, 200) - original).mean())

    assert change(1, 3.0) < 0.75 * change(1, 15.0) < 0.75 * change(1, 30.0)
    assert change(1, 9.0) < 0.8 * change(3, 9.0)


def test_every_setting_of_the_group_belongs_to_a_function(plain):
    """Guards against a setting that changes nothing, and a function whose setting config.yaml lacks."""
    augment = config.load().augment
    augmentation.active(augment)
    unknown = type(augment).model_validate(augment.model_dump() | {"glare": 0.5})
    with pytest.raises(UserError, match=r"augment\.glare belongs to no augmentation"):
        TrainTransform.from_settings(config.load().model_copy(update={"augment": unknown}))
    with pytest.raises(UserError, match=r"augment\.invert is missing"):
        augmentation.active(type(augment).model_validate({k: v for k, v in augment if k != "invert"}))
