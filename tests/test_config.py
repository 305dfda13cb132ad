"""Settings: read, validated, overridden, saved, and refused with one clear line."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

import config
from config import load
from system import cli
from system.errors import UserError, problems
from system.settings import CHANGEABLE

ROOT = Path(__file__).resolve().parent.parent


def refusal(*overrides: str, file=None) -> str:
    with pytest.raises(UserError) as error:
        load(file, overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_defaults_are_read_and_locked():
    """Guards against defaults that are out of their own range, and against code that changes settings."""
    settings = load()
    assert settings.image_shape[0] == 3
    assert settings.lists == Path(settings.data_dir)
    with pytest.raises(Exception, match="frozen"):
        settings.epochs = 3


def test_every_setting_has_one_line_and_a_comment():
    """Guards against a setting without explanation, or with two lines in config.yaml."""
    lines = [line for line in config.DEFAULTS.read_text("utf-8").splitlines() if re.match(r"\s*\w+:", line)]
    assert [line for line in lines if "#" not in line] == []
    names = [line.split(":")[0].strip() for line in lines]
    assert len(set(names)) == len(names)
    assert {key.split(".")[-1] for key in config.known_keys()} <= set(names)


@pytest.mark.parametrize("text, number", [("1e-3", 1e-3), ("5E-2", 5e-2), ("1", 1.0), ("1.5e-4", 1.5e-4)])
def test_numbers_in_every_notation(text, number, tmp_path):
    """Guards against YAML's reading of 1e-3 as text, on the command line and in a file."""
    assert load(None, [f"learning_rate={text}"]).learning_rate == number
    file = tmp_path / "mine.yaml"
    file.write_text(f"learning_rate: {text}\n")
    assert load(file).learning_rate == number


def test_overrides_win_over_the_file_and_the_file_over_the_defaults(tmp_path):
    """Guards against a wrong order of the three sources, and against a file that resets what it does not name."""
    file = tmp_path / "mine.yaml"
    file.write_text("EPOCHS: 7\nbatch_size: 3\naugment:\n  rotation: 45\n")
    settings = load(file, ["epochs=9", "Augment.Vertical_Flip=0.25"])
    assert (settings.epochs, settings.batch_size) == (9, 3)
    assert (settings.augment.rotation, settings.augment.vertical_flip) == (45, 0.25)
    assert settings.augment.horizontal_flip == load().augment.horizontal_flip
    assert settings.seed == load().seed


@pytest.mark.parametrize(
    "override, close",
    [("epoch=3", "epochs"), ("augment.rotate=3", "augment.rotation"), ("learing_rate=1", "learning_rate")],
)
def test_an_unknown_key_is_refused_with_the_closest_name(override, close, tmp_path):
    """Guards against a mistyped setting that is silently ignored, on the command line and in a file."""
    message = refusal(override)
    assert override.split("=")[0] in message and f"did you mean {close}?" in message
    key, value = override.split("=")
    *groups, last = key.split(".")
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({groups[0]: {last: value}} if groups else {last: value}))
    assert str(file) in refusal(file=file) and f"did you mean {close}?" in refusal(file=file)


@pytest.mark.parametrize(
    "override, word",
    [
        ("image_shape=[1,28,28]", "[3, H, W]"),
        ("image_shape=[3,0,28]", "image_shape"),
        ("image_shape=64", "image_shape"),
        ("epochs=0", "epochs"),
        ("epochs=many", "epochs"),
        ("epochs=", "epochs"),
        ("batch_size=2.5", "batch_size"),
        ("learning_rate=-1", "learning_rate"),
        ("learning_rate=.nan", "learning_rate"),
        ("augment.horizontal_flip=2", "augment.horizontal_flip"),
        ("augment.brightness=-0.1", "augment.brightness"),
        ("augment.brightness=[0.1,0.2]", "augment.brightness=[0.1, 0.2]: must be a single number"),
        ("augment.random_erasing=.nan", "augment.random_erasing"),
        ("augment.crop_scale=[0.9,0.1]", "crop_scale"),
        ("augment.crop_scale=[0,1]", "crop_scale"),
        ("augment=3", "augment"),
        ("std=[0,1,1]", "std"),
        ("device=tpu", "device"),
        ("run_name=a/b", "run_name"),
        ("resize=squash", "resize"),
    ],
)
def test_values_out_of_their_range_are_refused_by_name(override, word):
    """Guards against a value that is clipped to its range, or that fails later with another library's message."""
    assert word in refusal(override)


