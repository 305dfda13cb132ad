"""Settings: names, types and ranges. config.yaml explains each."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)


def _auto_or_integer(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdigit() else value


def _kind(value: Any) -> str:
    return "range" if isinstance(value, (list, tuple)) else "probability"


def _off(value: Any) -> Any:
    # YAML reads a bare `off` as false.
    return "off" if value is False else value


def _fits_file_system(path: str) -> str:
    if "\0" in path:
        raise ValueError("a path cannot contain a null character")
    try:
        parts = [len(os.fsencode(part)) for part in path.replace("\\", "/").split("/")]
    except UnicodeEncodeError:
        raise ValueError("this system's encoding of file names lacks a character of it") from None
    if max(parts) > MAX_NAME_BYTES or sum(parts) > MAX_PATH_BYTES:
        raise ValueError(f"must have at most {MAX_NAME_BYTES} bytes per name and {MAX_PATH_BYTES} in all")
    return path


# File systems allow 255 bytes; hidden files beside it add some ("..exporting.4194304").
MAX_NAME_BYTES = 230
MAX_PATH_BYTES = 3000
FilePath = Annotated[str, AfterValidator(_fits_file_system)]
Name = Annotated[str, Field(max_length=200)]
# Counts of epochs, images or steps, far above any use, and far below the end of int32.
MOST = 10**9
Count = Annotated[int, Field(ge=1, le=MOST)]
CountOrOff = Annotated[int, Field(ge=0, le=MOST)]
# Smaller and larger factors leave nothing of an image.
LOWEST_FACTOR, HIGHEST_FACTOR = 1e-4, 1e4
# Of pixels 0..1: below it their float32 values overflow in the first layers.
LOWEST_STD = 1e-7
# Alphas of the beta distribution below it are off, or give NaN.
LOWEST_ALPHA = 1e-3


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool) or (isinstance(value, (list, tuple)) and any(isinstance(one, bool) for one in value)):
        raise ValueError("must be a number, not true or false")
    return value


def _is_numeric(annotation: Any) -> bool:
    return annotation in (int, float) or any(_is_numeric(part) for part in get_args(annotation))


def _is_pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"must be none, folder or a regular expression ({error})") from None
    except (OverflowError, RecursionError):
        raise ValueError("must be none, folder or a regular expression that Python can compile") from None
    return text


def is_text(annotation: Any) -> bool:
    """Returns whether a setting's value may be any text."""
    return annotation is str or any(is_text(part) for part in get_args(annotation))


Probability = Annotated[float, Field(ge=0, le=1)]
Range = tuple[float, float]
# The kind is decided first, so that an error speaks of one of the two only.
ProbabilityOrRange = Annotated[
    Annotated[Probability, Tag("probability")] | Annotated[Range, Tag("range")],
    Discriminator(_kind),
    BeforeValidator(_no_boolean),
]
Auto = Annotated[Literal["auto"] | Annotated[int, Field(ge=0, le=1024)], BeforeValidator(_auto_or_integer)]
Channel = Annotated[float, Field(ge=-1e4, le=1e4)]
Channels = tuple[Channel, Channel, Channel]
Reject = Annotated[Literal["coverage", "precision", "off"], BeforeValidator(_off)]


class Section(BaseModel):
    """A group of settings: unknown keys are errors, values are read-only."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _numbers(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields.get(info.field_name or "")
        return _no_boolean(value) if field and _is_numeric(field.annotation) else value


class Augment(Section):
    """Augmentation of training images.

    Other settings that config.yaml has in this group are probabilities or relative changes (0 to 1), or ranges.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, ProbabilityOrRange]

    crop_scale: Range
    crop_ratio: Range
    horizontal_flip: Probability
    vertical_flip: Probability
    rotation: Annotated[float, Field(ge=0, le=180)]
    scale: Range
    hue: Annotated[float, Field(ge=0, le=0.5)]
    randaugment_num_ops: Annotated[int, Field(ge=0, le=14)]
    randaugment_magnitude: Annotated[float, Field(ge=0, le=30)]
    mixup: Annotated[float, Field(ge=0, le=10)]
    cutmix: Annotated[float, Field(ge=0, le=10)]

    @model_validator(mode="after")
    def _ordered(self) -> "Augment":
        if self.crop_scale[1] > 1:
            raise ValueError("augment.crop_scale must be two fractions with 0 < lowest <= highest <= 1")
        for name, value in self:
            if isinstance(value, tuple) and not 0 < value[0] <= value[1]:
                raise ValueError(f"augment.{name} must be two numbers with 0 < lowest <= highest")
            if isinstance(value, tuple) and not LOWEST_FACTOR <= value[0] <= value[1] <= HIGHEST_FACTOR:
                raise ValueError(f"augment.{name} must lie within {LOWEST_FACTOR:g} to {HIGHEST_FACTOR:g}")
            if name in ("mixup", "cutmix") and 0 < value < LOWEST_ALPHA:
                raise ValueError(f"augment.{name} must be 0 or at least {LOWEST_ALPHA:g}")
        return self


