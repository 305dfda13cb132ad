"""Settings: read them from YAML, check them, override them, save them.

Defaults live in config.yaml and nowhere else; this file holds their types and ranges.
"""

import difflib
import functools
import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from system.errors import UserError, problems

DEFAULTS = Path(__file__).with_name("config.yaml")


def _auto_or_integer(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdigit() else value


Probability = Annotated[float, Field(ge=0, le=1)]
Range = Annotated[tuple[float, float], Field()]
Auto = Annotated[Literal["auto"] | Annotated[int, Field(ge=0, le=1024)], BeforeValidator(_auto_or_integer)]
Channels = tuple[float, float, float]
# YAML reads a bare `off` as false.
Reject = Annotated[
    Literal["coverage", "precision", "off"], BeforeValidator(lambda value: "off" if value is False else value)
]


class Section(BaseModel):
    """A locked group of settings: no unknown key, no change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True, allow_inf_nan=False)


class Augment(Section):
    """Random changes to training images."""

    crop_scale: Range
    crop_ratio: Range
    horizontal_flip: Probability
    vertical_flip: Probability
    rotation: Annotated[float, Field(ge=0, le=180)]
    scale: Range
    shift: Annotated[float, Field(ge=0, le=1)]
    brightness: Probability
    contrast: Probability
    saturation: Probability
    hue: Annotated[float, Field(ge=0, le=0.5)]
    invert: Probability
    rand_operations: Annotated[int, Field(ge=0, le=14)]
    rand_magnitude: Annotated[float, Field(ge=0, le=30)]
    erase: Probability
    mixup: Annotated[float, Field(ge=0, le=10)]
    cutmix: Annotated[float, Field(ge=0, le=10)]

    @model_validator(mode="after")
    def _ordered(self) -> "Augment":
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError("augment.crop_scale must be two shares with 0 < lowest <= highest <= 1")
        if not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            raise ValueError("augment.crop_ratio must be two numbers with 0 < lowest <= highest")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError("augment.scale must be two factors with 0 < lowest <= highest")
        return self


class Settings(Section):
    """All settings of config.yaml; what each means stands there."""

    data_dir: str
    lists_dir: str | None
    image_shape: tuple[int, Annotated[int, Field(ge=1, le=4096)], Annotated[int, Field(ge=1, le=4096)]]
    resize: Literal["crop", "stretch"]
    crop_fraction: Annotated[float, Field(gt=0, le=1)]
    non_rgb: Literal["skip", "convert"]
    max_pixels: Annotated[int, Field(ge=1)]
    valid_fraction: Annotated[float, Field(ge=0, le=0.5)]
    test_fraction: Annotated[float, Field(ge=0, le=0.5)]
    duplicates: Literal["near", "exact", "none"]
    on_leak: Literal["report", "drop_from_train", "error"]
    scan_workers: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)]
    network: str
    pretrained: bool | str
    freeze: bool
    unfreeze_epoch: Annotated[int, Field(ge=0)]
    body_rate: Annotated[float, Field(gt=0, le=1)]
    mean: Channels
    std: Channels
    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    optimizer: Literal["adam", "adamw", "momentum"]
    learning_rate: Annotated[float, Field(gt=0, le=10)]
    schedule: Literal["constant", "cosine", "one_cycle", "step", "plateau"]
    decay_epochs: Annotated[int, Field(ge=1)]
    decay_factor: Annotated[float, Field(gt=0, lt=1)]
    warmup_epochs: Annotated[float, Field(ge=0)]
    momentum: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0, le=1)]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    class_balance: Literal["none", "weights", "sampling"]
    clip_norm: Annotated[float, Field(ge=0)]
    accumulate: Annotated[int, Field(ge=1)]
    ema: Annotated[float, Field(ge=0, lt=1)]
    amp: Literal["none", "O1", "O2"]
    monitor: Literal["accuracy", "loss"]
    patience: Annotated[int, Field(ge=0)]
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    augment: Augment
    output_dir: str
    run_name: Annotated[str, Field(pattern=r"^[^./\\][^/\\]*$")]
    overwrite: bool
    resume: bool
    save_every_minutes: Annotated[float, Field(gt=0)]
    export_dir: str
    top_k: Annotated[int, Field(ge=1)]
    reject: Reject
    reject_target: Annotated[float, Field(gt=0, le=1)]
    explain_layer: str
    device: Annotated[str, Field(pattern=r"^(auto|cpu|gpu(:\d+)?)$")]
    engine: Literal["auto", "onednn", "openvino", "plain", "int8", "onnxruntime", "gpu", "tensorrt"]
    threads: Auto
    num_workers: Auto
    cpu_speedups: bool
    cache: Literal["auto", "none", "ram", "disk"]
    cache_dir: str

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        if self.image_shape[0] != 3:
            raise ValueError(f"image_shape: {self.image_shape[0]} channels; images are read as RGB, write [3, H, W]")
        if min(self.std) <= 0:
            raise ValueError("std must be above 0 in every channel")
        return self

    @property
    def lists(self) -> Path:
        """Folder of labels.txt and the lists."""
        return Path(self.lists_dir or self.data_dir)

    @property
    def run(self) -> Path:
        """Folder of the run that these settings train."""
        auto = f"{Path(self.data_dir).resolve().name}-{self.network}"
        return Path(self.output_dir) / (auto if self.run_name == "auto" else self.run_name)


# What later commands may change about a finished run: where things are and how hard the machine works, never what
# the network sees or is.
CHANGEABLE = frozenset(
    "data_dir lists_dir batch_size max_pixels output_dir export_dir top_k reject reject_target explain_layer "
    "device engine threads num_workers cpu_speedups cache cache_dir".split()
)


def known_keys(section: type[Section] = Settings, prefix: str = "") -> list[str]:
    """Lists every setting, nested ones with a dot."""
    keys = []
    for name, field in section.model_fields.items():
        nested = isinstance(field.annotation, type) and issubclass(field.annotation, Section)
        keys += known_keys(field.annotation, f"{prefix}{name}.") if nested else [prefix + name]
    return keys


def look_up(values: Mapping[str, Any], key: str) -> Any:
    """Finds the value of a setting in nested settings by its dotted name."""
    return functools.reduce(lambda node, part: node[part], key.split("."), values)


def _unknown(where: str, key: str) -> UserError:
    close = difflib.get_close_matches(key, known_keys(), n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else "config.yaml lists every setting"
    return UserError(f"{where}: there is no setting {key}; {hint}")


def read_yaml(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a YAML file that holds settings.

    Raises:
        UserError: The file is missing, is no YAML, or holds something else than settings.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name an existing YAML file with --config") from None
    except (yaml.YAMLError, ValueError) as error:
        line = f" in line {error.problem_mark.line + 1}" if getattr(error, "problem_mark", None) else ""
        raise UserError(f"{path}: this is not YAML{line}; write one `key: value` a line") from None
    if not isinstance(content or {}, dict):
        raise UserError(f"{path}: this holds no settings; write one `key: value` a line")
    return content or {}


def _merge(base: dict[str, Any], changes: dict[str, Any], where: str, prefix: str = "") -> dict[str, Any]:
    """Lays changes over base, case-insensitively; an unknown key is an error."""
    merged = dict(base)
    for key, value in changes.items():
        name = str(key).lower()
        if name not in base:
            raise _unknown(where, f"{prefix}{key}")
        nested = isinstance(base[name], dict)
        if nested and not isinstance(value, dict):
            raise UserError(
                f"{where}: {prefix}{name} is a group of settings; set one of them, {prefix}{name}.KEY=VALUE"
            )
        merged[name] = _merge(base[name], value, where, f"{prefix}{name}.") if nested else value
    return merged


def parse_overrides(arguments: Iterable[str]) -> dict[str, Any]:
    """Turns `key=value` arguments, values in YAML, into nested settings.

    Raises:
        UserError: An argument has no `=` or its value is no YAML.
    """
    changes: dict[str, Any] = {}
    for argument in arguments:
        key, separator, text = argument.partition("=")
        if not separator:
            raise UserError(f"{argument}: this is not a setting; write KEY=VALUE")
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError):
            raise UserError(f"{argument}: the value cannot be read; quote it, or write lists as [3,64,64]") from None
        node = changes
        *groups, last = key.lower().split(".")
        for group in groups:
            node = node.setdefault(group, {})
            if not isinstance(node, dict):
                raise UserError(
                    f"{argument}: {group} was given one value before; set single settings or none of its group"
                )
        node[last] = value
    return changes


def _check(values: dict[str, Any], where: str) -> Settings:
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        found = []
        for item in error.errors():
            key = ".".join(str(part) for part in item["loc"] if not isinstance(part, int) and part in _names())
            text = item["msg"].removeprefix("Value error, ")
            found.append(f"{key}={item['input']!r}: {text[0].lower() + text[1:]}" if key else text)
        raise problems(where, list(dict.fromkeys(found)), "see the comments in config.yaml") from None


@functools.cache
def _names() -> frozenset[str]:
    return frozenset(part for key in known_keys() for part in key.split("."))


def load(
    file: str | os.PathLike | None = None, overrides: Iterable[str] = (), base: str | os.PathLike = DEFAULTS
) -> Settings:
    """Reads the settings: base, then a file that holds what differs, then `key=value` arguments.

    Args:
        file: A YAML file laid over base, as recipes are.
        overrides: Arguments such as `epochs=3` or `augment.rotation=0`; they win over the file.
        base: The YAML file with every setting: config.yaml, or the copy that a run keeps.

    Raises:
        UserError: A file cannot be read, a key is unknown, config.yaml lacks one, or a value is out of its range.
    """
    values, where = read_yaml(base), str(base)
    missing = sorted(set(known_keys()) - {key for name in values for key in _flat(name, values[name])})
    values = _merge(_blank(), values, where)
    if missing:
        values = _merge(values, _added_since(missing, Path(base)), str(DEFAULTS))
    if file is not None:
        values, where = _merge(values, read_yaml(file), str(file)), str(file)
    overrides = list(overrides)
    if overrides:
        values, where = _merge(values, parse_overrides(overrides), "command line"), "command line"
    return _check(values, where)


def _added_since(missing: list[str], base: Path) -> dict[str, Any]:
    """Takes settings that a run's copy lacks, because they are newer than the run, from config.yaml, and says so."""
    if base == DEFAULTS:
        raise problems(str(base), [f"{key} is missing" for key in missing], "put it back; every setting has one line")
    defaults = load().model_dump(mode="json")
    taken = [f"{key}={json.dumps(look_up(defaults, key), ensure_ascii=False)}" for key in missing]
    _tell_added(base, ", ".join(taken))
    return parse_overrides(taken)


@functools.cache
def _tell_added(base: Path, taken: str) -> None:
    # Cached, for a command reads the settings of its run several times.
    print(f"{base}: older than these settings, which are taken from config.yaml: {taken}", file=sys.stderr)


def _blank(section: type[Section] = Settings) -> dict[str, Any]:
    groups = {n: f.annotation for n, f in section.model_fields.items()}
    return {n: _blank(a) if isinstance(a, type) and issubclass(a, Section) else None for n, a in groups.items()}


def _flat(name: str, value: Any) -> list[str]:
    if isinstance(value, dict):
        return [f"{name}.{inner}".lower() for inner in value]
    return [str(name).lower()]


def save(settings: Settings, path: str | os.PathLike) -> None:
    """Writes every setting to a YAML file that `load(base=...)` reads back unchanged."""
    text = yaml.safe_dump(
        settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True, default_flow_style=None
    )
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
    for part in COURSE_NAMES.get(name, name).split("."):
        if not isinstance(node, dict) or part not in node:
            raise _unknown("config.get", path)
        node = node[part]
    return list(node) if isinstance(node, tuple) else node
