"""Settings: names, types and ranges. config.yaml explains each."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator


def _auto_or_integer(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdigit() else value


def _kind(value: Any) -> str:
    return "range" if isinstance(value, (list, tuple)) else "probability"


Probability = Annotated[float, Field(ge=0, le=1)]
Range = tuple[float, float]
# The kind is decided first, so that an error speaks of one of the two only.
ProbabilityOrRange = Annotated[
    Annotated[Probability, Tag("probability")] | Annotated[Range, Tag("range")], Discriminator(_kind)
]
Auto = Annotated[Literal["auto"] | Annotated[int, Field(ge=0, le=1024)], BeforeValidator(_auto_or_integer)]
Channels = tuple[float, float, float]
# YAML reads a bare `off` as false.
Reject = Annotated[
    Literal["coverage", "precision", "off"], BeforeValidator(lambda value: "off" if value is False else value)
]


class Section(BaseModel):
    """A group of settings: unknown keys are errors, values are read-only."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True, allow_inf_nan=False)


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
        return self


class Settings(Section):
    """All settings of config.yaml, where each is explained."""

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
    backbone_lr_scale: Annotated[float, Field(gt=0, le=1)]
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
    loss: str
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
        """Folder of the run that is trained with these settings."""
        auto = f"{Path(self.data_dir).resolve().name}-{self.network}"
        return Path(self.output_dir) / (auto if self.run_name == "auto" else self.run_name)


# Settings that may be overridden for a finished run: paths and the machine's, never those that define the network or
# its input.
CHANGEABLE = frozenset(
    "data_dir lists_dir batch_size max_pixels output_dir export_dir top_k reject reject_target explain_layer "
    "device engine threads num_workers cpu_speedups cache cache_dir".split()
)