def test_problems_are_reported_together():
    """Guards against fixing settings one error at a time."""
    message = refusal("epochs=0", "batch_size=0", "seed=-1")
    assert all(key in message for key in ("epochs", "batch_size", "seed"))


def test_only_the_first_ten_problems_are_listed():
    """Guards against an error of ten thousand lines, and against one that hides how many there are."""
    message = str(problems("here", [f"number {n} is wrong" for n in range(25)], "fix them"))
    assert "number 9 " in message and "number 10 " not in message and "15 more" in message


@pytest.mark.parametrize("content", ["just text", "- a\n- b", "a: [", "\x00", "a: b: c"])
def test_a_file_without_settings_is_refused(content, tmp_path):
    """Guards against a traceback from the YAML parser."""
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    assert str(file) in refusal(file=file)


@pytest.mark.parametrize("content", ["epochs: 3\nepochs: 4", "augment:\n  rotation: 1\n  rotation: 2"])
def test_a_key_given_twice_is_refused(content, tmp_path):
    """Guards against YAML's silent choice of the last of two values."""
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    assert "is set twice" in refusal(file=file)


NUMERIC = sorted(
    key
    for key in config.known_keys()
    if type(config.look_up(load().model_dump(), key)) in (int, float, tuple) or key in ("threads", "num_workers")
)


@pytest.mark.parametrize("key", NUMERIC)
@pytest.mark.parametrize("value", ["true", "false", "[true, 2]", "[0.5, true]"])
def test_booleans_are_no_numbers(key, value):
    """Guards against true, which Python counts as 1, in any numeric setting."""
    assert f"{key}=" in refusal(f"{key}={value}")


def test_a_missing_or_undecodable_file_is_named(tmp_path):
    """Guards against a bare FileNotFoundError or UnicodeDecodeError for a mistyped --config."""
    assert "none.yaml" in refusal(file=tmp_path / "none.yaml")
    assert str(tmp_path) in refusal(file=tmp_path)
    (tmp_path / "latin.yaml").write_bytes("data_dir: f\xfcr".encode("latin-1"))
    assert "latin.yaml" in refusal(file=tmp_path / "latin.yaml")