class Settings(Section):
    """All settings of config.yaml, where each is explained."""

    data_dir: FilePath
    lists_dir: FilePath | None
    labels_file: FilePath | None
    image_shape: tuple[int, Annotated[int, Field(ge=1, le=4096)], Annotated[int, Field(ge=1, le=4096)]]
    resize: Literal["crop", "stretch", "crop_short", "pad"]
    crop_fraction: Annotated[float, Field(ge=0.01, le=1)]
    color_profile: Literal["convert", "ignore"]
    non_rgb: Literal["skip", "convert"]
    max_pixels: Annotated[int, Field(ge=1, le=10**15)]
    valid_fraction: Annotated[float, Field(ge=0, le=0.5)]
    test_fraction: Annotated[float, Field(ge=0, le=0.5)]
    group_by: Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_is_pattern)]
    duplicates: Literal["near", "exact", "none"]
    on_leak: Literal["report", "drop_from_train", "error"]
    scan_workers: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)]
    network: Name
    pretrained: bool | FilePath
    freeze: bool
    features: Annotated[Literal["auto", "off"], BeforeValidator(_off)]
    unfreeze_epoch: CountOrOff
    backbone_lr_scale: Annotated[float, Field(gt=0, le=1)]
    layer_decay: Annotated[float, Field(gt=0, le=1)]
    mean: Channels
    std: Channels
    epochs: Count
    batch_size: Count
    optimizer: Literal["adam", "adamw", "momentum"]
    learning_rate: Annotated[float, Field(gt=0, le=10)]
    schedule: Literal["constant", "cosine", "one_cycle", "step", "plateau"]
    decay_epochs: Count
    decay_factor: Annotated[float, Field(gt=0, lt=1)]
    warmup_epochs: Annotated[float, Field(ge=0, le=MOST)]
    momentum: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0, le=1)]
    loss: Name
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    class_balance: Literal["none", "weights", "sampling"]
    clip_norm: Annotated[float, Field(ge=0, le=MOST)]
    accumulate: Count
    ema: Annotated[float, Field(ge=0, lt=1)]
    amp: Literal["none", "O1", "O2", "bf16"]
    monitor: Literal["accuracy", "loss"]
    patience: CountOrOff
    folds: Annotated[int, Field(ge=0, le=20)]
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    augment: Augment
    output_dir: FilePath
    run_name: Annotated[FilePath, Field(pattern=r"^[^./\\][^/\\]*$")]
    overwrite: bool
    resume: bool
    save_every_minutes: Annotated[float, Field(gt=0, le=MOST)]
    export_dir: FilePath
    top_k: Count
    reject: Reject
    reject_target: Annotated[float, Field(gt=0, le=1)]
    explain_layer: Name
    language: Literal["auto", "en", "zh"]
    device: Annotated[str, Field(pattern=r"^(auto|cpu|gpu(:\d+)?)$")]
    engine: Literal["auto", "onednn", "openvino", "plain", "int8", "openvino-bf16", "onnxruntime", "gpu", "tensorrt"]
    threads: Auto
    processes: Annotated[Literal["auto"] | Annotated[int, Field(ge=1, le=64)], BeforeValidator(_auto_or_integer)]
    num_workers: Auto
    cpu_speedups: bool
    cache: Literal["auto", "none", "ram", "disk"]
    cache_dir: FilePath

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        if self.folds in (1, 2):
            raise ValueError(
                f"folds={self.folds} must be 0 or at least 3: one fold is predicted, one chooses the epoch"
            )
        if self.image_shape[0] != 3:
            raise ValueError(f"image_shape: {self.image_shape[0]} channels; images are read as RGB, write [3, H, W]")
        if min(self.std) <= 0:
            raise ValueError("std must be above 0 in every channel")
        if min(self.std) < LOWEST_STD:
            raise ValueError(f"std must be at least {LOWEST_STD:g} in every channel")
        return self

    @property
    def lists(self) -> Path:
        """Folder of labels.txt and the lists."""
        return Path(self.lists_dir or self.data_dir)

    @property
    def run(self) -> Path:
        """Folder of the run that is trained with these settings."""
        auto = f"{Path(self.data_dir).resolve().name}-{self.network}"
        return Path(self.output_dir) / (auto if self.run_name == "auto" else self.run_name)


# Settings that may be overridden for a finished run: paths and the machine's, never those that define the network or
# its input.
CHANGEABLE = frozenset(
    "data_dir lists_dir batch_size max_pixels output_dir export_dir top_k reject reject_target explain_layer "
    "language device engine threads num_workers cpu_speedups cache cache_dir".split()
)
