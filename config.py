"""Settings: read from YAML and the command line, validated, saved.

Defaults are in config.yaml only; types and ranges in system/settings.py.
"""

import difflib
import functools
import os
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from system import course_names
from system.cli import parse_overrides
from system.errors import UserError, problems, shorten
from system.files import read_lines
from system.publishing import write_text
from system.settings import CHANGEABLE, Augment, Settings, is_text
from system.yaml_files import read_yaml

DEFAULTS = Path(__file__).with_name("config.yaml")
# Format of the copies of the settings that runs keep. Raise it whenever a setting is added or changes its meaning.
FORMAT = 6
# The settings that each format added, with the values that reproduce runs of earlier formats.
ADDED: dict[int, dict[str, Any]] = {
    2: {"loss": "cross_entropy"},
    3: {"color_profile": "ignore", "group_by": "none"},
    4: {"features": "off", "layer_decay": 1.0, "folds": 0},
    5: {"labels_file": None},
    6: {"processes": 1},
}
# Before this format, `resize: crop` resized the short side to the longer one of image_shape, whatever its shape.
CROP_COVERS_SINCE, CROP_BEFORE = 3, "crop_short"
# Augmentations beyond those of system/settings.py that runs of every format have a value for.
ALWAYS_SAVED = frozenset("shift brightness contrast saturation invert random_erasing".split())
# Old names, still read from files, from runs and on the command line.
RENAMED = {
    "body_rate": "backbone_lr_scale",
    "augment.rand_operations": "augment.randaugment_num_ops",
    "augment.rand_magnitude": "augment.randaugment_magnitude",
    "augment.erase": "augment.random_erasing",
}
# Values are quoted in errors: in full where they are short, and in bounded time where aliases repeat them.
_QUOTES = reprlib.Repr()
_QUOTES.maxlist = _QUOTES.maxtuple = _QUOTES.maxdict = 10
_QUOTES.maxstring = _QUOTES.maxother = _QUOTES.maxlong = 100
SEE_COMMENTS = "see the comments in config.yaml"


def known_keys() -> list[str]:
    """Names of all settings, in the order of config.yaml, nested ones with a dot."""
    augment = [f"augment.{name}" for name in {**_augment_defaults(DEFAULTS), **Augment.model_fields}]
    return [key for name in Settings.model_fields for key in (augment if name == "augment" else [name])]


@functools.cache
def _augment_defaults(file: Path) -> dict[str, Any]:
    group = read_yaml(file).get("augment")
    return {str(name).lower(): value for name, value in group.items()} if isinstance(group, dict) else {}


def look_up(values: Mapping[str, Any], key: str) -> Any:
    """Returns the value of a setting, by its dotted name, from nested settings."""
    return functools.reduce(lambda node, part: node[part], key.split("."), values)