def test_a_missing_setting_of_config_yaml_is_named(tmp_path, monkeypatch):
    """Guards against a default that comes from nowhere once a line of config.yaml is lost."""
    values = yaml.safe_load(config.DEFAULTS.read_text("utf-8"))
    del values["seed"], values["augment"]["rotation"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.setattr(config, "DEFAULTS", tmp_path / "config.yaml")
    with pytest.raises(UserError, match=r"augment\.rotation is missing; seed is missing"):
        load(base=tmp_path / "config.yaml")


@pytest.fixture
def augment_of_ones_own(tmp_path, monkeypatch):
    """A config.yaml with two augment settings that system/settings.py does not know."""
    values = yaml.safe_load(config.DEFAULTS.read_text("utf-8"))
    values["augment"] |= {"blur": 0.25, "gamma": [0.5, 2.0]}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.setattr(config, "DEFAULTS", tmp_path / "config.yaml")
    return lambda *overrides: load(overrides=overrides, base=tmp_path / "config.yaml")


def test_an_augment_setting_of_config_yaml_alone_is_validated(augment_of_ones_own):
    """Guards against an augmentation of one's own whose setting takes any value, or needs a line of code elsewhere."""
    augment = augment_of_ones_own("augment.blur=1e-1", "augment.gamma=[0.9,1.1]").augment
    assert (augment.blur, augment.gamma) == (0.1, (0.9, 1.1))
    for override in ("blur=1.5", "blur=[0,1]", "blur=some", "gamma=0.5", "gamma=[2,1]", "gamma=[0,1]", "gamma=[1]"):
        with pytest.raises(UserError, match=rf"augment\.{override.split('=')[0]}\b"):
            augment_of_ones_own(f"augment.{override}")
    with pytest.raises(UserError, match=r"did you mean augment\.blur"):
        augment_of_ones_own("augment.blurr=0.1")


def as_run(folder: Path, *lost: str, **values) -> Path:
    """Writes a run's copy of the settings, as of this release but for the lost keys and changed values."""
    file = folder / "run.yaml"
    config.save(load(overrides=["epochs=3", "augment.hue=0.01"]), file)
    content = yaml.safe_load(file.read_text("utf-8")) | values
    for key in lost:
        group = content["augment"] if key.startswith("augment.") else content
        del group[key.rpartition(".")[2]]
    file.write_text(yaml.safe_dump(content))
    return file


def test_a_run_of_the_present_format_has_every_setting(tmp_path):
    """Guards against defaults that silently replace what a damaged run was trained with."""
    for key in config.known_keys():
        with pytest.raises(UserError, match=rf"run\.yaml: {key} is missing; the file is damaged"):
            load(base=as_run(tmp_path, key))


def test_a_run_older_than_a_setting_takes_the_value_that_reproduces_it(tmp_path, monkeypatch):
    """Guards against runs that newer code cannot read, or reads with today's default."""
    for number, added in config.ADDED.items():
        for key, value in added.items():
            assert config.look_up(load(base=as_run(tmp_path, key, format=number - 1)).model_dump(), key) == value
    monkeypatch.setattr(config, "ADDED", {2: {"loss": "another"}})
    assert load(base=as_run(tmp_path, "loss", "format")).loss == "another"
    assert load(base=as_run(tmp_path, "format")).loss == load().loss, "a value in the run comes first"


def test_a_setting_of_a_later_format_is_not_filled_in(tmp_path, monkeypatch):
    """Guards against a format that takes a default for a setting which its runs have always had."""
    monkeypatch.setattr(config, "FORMAT", 9)
    monkeypatch.setattr(config, "ADDED", config.ADDED | {9: {"ema": 0.0}})
    assert load(base=as_run(tmp_path, "ema", format=8)).ema == 0
    with pytest.raises(UserError, match="loss is missing"):
        load(base=as_run(tmp_path, "loss", format=8))


def test_an_old_run_takes_todays_machine_but_nothing_else(tmp_path):
    """Guards against a run of format 1, cut short, that is completed with today's defaults."""
    added = {key: value for group in config.ADDED.values() for key, value in group.items()}
    old = load(base=as_run(tmp_path, "format", *added, *CHANGEABLE))
    assert old == load(overrides=["epochs=3", "augment.hue=0.01"]).model_copy(update=added)
    for key in sorted(set(config.known_keys()) - CHANGEABLE - added.keys()):
        with pytest.raises(UserError, match=rf"run\.yaml: {key} is missing"):
            load(base=as_run(tmp_path, "format", key))


@pytest.mark.parametrize(
    "text", ["photos #2", "[a-z]+", "{1}", "007", "1e3", "a: b", "*.x", "!x", "- a", "%a", "@a", "中文"]
)
def test_a_path_or_pattern_on_the_command_line_is_taken_as_it_stands(text):
    """Guards against data_dir="photos #2" that becomes `photos`, and patterns that YAML takes for lists."""
    assert load(overrides=[f"data_dir={text}"]).data_dir == text
    for quote in "\"'":
        assert load(overrides=[f"data_dir={quote}{text}{quote}"]).data_dir == text
    assert load(overrides=["lists_dir=null", "pretrained=true"]).lists_dir is None
    with pytest.raises(UserError, match="cannot be read"):
        load(overrides=["data_dir='open"])


@pytest.mark.parametrize(
    "shape, resize", [([3, 32, 32], "crop"), ([3, 32, 48], "crop_short"), ([3, 48, 32], "crop_short")]
)
@pytest.mark.parametrize("version", [None, 2, 3])
def test_an_old_crop_to_a_shape_that_is_not_square_is_kept(tmp_path, version, shape, resize):
    """Guards against a run whose images are cropped otherwise than when it was trained."""
    values = {} if version is None else {"format": version}
    run = as_run(tmp_path, *(["format"] if version is None else []), image_shape=shape, resize="crop", **values)
    assert load(base=run).resize == (resize if version != 3 else "crop")


def test_a_run_older_than_an_augmentation_went_without_it(tmp_path, monkeypatch):
    """Guards against an augmentation of one's own that makes every earlier run unreadable, or that they get."""
    run = as_run(tmp_path, format=config.FORMAT)
    lines = config.DEFAULTS.read_text("utf-8").replace(
        "  hue:", "  blur: 0.3  # p\n  zoom: [0.5, 2.0]  # factors\n  hue:"
    )
    (tmp_path / "config.yaml").write_text(lines, encoding="utf-8")
    monkeypatch.setattr(config, "DEFAULTS", tmp_path / "config.yaml")
    augment = load(base=run).augment.model_dump()
    assert (augment["blur"], augment["zoom"]) == (0, (1, 1))
    assert load(base=tmp_path / "config.yaml").augment.model_dump()["blur"] == 0.3


@pytest.mark.parametrize("number", [0, 99, "new", None, True, 1.0])
def test_an_unknown_format_is_refused(tmp_path, number):
    """Guards against a run of a later release that is read with settings missing."""
    with pytest.raises(UserError, match=r"run\.yaml: format .* is not one of"):
        load(base=as_run(tmp_path, format=number))


@pytest.mark.parametrize("old, new", config.RENAMED.items())
def test_old_names_are_read_everywhere(tmp_path, old, new):
    """Guards against recipes, runs and scripts that a new name breaks, and against two values for one setting."""
    value = config.look_up(load().model_dump(), new)
    other = (value or 0.5) / 2 if isinstance(value, float) else value + 1
    expected = load(overrides=[f"{new}={other}"])
    assert load(overrides=[f"{old}={other}"]) == load(overrides=[f"{old.upper()}={other}"]) == expected
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(cli.parse_overrides([f"{old}={other}"])))
    assert load(tmp_path / "mine.yaml") == expected

    run = yaml.safe_load(as_run(tmp_path, "format", "loss", new).read_text("utf-8"))
    group = run["augment"] if "." in old else run
    group[old.rpartition(".")[2]] = other
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    assert config.look_up(load(base=tmp_path / "run.yaml").model_dump(), new) == other

    assert f"{new} is set twice" in refusal(f"{old}={other}", f"{new}={other}")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(cli.parse_overrides([f"{old}={other}", f"{new}={other}"])))
    assert f"{new} is set twice" in refusal(file=tmp_path / "mine.yaml")
    assert config.get(old) == config.get(new)


