"""The folder of an exported model: the names of its files, and inference.yml, which describes them."""

import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from imaging.transforms import EvalTransform
from system.errors import UserError
from system.files import file_digest

GRAPH, OLD_GRAPH, WEIGHTS = "inference.json", "inference.pdmodel", "inference.pdiparams"
INT8_GRAPH, INT8_WEIGHTS, ONNX = "int8.pdmodel", "int8.pdiparams", "inference.onnx"
DESCRIPTION, EXAMPLE, CARD = "inference.yml", "example.json", "MODEL_CARD.md"

_PIL = {"backend": "pil", "interpolation": "BILINEAR"}
# PaddleX insists on the step; the graph scales and normalises by itself, so here it must change nothing.
_IDENTITY = {"channel_num": 3, "mean": [0.0] * 3, "std": [1.0] * 3, "scale": 1.0, "order": ""}


@dataclass(frozen=True)
class Description:
    """What inference.yml says.

    Attributes:
        class_names: Label map.
        transform: The pipeline images go through before the graph.
        temperature: What the graph divides its logits by.
        threshold: Below this highest probability an image is none of the classes; None: every image is one.
        paddle: Release that wrote the graph; "" in files that do not say.
        engines: What the exporter measured: processor, threads, and milliseconds of each engine; may be empty.
        digests: SHA-256 by file name, and of what this file says itself as "description"; may be empty.
    """

    class_names: list[str]
    transform: EvalTransform
    temperature: float
    threshold: float | None
    paddle: str
    engines: Mapping[str, Any]
    digests: Mapping[str, str]


def compose(
    transform: EvalTransform, class_names: Sequence[str], top_k: int, temperature: float, threshold: float | None
) -> dict[str, Any]:
    """Puts pipeline, label map and calibration into the form of PaddleX's inference.yml.

    Source: the operators of paddlex/inference/models/image_classification (3.7.2), which ignores other keys.
    """
    if transform.resize_short is None:
        resizes = [{"ResizeImage": {"size": [transform.width, transform.height]} | _PIL}]
    else:
        resizes = [
            {"ResizeImage": {"resize_short": transform.resize_short} | _PIL},
            {"CropImage": {"size": [transform.width, transform.height]}},
        ]
    return {
        "PreProcess": {"transform_ops": [*resizes, {"NormalizeImage": dict(_IDENTITY)}, {"ToCHWImage": None}]},
        "PostProcess": {"Topk": {"topk": min(top_k, len(class_names)), "label_list": list(class_names)}},
        "Calibration": {"temperature": float(temperature), "threshold": threshold},
    }


def seal(folder: Path, content: dict[str, Any], paddle_version: str) -> None:
    """Writes inference.yml with the digests of the files beside it and of what it says itself."""
    digests = {
        path.name: file_digest(path) for path in sorted(folder.iterdir()) if path.name not in (DESCRIPTION, CARD)
    }
    date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    # The digests stand before what they are of: cut off anywhere, the file contradicts itself.
    sealed = {
        "Versions": {"paddle": paddle_version, "exported": date},
        "Digests": digests | {"description": _own_digest(content)},
    } | content
    text = yaml.safe_dump(sealed, sort_keys=False, allow_unicode=True)
    (folder / DESCRIPTION).write_text(text, encoding="utf-8")


def _own_digest(content: Mapping[str, Any]) -> str:
    # How many classes PaddleX shows is the user's to change; everything else decides what an answer means.
    meaning = [
        content["PreProcess"],
        content["PostProcess"]["Topk"]["label_list"],
        content.get("Calibration"),
    ]
    return hashlib.sha256(json.dumps(meaning, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def needed(folder: Path, name: str) -> Path:
    """Names a file of an exported folder.

    Raises:
        UserError: It is not there.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name a folder that export.py made")
    if not (folder / name).is_file():
        raise UserError(f"{folder}: {name} is missing; name a folder that export.py made, or export the run anew")
    return folder / name


def read(folder: Path) -> Description:
    """Reads inference.yml and compares the folder with the digests in it.

    Files without digests (exports of other tools, older ones) are taken as they are.

    Raises:
        UserError: A file is missing, torn, of another export, or asks for a step that this project does not do.
    """
    file = needed(folder, DESCRIPTION)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError):
        raise UserError(f"{file}: this is not YAML; export the run anew") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); check its rights") from None
    try:
        described, own_digest = _parse(content, file), _own_digest(content)
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise UserError(f"{file}: it does not describe a model ({error!r}); export the run anew") from None
    _check_digests(folder, described.digests, own_digest)
    return described


def _parse(content: dict[str, Any], file: Path) -> Description:
    names = [str(name) for name in content["PostProcess"]["Topk"]["label_list"]]
    calibration = content.get("Calibration") or {}
    threshold = calibration.get("threshold")
    return Description(
        class_names=names,
        transform=_transform(content["PreProcess"]["transform_ops"], file),
        temperature=float(calibration.get("temperature", 1.0)),
        threshold=None if threshold is None else float(threshold),
        paddle=str((content.get("Versions") or {}).get("paddle", "")),
        engines=_measured(content.get("Engines")),
        digests={str(name): str(digest) for name, digest in (content.get("Digests") or {}).items()},
    )


def _measured(engines: Any) -> dict[str, Any]:
    """Reads what the exporter measured; anything else than that counts as not measured."""
    times = engines.get("milliseconds") if isinstance(engines, dict) else None
    sound = isinstance(times, dict) and all(isinstance(value, float | int) for value in times.values())
    return engines if sound else {}


def _transform(operators: list[dict[str, Any]], file: Path) -> EvalTransform:
    options = {name: value or {} for operator in operators for name, value in operator.items()}
    resize, normalise = options["ResizeImage"], options.get("NormalizeImage", _IDENTITY)
    if any(normalise[key] != _IDENTITY[key] for key in ("mean", "std", "scale")):
        raise UserError(f"{file}: NormalizeImage is not the identity, but the graph normalises; export the run anew")
    if resize.get("backend") != "pil" or resize.get("interpolation") != "BILINEAR":
        raise UserError(f"{file}: ResizeImage is not PIL's BILINEAR; export the run anew")
    if "CropImage" not in options:
        width, height = _pair(resize["size"])
        return EvalTransform(height, width, None)
    width, height = _pair(options["CropImage"]["size"])
    return EvalTransform(height, width, int(resize["resize_short"]))


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    width, height = (size, size) if isinstance(size, int) else size
    return int(width), int(height)


def _check_digests(folder: Path, digests: Mapping[str, str], own_digest: str) -> None:
    if digests.get("description", own_digest) != own_digest:
        raise UserError(
            f"{folder / DESCRIPTION}: preprocessing, label list or calibration were changed after the export; "
            f"export the run anew"
        )
    for name, digest in digests.items():
        try:
            if name != "description" and file_digest(needed(folder, name)) != digest:
                raise UserError(f"{folder / name}: torn, or of another export than {DESCRIPTION}; export the run anew")
        except OSError as error:
            raise UserError(f"{folder / name}: cannot be read ({error.strerror}); check its rights") from None