def _unknown(where: str, key: str) -> UserError:
    close = difflib.get_close_matches(key, known_keys(), n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else "config.yaml lists every setting"
    return UserError(f"{where}: there is no setting {shorten(key)}; {hint}")


def _flatten(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Flattens nested settings into values by dotted lower-case name; old names are replaced by the present ones.

    Raises:
        UserError: A name is unknown or set twice, or augment is not a group.
    """
    flat: dict[str, Any] = {}
    known = set(known_keys())
    for key, value in _leaves(content, where):
        name = RENAMED.get(key.lower(), key.lower())
        if name not in known:
            raise _unknown(where, key)
        if name in flat:
            raise UserError(f"{where}: {name} is set twice; set it once, by this name")
        flat[name] = value
    return flat


def _leaves(content: Mapping[str, Any], where: str) -> Iterable[tuple[str, Any]]:
    for key, value in content.items():
        if str(key).lower() != "augment":
            yield str(key), value
        elif isinstance(value, dict):
            yield from ((f"{key}.{inner}", one) for inner, one in value.items())
        else:
            raise UserError(f"{where}: augment is a group of settings; set one of them, augment.KEY=VALUE")


def _validate(flat: Mapping[str, Any], where: str) -> Settings:
    try:
        settings = Settings.model_validate(_nest(flat))
    except ValidationError as error:
        raise problems(where, list(dict.fromkeys(map(_message, error.errors()))), SEE_COMMENTS) from None
    kinds = {True: "a range [lowest, highest]", False: "a single number"}
    defaults = _augment_defaults(DEFAULTS)
    wrong = [
        f"augment.{name}={flat[f'augment.{name}']!r}: must be {kinds[isinstance(defaults[name], list)]}"
        for name, value in (settings.augment.model_extra or {}).items()
        if isinstance(value, tuple) != isinstance(defaults[name], list)
    ]
    if wrong:
        raise problems(where, wrong, SEE_COMMENTS)
    return settings


def _message(error: ErrorDetails) -> str:
    names = {part for key in known_keys() for part in key.split(".")}
    key = ".".join(str(part) for part in error["loc"] if part in names)
    text = error["msg"].removeprefix("Value error, ")
    # Checks of a whole group name the setting in their text.
    if not key or isinstance(error["input"], dict):
        return text
    return f"{key}={_QUOTES.repr(error['input'])}: {text[0].lower() + text[1:]}"


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {name: value for name, value in flat.items() if "." not in name}
    nested["augment"] = {name.partition(".")[2]: value for name, value in flat.items() if "." in name}
    return nested


def load(
    file: str | os.PathLike | None = None, overrides: Iterable[str] = (), base: str | os.PathLike = DEFAULTS
) -> Settings:
    """Reads the settings: base, overridden by a file, overridden by `key=value` arguments.

    Args:
        file: A YAML file with the settings that differ from base, such as a recipe.
        overrides: Arguments such as `epochs=3` or `augment.rotation=0`.
        base: The YAML file with every setting: config.yaml, or the copy that a run keeps.

    Raises:
        UserError: A file cannot be read, a key is unknown, base lacks one, or a value is out of its range.
    """
    values, where = _read_base(Path(base)), str(base)
    if file is not None:
        where, content = str(file), read_yaml(file)
        _take_format(content, where)
        values |= _flatten(content, where)
    if overrides := list(overrides):
        where = "command line"
        values |= _flatten(parse_overrides(overrides, _texts()), where)
    return _validate(values, where)


@functools.cache
def _texts() -> frozenset[str]:
    return frozenset(name for name, field in Settings.model_fields.items() if is_text(field.annotation))


def _read_base(base: Path) -> dict[str, Any]:
    """Reads a file with every setting; a run of an earlier format is completed with values that reproduce it."""
    content = read_yaml(base)
    version = FORMAT if base == DEFAULTS else _take_format(content, str(base))
    values = _flatten(content, str(base))
    if version < FORMAT:
        # Paths and the machine's settings may be today's; settings that define the run may not.
        today = _read_base(DEFAULTS)
        values = {key: today[key] for key in CHANGEABLE} | _added_since(version) | values
        if version < CROP_COVERS_SINCE and values.get("resize") == "crop" and not _is_square(values.get("image_shape")):
            values["resize"] = CROP_BEFORE
    if base != DEFAULTS:
        values = _neutral_augmentations() | values
    if missing := [f"{key} is missing" for key in sorted(known_keys()) if key not in values]:
        remedy = "put it back; every setting has one line" if base == DEFAULTS else "the file is damaged; restore it"
        raise problems(str(base), missing, remedy)
    return values


def _is_square(image_shape: Any) -> bool:
    return isinstance(image_shape, list) and len({str(side) for side in image_shape[1:]}) == 1


def _neutral_augmentations() -> dict[str, Any]:
    """What a run did that is older than an augmentation which only config.yaml knows: it went without."""
    return {
        f"augment.{name}": [1.0, 1.0] if isinstance(value, list) else 0.0
        for name, value in _augment_defaults(DEFAULTS).items()
        if name not in Augment.model_fields and name not in ALWAYS_SAVED
    }


def _added_since(version: int) -> dict[str, Any]:
    return {key: value for number, added in ADDED.items() if number > version for key, value in added.items()}


def with_older_values(settings: Settings, run: Settings) -> Settings:
    """Returns settings to resume a run with: what an earlier release trained with, where nothing else is asked for.

    Args:
        settings: From config.yaml and the command line.
        run: The run's own.
    """
    today = load()
    older = _added_since(0) | {"resize": CROP_BEFORE}
    kept = {
        key: value
        for key, value in older.items()
        if getattr(run, key) == value and getattr(settings, key) == getattr(today, key)
    }
    return settings.model_copy(update=kept)


def _take_format(content: dict[str, Any], where: str) -> int:
    """Removes the format number from the content of a file and returns it; 1 if there is none."""
    version = content.pop("format", 1)
    if type(version) is not int or not 1 <= version <= FORMAT:
        raise UserError(f"{where}: format {version!r} is not one of 1 to {FORMAT}; use the release that wrote it")
    return version


def save(settings: Settings, path: str | os.PathLike) -> None:
    """Writes every setting to a YAML file that `load(base=path)` reads back unchanged.

    Raises:
        UserError: The folder cannot be written to.
    """
    write_text(path, as_yaml(settings))


def as_yaml(settings: Settings) -> str:
    """Returns the text of such a file."""
    content = {"format": FORMAT} | settings.model_dump(mode="json")
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None)


def get(path: str) -> Any:
    """Returns one setting of config.yaml, as the zodiac course's code does: `get("image_shape")`, `get("LABEL_MAP")`.

    Args:
        path: Name of a setting, dotted for nested ones, in upper or lower case. `label_map` (list of class names),
            `num_classes` and `total_images` (rows of the training list) are read from labels.txt and train.txt;
            `train_list`, `valid_list`, `test_list` are the paths of the lists; `model_save_dir` is a prefix below
            output_dir that `paddle.Model.save` and `load` take.

    Raises:
        UserError: There is no such setting, or the list has not been written yet.
    """
    settings, name = load(), path.lower()
    if name == "model_save_dir":
        return str(Path(settings.output_dir) / "course" / "model")
    if name in course_names.LISTS:
        return str(settings.lists / course_names.LISTS[name])
    if name in ("label_map", "total_images", *course_names.NUM_CLASSES):
        lines = read_lines(settings.lists / ("train.txt" if name == "total_images" else "labels.txt"))
        return lines if name == "label_map" else len(lines)
    node: Any = settings.model_dump()
    for part in (course_names.SETTINGS | RENAMED).get(name, name).split("."):
        if not isinstance(node, dict) or part not in node:
            raise course_names.replaced(path) or _unknown("config.get", path)
        node = node[part]
    return list(node) if isinstance(node, tuple) else node