@examples(max_examples=25, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(config.known_keys()),
        st.one_of(st.text(max_size=12), st.integers(), st.floats(), st.lists(st.floats(), max_size=3).map(str)).map(
            str
        ),
        max_size=3,
    )
)
@example({"augment": "3", "augment.rotation": "2"})
@example({"epochs": "1", "epochs.x": "2"})
@example({"run_name": "2020-99-99"})
@example({"run_name": "!!python/name:os.system"})
@example({"": "1"})
@example({"augment.": "1"})
def test_any_override_is_taken_or_refused_in_one_line(values):
    """Guards against a traceback, whatever follows the equals sign."""
    try:
        load(None, [f"{key}={value}" for key, value in values.items()])
    except UserError as error:
        assert str(error)


def test_settings_are_read_back_as_they_were_saved(tmp_path):
    """Guards against a run folder that describes another training than its own."""
    settings = load(
        None, ["learning_rate=3e-4", "data_dir=图 片", "pretrained=w.pdparams", "augment.crop_scale=[0.5,0.75]"]
    )
    config.save(settings, tmp_path / "config.yaml")
    assert load(base=tmp_path / "config.yaml") == settings


@pytest.mark.parametrize(
    "path, value",
    [
        ("image_shape", [3, 64, 64]),
        ("IMAGE_SHAPE", [3, 64, 64]),
        ("augment.horizontal_flip", 0.5),
        ("Augment.Horizontal_Flip", 0.5),
        ("learning_rate", 1e-3),
        ("LEARNING_RATE.params.lr", 1e-3),
        ("OPTIMIZER.params.momentum", 0.9),
        ("TRAIN.batch_size", 16),
        ("train_list", "signs/train.txt"),
        ("VALID.file_list", "signs/valid.txt"),
        ("test_list", "signs/test.txt"),
        ("class_dim", 12),
        ("model_save_dir", "output/course/model"),
    ],
)
def test_get_looks_settings_up_as_course_code_does(path, value, monkeypatch):
    """Guards against course code that finds no setting: dotted names, any case, lists for shapes."""
    monkeypatch.setattr(config, "load", lambda: load(None, ["image_shape=[3,64,64]", "learning_rate=1e-3"]))
    assert config.get(path) == value


