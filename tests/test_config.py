"""Settings: read, checked, overridden, saved, and refused with one clear line."""

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

ROOT = Path(__file__).resolve().parent.parent


def refusal(*overrides: str, file=None) -> str:
    with pytest.raises(UserError) as error:
        load(file, overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_defaults_are_read_and_locked():
    """Guards against defaults that their own checks refuse, and against settings that code changes on the way."""
    settings = load()
    assert settings.image_shape[0] == 3
    assert settings.lists == Path(settings.data_dir)
    with pytest.raises(Exception, match="frozen"):
        settings.epochs = 3


def test_every_setting_has_one_line_and_a_comment():
    """Guards against a setting that nobody explains, or that stands twice in config.yaml."""
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
    """Guards against a value that is cut to its range, or that fails later with somebody else's message."""
    assert word in refusal(override)


def test_problems_are_told_together():
    """Guards against mending settings one error at a time."""
    message = refusal("epochs=0", "batch_size=0", "seed=-1")
    assert all(key in message for key in ("epochs", "batch_size", "seed"))


def test_only_the_first_ten_problems_are_told():
    """Guards against an error of ten thousand lines, and against one that hides how many there are."""
    message = str(problems("here", [f"number {n} is wrong" for n in range(25)], "mend them"))
    assert "number 9 " in message and "number 10 " not in message and "15 more" in message


@pytest.mark.parametrize("content", ["just text", "- a\n- b", "a: [", "\x00", "a: b: c"])
def test_a_file_that_holds_no_settings_is_refused(content, tmp_path):
    """Guards against a traceback from the YAML parser."""
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    assert str(file) in refusal(file=file)


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


def test_a_run_older_than_a_setting_is_read_and_told_of(tmp_path, capsys):
    """Guards against runs that newer code cannot read, and against defaults that slip into a run unsaid."""
    values = load(overrides=["epochs=3", "augment.hue=0.01"]).model_dump(mode="json")
    del values["cache"], values["augment"]["rotation"]
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(values))
    assert load(base=file) == load(base=file) == load(overrides=["epochs=3", "augment.hue=0.01"])
    told = capsys.readouterr().err
    assert told.startswith(f"{file}: older than") and len(told.splitlines()) == 1
    assert 'cache="auto"' in told and "augment.rotation=10.0" in told
    file.write_text(yaml.safe_dump(values | {"rotation": 3}))
    with pytest.raises(UserError, match="there is no setting rotation"):
        load(base=file)
    file.write_text(yaml.safe_dump({key: value for key, value in values.items() if key != "augment"}))
    assert load(base=file).augment == load().augment


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
    """Guards against a traceback, whatever stands behind the equals sign."""
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


@pytest.mark.parametrize("path", ["no_such", "augment.no_such", "image_shape.0", "", "."])
def test_get_refuses_what_it_does_not_know(path):
    """Guards against None for a mistyped name."""
    with pytest.raises(UserError, match="no setting"):
        config.get(path)


def test_settings_are_told_from_file_names(tmp_path, monkeypatch):
    """Guards against an image called a=b.jpg that is taken for a setting."""
    monkeypatch.chdir(tmp_path)
    Path("a=b.jpg").touch()
    assert cli.split_overrides(["top_k=2", "a=b.jpg", "x/y=1.jpg", "c.d=1", "dog.jpg"]) == (
        ["top_k=2", "c.d=1"],
        ["a=b.jpg", "x/y=1.jpg", "dog.jpg"],
    )


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "recipes").glob("*.yaml")))
def test_recipes_are_settings(name):
    """Guards against a recipe that names a setting of an older release."""
    load(ROOT / "recipes" / name)


def test_usage_errors_end_with_2_and_refusals_with_1(call):
    """Guards against scripts that cannot tell a wrong command line from a wrong value."""
    import train

    usage = call(train, "--no-such-option")
    assert usage.status == 2 and "usage:" in usage.err
    call(train, "epochs=0").refused("epochs", "command line")
    call(train, "not a setting").refused("KEY=VALUE")
    call(train, "--config", "none.yaml").refused("none.yaml")
