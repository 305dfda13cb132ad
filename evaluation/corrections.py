"""The score before corrections: a list that is mended by looking at a network's mistakes flatters that network."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from annotation.lists import Sample, read_changes
from evaluation import metrics
from evaluation.metrics import Outputs
from evaluation.predictions import Predictions
from evaluation.predictors import Evaluable
from evaluation.scoring import predict_samples
from system.text import counted, inflect


def score_before(model: Evaluable, predictions: Predictions, device: str) -> dict[str, Any] | None:
    """Evaluates a list as it was before corrections.tsv.

    Args:
        predictions: Of the list as it is.

    Returns:
        relabelled, dropped, added (kept although not stored as RGB): numbers of images; missing: dropped images that
        have gone and do not count; num_pictures; every registered metric. None where corrections change nothing.

    Raises:
        UserError: corrected.tsv is malformed, or a dropped image cannot be read.
    """
    changes = {change.path: change for change in read_changes(model.settings, predictions.split, model.class_names)}
    if not changes:
        return None
    # Every image in the list whose label was another one, or none.
    before = [changes[one.path].before if one.path in changes else one.label for one in predictions.samples]
    rows = [row for row, label in enumerate(before) if label is not None]
    dropped = [change for change in changes.values() if change.label is None]
    back = [Sample(one.path, one.file, one.before) for one in dropped if one.file and one.before is not None]
    logits, labels = predictions.logits[rows], [before[row] for row in rows] + [sample.label for sample in back]
    if back:
        logits = np.concatenate([logits, predict_samples(model, back, "dropped images", device)])
    return {
        "relabelled": sum(
            label is not None and label != one.label for label, one in zip(before, predictions.samples, strict=True)
        ),
        "dropped": len(dropped),
        "added": len(before) - len(rows),
        "missing": len(dropped) - len(back),
        "num_pictures": len(labels),
    } | metrics.compute(Outputs(logits, np.array(labels, np.int64)))


def remarks(before: Mapping[str, Any] | None, split: str, accuracy: float) -> list[str]:
    """Says the accuracy before and now.

    Args:
        before: See `score_before`.
        accuracy: On the list as it is.
    """
    if before is None:
        return []
    counts = ", ".join(f"{before[kind]} {kind}" for kind in ("relabelled", "dropped", "added") if before[kind])
    gone = inflect(before["missing"], "has gone and does not count", "have gone and do not count")
    missing = f"; {counted(before['missing'], 'dropped image')} {gone}" if before["missing"] else ""
    return [
        f"corrections.tsv changes {split} ({counts}): accuracy {before['accuracy']:.4f} on the "
        f"{counted(before['num_pictures'], 'image')} before, {accuracy:.4f} now; a list that is corrected where a "
        f"network was wrong flatters it, so quote both{missing}"
    ]
