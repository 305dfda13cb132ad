"""Settings: read from YAML and the command line, checked, saved, looked up.

Defaults live in config.yaml and nowhere else; their types and ranges in system/settings.py.
"""

import difflib
import functools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from system.cli import parse_overrides
from system.errors import UserError, problems
from system.files import read_yaml
from system.settings import CHANGEABLE, Augment, Settings

DEFAULTS = Path(__file__).with_name("config.yaml")
# Of the copies that runs keep. Raise it when a setting is added or comes to mean something else.
FORMAT = 2
# What settings added since format 1 have to be for runs of that format to be what they were.
ADDED: dict[str, Any] = {"loss": "cross_entropy"}
# Old names, still read from files and on the command line.
RENAMED = {
    "body_rate": "backbone_lr_scale",
    "augment.rand_operations": "augment.randaugment_num_ops",
    "augment.rand_magnitude": "augment.randaugment_magnitude",
    "augment.erase": "augment.random_erasing",
}


_NO_VALUE = object()


def known_keys() -> list[str]:
    """Lists every setting, nested ones with a dot."""
    plain = [name for name in Settings.model_fields if name != "augment"]
    return plain + [f"augment.{name}" for name in dict.fromkeys((*Augment.model_fields, *_augment_of_file(DEFAULTS)))]


@functools.cache
def _augment_of_file(path: Path) -> tuple[str, ...]:
    group = read_yaml(path).get("augment")
    return tuple(str(name).lower() for name in group) if isinstance(group, dict) else ()


def look_up(values: Mapping[str, Any], key: str) -> Any:
    """Finds the value of a setting in nested settings by its dotted name."""
    return functools.reduce(lambda node, part: node[part], key.split("."), values)


def _unknown(where: str, key: str) -> UserError:
    close = difflib.get_close_matches(key, known_keys(), n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else "config.yaml lists every setting"
    return UserError(f"{where}: there is no setting {key}; {hint}")


def _flatten(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Turns nested settings into values by dotted name, in lower case, old names taken for new ones.

    Raises:
        UserError: A name is unknown or given twice, or a group is given one value.
    """
    flat: dict[str, Any] = {}
    known = set(known_keys())
    for key, value in _leaves(content, where):
        name = RENAMED.get(key.lower(), key.lower())
        if name not in known:
            raise _unknown(where, key)
        if name in flat:
            raise UserError(f"{where}: {name} is set twice; set it once, under this name")
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


def _check(values: dict[str, Any], where: str) -> Settings:
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        names, found = {part for key in known_keys() for part in key.split(".")}, []
        for item in error.errors():
            key = ".".join(str(part) for part in item["loc"] if part in names)
            text = item["msg"].removeprefix("Value error, ")
            found.append(f"{key}={item['input']!r}: {text[0].lower() + text[1:]}" if key else text)
        raise problems(where, list(dict.fromkeys(found)), "see the comments in config.yaml") from None


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {name: value for name, value in flat.items() if "." not in name}
    nested["augment"] = {name.partition(".")[2]: value for name, value in flat.items() if "." in name}
    return nested


def load(
    file: str | os.PathLike | None = None, overrides: Iterable[str] = (), base: str | os.PathLike = DEFAULTS
) -> Settings:
    """Reads the settings: base, then a file that holds what differs, then `key=value` arguments.

    Args:
        file: A YAML file laid over base, as recipes are.
        overrides: Arguments such as `epochs=3` or `augment.rotation=0`; they win over the file.
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
        values |= _flatten(parse_overrides(overrides), where)
    return _check(_nest(values), where)


def _read_base(base: Path) -> dict[str, Any]:
    """Reads a file that holds every setting; runs of an earlier format are read as they were meant."""
    content = read_yaml(base)
    old = _take_format(content, str(base)) < FORMAT and base != DEFAULTS
    values = _flatten(content, str(base))
    missing = [key for key in known_keys() if key not in values]
    # Where things are and how hard the machine works may be today's; what a run is may not.
    replaced = {key: ADDED.get(key, _NO_VALUE) for key in missing if old and (key in ADDED or key in CHANGEABLE)}
    if lost := [f"{key} is missing" for key in sorted(missing) if key not in replaced]:
        remedy = "put it back; every setting has one line" if base == DEFAULTS else "the file is damaged; restore it"
        raise problems(str(base), lost, remedy)
    today = _read_base(DEFAULTS) if _NO_VALUE in replaced.values() else {}
    return values | {key: today[key] if value is _NO_VALUE else value for key, value in replaced.items()}


def _take_format(content: dict[str, Any], where: str) -> int:
    """Takes the format number out of what a file holds; without one it is of format 1, or no run's at all."""
    version = content.pop("format", 1)
    if type(version) is not int or not 1 <= version <= FORMAT:
        raise UserError(
            f"{where}: format {version!r} is unknown (1 to {FORMAT} are read); use the release that wrote it"
        )
    return version


def save(settings: Settings, path: str | os.PathLike) -> None:
    """Writes every setting to a YAML file that `load(base=...)` reads back unchanged."""
    content = {"format": FORMAT} | settings.model_dump(mode="json")
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None)
    Path(path).write_text(text, encoding="utf-8")


# Names that the zodiac course's config.py uses, and where the same fact stands here.
COURSE_NAMES = {
    "model_save_dir": "output_dir",
    "learning_rate.params.lr": "learning_rate",
    "optimizer.params.momentum": "momentum",
    "optimizer.regularizer.factor": "weight_decay",
}


def get(path: str) -> Any:
    """Looks one setting of config.yaml up, as course code does: `get("image_shape")`, `get("LABEL_MAP")`.

    Args:
        path: Name of a setting, dotted for nested ones; upper or lower case. `label_map` (list of class names),
            `num_classes` and `total_images` (rows of the training list) are read from the data's lists.

    Raises:
        UserError: There is no such setting, or the list it needs has not been written.
    """
    settings, name = load(), path.lower()
    if name in ("label_map", "num_classes", "total_images"):
        list_file = settings.lists / ("train.txt" if name == "total_images" else "labels.txt")
        if not list_file.is_file():
            raise UserError(f"{list_file}: no such file; run `python annotate.py` first")
        lines = list_file.read_text(encoding="utf-8").splitlines()
        return lines if name == "label_map" else len(lines)
    node: Any = settings.model_dump()
    for part in (COURSE_NAMES | RENAMED).get(name, name).split("."):
        if not isinstance(node, dict) or part not in node:
            raise _unknown("config.get", path)
        node = node[part]
    return list(node) if isinstance(node, tuple) else node
