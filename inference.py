"""Exported models: what their folder says of them, and how Paddle Inference runs them."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import paddle.inference
import yaml

from config import UserError
from transforms import EvalTransform

GRAPH, WEIGHTS, DESCRIPTION = "inference.json", "inference.pdiparams", "inference.yml"


def describe(transform: EvalTransform, class_names: list[str], top_k: int) -> dict[str, Any]:
    """Puts pipeline and label map into the form of PaddleX's inference.yml.

    The graph scales and normalises by itself, so NormalizeImage, which PaddleX wants, is the identity.

    Source: the operators of paddlex/inference/models/image_classification (PaddleX 3.7).
    """
    if transform.resize_short is None:
        resizes = [{"ResizeImage": {"size": [transform.width, transform.height]} | _PIL}]
    else:
        resizes = [
            {"ResizeImage": {"resize_short": transform.resize_short} | _PIL},
            {"CropImage": {"size": [transform.width, transform.height]}},
        ]
    identity = {"channel_num": 3, "mean": [0.0] * 3, "std": [1.0] * 3, "scale": 1.0, "order": ""}
    return {
        "PreProcess": {"transform_ops": [*resizes, {"NormalizeImage": identity}, {"ToCHWImage": None}]},
        "PostProcess": {"Topk": {"topk": min(top_k, len(class_names)), "label_list": list(class_names)}},
    }


_PIL = {"backend": "pil", "interpolation": "BILINEAR"}


class ExportedModel:
    """A folder that export.py wrote, run by Paddle Inference.

    Attributes:
        path: The folder.
        class_names: Label map.
        transform: The pipeline its pictures go through.
    """

    def __init__(self, path: str | os.PathLike, device: str = "cpu", threads: int = 1, onednn: bool = True):
        """Loads the graph.

        Raises:
            UserError: A file of the folder is missing or torn.
        """
        self.path = Path(path)
        description = self._read_description()
        try:
            self.class_names = [str(name) for name in description["PostProcess"]["Topk"]["label_list"]]
            self.transform = self._read_transform(description["PreProcess"]["transform_ops"])
        except (KeyError, TypeError, IndexError) as error:
            raise UserError(f"{self.path / DESCRIPTION}: {error} is missing; export the run anew") from None
        self._predictor = self._load(device, threads, onednn)

    def _needed(self, name: str) -> Path:
        if not (self.path / name).is_file():
            raise UserError(f"{self.path}: {name} is missing; name a folder that export.py made")
        return self.path / name

    def _read_description(self) -> dict[str, Any]:
        file = self._needed(DESCRIPTION)
        try:
            return yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        except (yaml.YAMLError, UnicodeDecodeError):
            raise UserError(f"{file}: this is not YAML; export the run anew") from None

    @staticmethod
    def _read_transform(operators: list[dict[str, Any]]) -> EvalTransform:
        options = {name: value for operator in operators for name, value in operator.items()}
        if "CropImage" in options:
            width, height = options["CropImage"]["size"]
            return EvalTransform(height, width, options["ResizeImage"]["resize_short"])
        width, height = options["ResizeImage"]["size"]
        return EvalTransform(height, width, None)

    def _load(self, device: str, threads: int, onednn: bool) -> paddle.inference.Predictor:
        settings = paddle.inference.Config(str(self._needed(GRAPH)), str(self._needed(WEIGHTS)))
        settings.disable_glog_info()
        if device.startswith("gpu"):
            settings.enable_use_gpu(256, int(device.partition(":")[2] or 0))
        else:
            settings.disable_gpu()
            settings.set_cpu_math_library_num_threads(threads)
            if onednn:
                settings.enable_mkldnn()
            else:
                settings.disable_mkldnn()
        try:
            return paddle.inference.create_predictor(settings)
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[-1]
            raise UserError(f"{self.path}: Paddle Inference cannot load it ({reason}); export the run anew") from None

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Computes probabilities float32 [N, C] of raw pixels [N, 3, height, width], uint8 or float32 in 0..255."""
        names = self._predictor.get_input_names()
        self._predictor.get_input_handle(names[0]).copy_from_cpu(np.ascontiguousarray(images, dtype=np.float32))
        self._predictor.run()
        return self._predictor.get_output_handle(self._predictor.get_output_names()[0]).copy_to_cpu()
