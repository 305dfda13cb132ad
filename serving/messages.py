"""Messages between the server and its workers: the plan of a worker, its tasks, and their results."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from serving.refusal import RefusalError

# The content of a file: bodies that arrive in pieces grow in place.
Data = bytes | bytearray
# Classes listed per prediction, unless the request says otherwise.
TOP_K = 5


@dataclass(frozen=True)
class WorkerPlan:
    """What a worker loads, and how.

    Attributes:
        folder: The exported model.
        overrides: Settings of the command line, as `key=value`.
        threads: CPU threads per worker.
        engine: Inference engine, "auto" to let the worker choose.
        max_pixels: Largest width x height that is decoded.
        pin_cores: Whether each worker gets CPU cores of its own.
        run: The training run to explain predictions with; "": the worker classifies.
        is_background: Whether the worker yields the processor to the others.
        cores: The worker's CPU cores; empty: any.
    """

    folder: str
    config_file: str | None
    overrides: Sequence[str]
    threads: int
    engine: str
    max_pixels: int
    pin_cores: bool
    run: str = ""
    is_background: bool = False
    cores: Sequence[int] = ()


@dataclass(frozen=True)
class Task:
    """What to do with one uploaded file.

    Attributes:
        name: The client's file name; error messages start with it.
        paddlex: Whether the bytes are a request of PaddleX's protocol instead of an image.
        top_k: Number of classes to return.
        class_name: The class a heat map explains; "": the most likely one.
        is_comparison: Whether all classes are returned, and nothing is drawn.
        is_deferred: Whether the image has been found to take long, and its time has come.
    """

    name: str
    paddlex: bool = False
    top_k: int = TOP_K
    class_name: str = ""
    is_comparison: bool = False
    is_deferred: bool = False


@dataclass(frozen=True)
class Prediction:
    """The classes of one image.

    Attributes:
        top: (class index, class name, probability in 0..1), the most likely first.
        none_of_these: Whether the highest probability is below the model's threshold.
        image: The image with the prediction drawn onto it, a JPEG; empty unless asked for.
    """

    top: Sequence[tuple[int, str, float]]
    none_of_these: bool
    image: bytes = b""


@dataclass(frozen=True)
class HeatMap:
    """A Grad-CAM overlay of one image, a PNG."""

    image: bytes


@dataclass(frozen=True)
class Deferred:
    """An image that takes long to decode: it is to come again when the queue lets it, alone."""


Result = Prediction | HeatMap | RefusalError | Deferred


def pack_results(results: Sequence[Result]) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Splits results into JSON objects and the images that belong to them."""
    return [_to_json(result) for result in results], [getattr(result, "image", b"") for result in results]


def _to_json(result: Result) -> dict[str, Any]:
    if isinstance(result, RefusalError):
        return {"error": result.message, "status": result.status}
    if isinstance(result, Prediction):
        return {"top": list(result.top), "none_of_these": result.none_of_these}
    return {"deferred": True} if isinstance(result, Deferred) else {}


def unpack_results(contents: Sequence[dict[str, Any]], images: Sequence[bytes]) -> list[Result]:
    """Undoes `pack_results`."""
    return [_from_json(content, image) for content, image in zip(contents, images, strict=True)]


def _from_json(content: dict[str, Any], image: bytes) -> Result:
    if "error" in content:
        return RefusalError(content["status"], content["error"])
    if "top" in content:
        top = [(index, name, probability) for index, name, probability in content["top"]]
        return Prediction(top, content["none_of_these"], image)
    if "deferred" in content:
        return Deferred()
    return HeatMap(image)