def test_get_knows_the_label_map_of_the_data(tmp_path, monkeypatch):
    """Guards against a label map written a second time into the settings."""
    monkeypatch.setattr(config, "load", lambda: load(None, [f"data_dir={tmp_path}"]))
    with pytest.raises(UserError, match=r"annotate\.py"):
        config.get("LABEL_MAP")
    (tmp_path / "labels.txt").write_text("ratt\nox\n")
    (tmp_path / "train.txt").write_text("a.jpg\t0\nb.jpg\t1\nc.jpg\t1\n")
    assert config.get("LABEL_MAP") == ["ratt", "ox"]
    assert (config.get("num_classes"), config.get("total_images")) == (2, 3)
    (tmp_path / "labels.txt").write_bytes(b"\xef\xbb\xbfratt\r\nox\r\n")
    assert config.get("LABEL_MAP") == ["ratt", "ox"]


@pytest.mark.parametrize(
    "path, instead",
    [
        ("TRAIN.transforms", "the group augment"),
        ("image_enhance_strategy.need_flip", "the group augment"),
        ("use_mix", "augment.mixup"),
        ("OPTIMIZER.regularizer.function", "weight_decay take"),
        ("LEARNING_RATE.params.steps", "learning_rate, schedule"),
    ],
)
def test_get_says_what_replaces_a_name_of_the_courses(path, instead):
    """Guards against course code that fails without a hint, or that is given a value of another meaning."""
    with pytest.raises(UserError, match=f"no setting {path} here; .*{instead}"):
        config.get(path)


@pytest.mark.parametrize("path", ["no_such", "augment.no_such", "image_shape.0", "", "."])
def test_get_refuses_what_it_does_not_know(path):
    """Guards against None for a mistyped name."""
    with pytest.raises(UserError, match="no setting"):
        config.get(path)


def test_settings_are_separated_from_file_names(tmp_path, monkeypatch):
    """Guards against an image called a=b.jpg that is read as a setting."""
    monkeypatch.chdir(tmp_path)
    Path("a=b.jpg").touch()
    assert cli.split_overrides(["top_k=2", "a=b.jpg", "x/y=1.jpg", "c.d=1", "dog.jpg"]) == (
        ["top_k=2", "c.d=1"],
        ["a=b.jpg", "x/y=1.jpg", "dog.jpg"],
    )


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "recipes").glob("*.yaml")))
def test_recipes_are_settings(name):
    """Guards against a recipe with a setting that no longer exists."""
    load(ROOT / "recipes" / name)


def test_usage_errors_end_with_2_and_refusals_with_1(call):
    """Guards against scripts that cannot tell a wrong command line from a wrong value."""
    import train

    usage = call(train, "--no-such-option")
    assert usage.status == 2 and "usage:" in usage.err
    call(train, "epochs=0").refused("epochs", "command line")
    call(train, "not a setting").refused("KEY=VALUE")
    call(train, "--config", "none.yaml").refused("none.yaml")
