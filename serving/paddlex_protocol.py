"""The form in which PaddleX's basic serving asks for and gives classifications, so that its clients work unchanged.

Source: docs/pipeline_usage/tutorials/cv_pipelines/image_classification.en.md of PaddleX 3, "API Reference". What
differs: images are taken as Base64 only, never as an address that the server would fetch.
"""

import base64
import binascii
import io
import json
import uuid
from typing import Any

from PIL import Image, ImageDraw, ImageFont

PATH = "/image-classification"
# How many classes PaddleX tells unless asked otherwise.
TOP_K = 5
# The drawn image is for looking at: its longer side, in pixels, is not above this.
DRAWN_SIDE = 1024


def _refused(told: str, status: int = 422) -> dict[str, Any]:
    return {"error": told, "status": status}


def parse(body: bytes) -> dict[str, Any]:
    """Reads a request.

    Returns:
        `image` (bytes), `topk` (int or None) and `visualize` (bool); or `error` and the HTTP `status`.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError, MemoryError):
        return _refused('the body is not JSON; send {"image": "<Base64>"}')
    if not isinstance(content, dict) or not isinstance(content.get("image"), str):
        return _refused('image: a text is needed; send {"image": "<Base64>"}')
    image, top, visualize = content["image"], content.get("topk"), content.get("visualize")
    if top is not None and (not isinstance(top, int) or isinstance(top, bool) or top < 1):
        return _refused("topk: a whole number from 1 on is needed; mend it or leave it out")
    if visualize is not None and not isinstance(visualize, bool):
        return _refused("visualize: true or false is needed; mend it or leave it out")
    if image[:8].lower().startswith(("http://", "https://", "ftp://", "file://")):
        return _refused("image: this server fetches no addresses; send the image's bytes as Base64", 400)
    try:
        data = base64.b64decode(image, validate=True)
    except (binascii.Error, ValueError):
        return _refused("image: this is not Base64; send the image's bytes as Base64", 400)
    # Without a word about it PaddleX sends the drawn image along.
    return {"image": data, "topk": top, "visualize": visualize is not False}


def answer(told: dict[str, Any], image: bytes) -> dict[str, Any]:
    """Puts a worker's answer into PaddleX's form."""
    result = {"categories": [{"id": i, "name": name, "score": score} for i, name, score in told["top"]]}
    if image:
        result["image"] = base64.b64encode(image).decode()
    return {"logId": str(uuid.uuid4()), "result": result, "errorCode": 0, "errorMsg": "Success"}


def error(status: int, told: str) -> dict[str, Any]:
    """Puts a refusal into PaddleX's form."""
    return {"logId": str(uuid.uuid4()), "errorCode": status, "errorMsg": told}


def draw(image: Image.Image, name: str, probability: float) -> bytes:
    """Writes the likeliest class into the upper left corner of an RGB image: the bytes of a JPEG."""
    image = image.copy()
    image.thumbnail((DRAWN_SIDE, DRAWN_SIDE))
    brush, text = ImageDraw.Draw(image), f"{name} {probability:.2f}"
    font = ImageFont.load_default(max(10, image.height // 16))
    try:
        left, top, right, bottom = brush.textbbox((4, 4), text, font)
        brush.rectangle((left - 4, top - 4, right + 4, bottom + 4), "black")
        brush.text((4, 4), text, "white", font)
    except UnicodeEncodeError:
        # The bitmap font, used where Pillow lacks FreeType, holds Latin letters only.
        pass
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()
