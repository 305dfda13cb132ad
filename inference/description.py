"""inference.yml: what an exported folder holds, in PaddleX's format, sealed by digests."""

import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from imaging.transforms import EvalTransform
from inference.names import CARD, DESCRIPTION, EXAMPLE, GRAPH, OLD_GRAPH, WEIGHTS
from system.errors import UserError
from system.files import file_digest
from system.yaml_files import parse_yaml

if TYPE_CHECKING:
    from inference.reference import Reference

# Of inference.yml. Raise it when a key is added or comes to mean something else.
FORMAT = 5
# Optional engines of earlier formats, which do not name them: they were verified where their files are there.
_BEFORE_FORMAT_5 = ["int8", "onnxruntime"]
# Files that every export holds, so that format 2 and later have a digest of each.
_SEALED = (GRAPH, OLD_GRAPH, WEIGHTS, EXAMPLE, "description")

_PIL: dict[str, Any] = {"backend": "pil", "interpolation": "BILINEAR"}
# PaddleX requires the step; the graph scales and normalises by itself, so here it must change nothing.
_IDENTITY = {"channel_num": 3, "mean": [0.0] * 3, "std": [1.0] * 3, "scale": 1.0, "order": ""}


@dataclass(frozen=True)
class Description:
    """Content of inference.yml.

    Attributes:
        class_names: Label map.
        transform: Preprocessing of images before the graph.
        temperature: Logits are divided by it inside the graph.
        threshold: An image whose highest probability is below it is none of the classes; None: every image is one.
        paddle: Release that wrote the graph; "" in files that do not say.
        optional_engines: Names of those that the exporter was asked for and has verified.
        engines: Speed as the exporter measured it: processor, threads, and milliseconds by engine; may be empty.
        digests: SHA-256 by file name, and of the meaning of inference.yml as "description"; empty in exports of
            other tools.
    """

    class_names: list[str]
    transform: EvalTransform
    temperature: float
    threshold: float | None
    paddle: str
    optional_engines: list[str]
    engines: Mapping[str, Any]
    digests: Mapping[str, str]


def compose(reference: "Reference", top_k: int, optional_engines: Sequence[str] = ()) -> dict[str, Any]:
    """Describes preprocessing, label map and calibration of a run in the form of PaddleX's inference.yml.

    Args:
        top_k: Number of classes that PaddleX shows.
        optional_engines: Names of those that are verified before the folder appears.

    Source: the operators of paddlex/inference/models/image_classification (3.7.2), which ignores other keys.
    """
    transform, class_names = reference.transform, reference.class_names
    size = [transform.width, transform.height]
    resizes: list[dict[str, Any]] = [{"ResizeImage": _resizing(transform) | _PIL}]
    if transform.cover:
        resizes.append({"CropImage": {"size": size}})
    return {
        "PreProcess": {"transform_ops": [*resizes, {"NormalizeImage": dict(_IDENTITY)}, {"ToCHWImage": None}]},
        "PostProcess": {"Topk": {"topk": min(top_k, len(class_names)), "label_list": list(class_names)}},
        "ColorProfile": transform.color_profile,
        "Calibration": {"temperature": float(reference.temperature), "threshold": reference.threshold},
        "OptionalEngines": list(optional_engines),
    }


def is_read_by_paddlex(transform: EvalTransform) -> bool:
    """Returns whether PaddleX's operators can say it: resize to one size, or the short side to one length."""
    return transform.fill is None and (transform.cover is None or transform.resize_short is not None)


def _resizing(transform: EvalTransform) -> dict[str, Any]:
    if transform.fill:
        # Since format 4.
        return {"pad": [transform.width, transform.height], "fill": list(transform.fill)}
    if transform.cover is None:
        return {"size": [transform.width, transform.height]}
    if is_read_by_paddlex(transform):
        return {"resize_short": transform.resize_short}
    # PaddleX has no such argument, nor those of `pad`, and fails at it instead of answering otherwise.
    return {"cover": [transform.cover[1], transform.cover[0]]}


