"""JSON bodies of POST /predict."""

from collections.abc import Sequence
from typing import Any

from serving.messages import Prediction, Result
from serving.refusal import RefusalError


def prediction_json(file_name: str, result: Result) -> dict[str, Any]:
    """Formats the result of one file."""
    if isinstance(result, RefusalError):
        return {"file": file_name, "error": result.message}
    assert isinstance(result, Prediction)
    top = [{"class": name, "probability": probability} for _, name, probability in result.top]
    return {
        "file": file_name,
        "class": None if result.none_of_these else top[0]["class"],
        "probability": top[0]["probability"],
        "none_of_these": result.none_of_these,
        "top": top,
    }


def predict_response(
    model_name: str, file_names: Sequence[str], results: Sequence[Result]
) -> tuple[dict[str, Any], int]:
    """Formats the results of a request.

    Returns:
        The JSON body, and the HTTP status: 400 where no file was an image.
    """
    rows = [prediction_json(name, result) for name, result in zip(file_names, results, strict=True)]
    body = {"model": model_name, "results": rows}
    errors = [row["error"] for row in rows if "error" in row]
    if len(errors) < len(rows):
        return body, 200
    return body | {"error": errors[0] if len(errors) == 1 else f"no image among these; {errors[0]}"}, 400
