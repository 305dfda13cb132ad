"""PaddleX's basic serving protocol for image classification, so that its clients work unchanged.

Source: docs/pipeline_usage/tutorials/cv_pipelines/image_classification.en.md of PaddleX 3, "API Reference". What
differs: images are accepted as Base64 only, never as a URL that the server would fetch.
"""

import base64
import binascii
import io
import json
import uuid
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from serving.messages import Prediction
from serving.refusal import RefusalError

PATH = "/image-classification"
# How many classes PaddleX returns by default.
TOP_K = 5
# The drawn image is for viewing: its longer side is at most this, in pixels.
DRAWN_SIDE = 1024


@dataclass(frozen=True)
class Request:
    """A request of PaddleX's protocol.

    Attributes:
        image: The bytes of an image file.
        top_k: Number of classes to return; None: the default.
        visualize: Whether to return the image with the prediction drawn onto it.
    """

    image: bytes
    top_k: int | None
    visualize: bool


def parse(body: bytes) -> Request:
    """Reads a request.

    Raises:
        RefusalError: It is not JSON of that form, or the image is not Base64.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError, MemoryError):
        raise RefusalError(422, 'the body is not JSON; send {"image": "<Base64>"}') from None
    if not isinstance(content, dict) or not isinstance(content.get("image"), str):
        raise RefusalError(422, 'image: a string is required; send {"image": "<Base64>"}')
    image, top_k, visualize = content["image"], content.get("topk"), content.get("visualize")
    if top_k is not None and (not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1):
        raise RefusalError(422, "topk: must be an integer of at least 1; correct it or leave it out")
    if visualize is not None and not isinstance(visualize, bool):
        raise RefusalError(422, "visualize: must be true or false; correct it or leave it out")
    if image[:8].lower().startswith(("http://", "https://", "ftp://", "file://")):
        raise RefusalError(400, "image: this server fetches no URLs; send the image's bytes as Base64")
    try:
        # `base64` and e-mail break lines.
        data = base64.b64decode("".join(image.split()), validate=True)
    except (binascii.Error, ValueError):
        raise RefusalError(400, "image: this is not Base64; send the image's bytes as Base64") from None
    # PaddleX returns the drawn image by default.
    return Request(data, top_k, visualize is not False)


def response(prediction: Prediction) -> dict[str, Any]:
    """Formats a prediction as PaddleX does."""
    categories = [{"id": index, "name": name, "score": score} for index, name, score in prediction.top]
    result: dict[str, Any] = {"categories": categories}
    if prediction.image:
        result["image"] = base64.b64encode(prediction.image).decode()
    return {"logId": str(uuid.uuid4()), "result": result, "errorCode": 0, "errorMsg": "Success"}


def error(status: int, message: str) -> dict[str, Any]:
    """Formats an error as PaddleX does."""
    return {"logId": str(uuid.uuid4()), "errorCode": status, "errorMsg": message}


def draw(image: Image.Image, name: str, probability: float) -> bytes:
    """Writes the most likely class into the upper left corner of an RGB image; returns a JPEG."""
    image = image.copy()
    image.thumbnail((DRAWN_SIDE, DRAWN_SIDE))
    brush, text = ImageDraw.Draw(image), f"{name} {probability:.2f}"
    font = ImageFont.load_default(max(10, image.height // 16))
    try:
        left, top, right, bottom = brush.textbbox((4, 4), text, font)
        brush.rectangle((left - 4, top - 4, right + 4, bottom + 4), "black")
        brush.text((4, 4), text, "white", font)
    except UnicodeEncodeError:
        # The bitmap font, used where Pillow lacks FreeType, has Latin letters only.
        pass
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()