def seal(folder: Path, content: dict[str, Any], paddle_version: str) -> None:
    """Writes inference.yml with the digests of the files beside it and of its own meaning."""
    digests = {
        path.name: file_digest(path) for path in sorted(folder.iterdir()) if path.name not in (DESCRIPTION, CARD)
    }
    date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    # Format and digests stand before the content: cut off anywhere, the file contradicts itself.
    sealed = {
        "Versions": {"format": FORMAT, "paddle": paddle_version, "exported": date},
        "Digests": digests | {"description": _own_digest(content)},
    } | content
    text = yaml.safe_dump(sealed, sort_keys=False, allow_unicode=True)
    (folder / DESCRIPTION).write_text(text, encoding="utf-8")


def _own_digest(content: Mapping[str, Any]) -> str:
    # How many classes PaddleX shows is the user's to change; everything else decides what a prediction means.
    meaning = [
        content["PreProcess"],
        content["PostProcess"]["Topk"]["label_list"],
        content.get("Calibration"),
        # Since format 3.
        *([content["ColorProfile"]] if "ColorProfile" in content else []),
        # Since format 5: none that was not verified can be written in.
        *([content["OptionalEngines"]] if "OptionalEngines" in content else []),
    ]
    return hashlib.sha256(json.dumps(meaning, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def require(folder: Path, name: str) -> Path:
    """Returns the path of a file of an exported folder.

    Raises:
        UserError: The file is missing.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name a folder that export.py made")
    if not (folder / name).is_file():
        raise UserError(f"{folder}: {name} is missing; name a folder that export.py made, or export the run again")
    return folder / name


def read(folder: Path) -> Description:
    """Reads inference.yml and compares the folder with the digests in it.

    Raises:
        UserError: A file is missing, torn, of another export or of a later format, or asks for a step that this
            project does not do.
    """
    file = require(folder, DESCRIPTION)
    content = _read_yaml(file)
    try:
        version = _format(content, file)
        completed = _with_defaults_of_format_1(content) if version == 1 else content
        completed = {"ColorProfile": "ignore"} | completed if version < 3 else completed
        description = _parse({"OptionalEngines": _BEFORE_FORMAT_5} | completed if version < 5 else completed, file)
        if version > 1:
            _require_digests(description.digests, folder)
        own_digest = _own_digest(content)
    except KeyError as error:
        raise UserError(f"{file}: {error.args[0]} is missing; export the run again") from None
    except (TypeError, IndexError, ValueError, AttributeError) as error:
        raise UserError(f"{file}: it does not describe a model ({error!r}); export the run again") from None
    _check_digests(folder, description.digests, own_digest)
    return description


def optional_engines(folder: Path) -> list[str]:
    """Names the optional engines of a folder without comparing digests.

    Raises:
        UserError: inference.yml cannot be read.
    """
    file = folder / DESCRIPTION
    content = _read_yaml(file) if file.is_file() else {}
    return content.get("OptionalEngines", _BEFORE_FORMAT_5)


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        return parse_yaml(file.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError):
        raise UserError(f"{file}: this is not YAML; export the run again") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); check its rights") from None


def _format(content: Mapping[str, Any], file: Path) -> int:
    """Reads the format number; files without one are of format 1, or of another tool."""
    version = (content.get("Versions") or {}).get("format", 1)
    if type(version) is not int or not 1 <= version <= FORMAT:
        raise UserError(
            f"{file}: format {version!r} is unknown (1 to {FORMAT} are read); use the release that wrote it"
        )
    return version


def _with_defaults_of_format_1(content: Mapping[str, Any]) -> dict[str, Any]:
    """Fills in what files of format 1 and of other tools may lack, with what it meant to lack it."""
    operators = list(content["PreProcess"]["transform_ops"])
    if not any("NormalizeImage" in operator for operator in operators):
        operators.append({"NormalizeImage": _IDENTITY})
    return {
        **content,
        "Versions": {"paddle": ""} | (content.get("Versions") or {}),
        "Digests": content.get("Digests") or {},
        "PreProcess": {"transform_ops": operators},
        "Calibration": {"temperature": 1.0, "threshold": None} | (content.get("Calibration") or {}),
    }


def _parse(content: Mapping[str, Any], file: Path) -> Description:
    calibration, threshold = content["Calibration"], content["Calibration"]["threshold"]
    return Description(
        class_names=[str(name) for name in content["PostProcess"]["Topk"]["label_list"]],
        transform=_transform(content["PreProcess"]["transform_ops"], content["ColorProfile"], file),
        temperature=float(calibration["temperature"]),
        threshold=None if threshold is None else float(threshold),
        paddle=str(content["Versions"]["paddle"]),
        optional_engines=[str(name) for name in content["OptionalEngines"]],
        # Not required: export.py reads the folder before it has measured anything.
        engines=_measured(content.get("Engines")),
        digests={str(name): str(digest) for name, digest in content["Digests"].items()},
    )


def _require_digests(digests: Mapping[str, str], folder: Path) -> None:
    # A few networks have no graph of the old form.
    needed = [name for name in _SEALED if name != OLD_GRAPH or (folder / name).exists()]
    if missing := [name for name in needed if name not in digests]:
        raise KeyError(f"the digest of {missing[0]}")


def _measured(engines: Any) -> dict[str, Any]:
    """Returns what the exporter measured, or nothing if it is malformed."""
    times = engines.get("milliseconds") if isinstance(engines, dict) else None
    is_sound = isinstance(times, dict) and all(isinstance(value, float | int) for value in times.values())
    return engines if is_sound else {}


def _transform(operators: list[dict[str, Any]], color_profile: str, file: Path) -> EvalTransform:
    if color_profile not in ("convert", "ignore"):
        raise UserError(f"{file}: ColorProfile is neither convert nor ignore; export the run again")
    options = {name: value or {} for operator in operators for name, value in operator.items()}
    resize, normalise = options["ResizeImage"], options["NormalizeImage"]
    if any(normalise[key] != _IDENTITY[key] for key in ("mean", "std", "scale")):
        raise UserError(f"{file}: NormalizeImage is not the identity, but the graph normalises; export the run again")
    if resize.get("backend") != "pil" or resize.get("interpolation") != "BILINEAR":
        raise UserError(f"{file}: ResizeImage is not PIL's BILINEAR; export the run again")
    if "pad" in resize:
        (width, height), (red, green, blue) = _pair(resize["pad"]), (int(level) for level in resize["fill"])
        return EvalTransform(height, width, None, color_profile, (red, green, blue))
    if "CropImage" not in options:
        width, height = _pair(resize["size"])
        return EvalTransform(height, width, None, color_profile)
    width, height = _pair(options["CropImage"]["size"])
    wide, high = _pair(resize["cover"] if "cover" in resize else resize["resize_short"])
    if wide < width or high < height:
        raise UserError(f"{file}: CropImage is larger than what ResizeImage makes; export the run again")
    return EvalTransform(height, width, (high, wide), color_profile)


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    width, height = (size, size) if isinstance(size, int) else size
    return int(width), int(height)


def _check_digests(folder: Path, digests: Mapping[str, str], own_digest: str) -> None:
    if digests.get("description", own_digest) != own_digest:
        raise UserError(
            f"{folder / DESCRIPTION}: preprocessing, label list or calibration were changed after the export; "
            f"export the run again"
        )
    for name, digest in digests.items():
        try:
            if name != "description" and file_digest(require(folder, name)) != digest:
                raise UserError(f"{folder / name}: torn, or of another export than {DESCRIPTION}; export the run again")
        except OSError as error:
            raise UserError(f"{folder / name}: cannot be read ({error.strerror}); check its rights") from None
