"""Cross-validation of whole trainings: for each fold of the images that are not in test, one run that never sees it.

The fold after it chooses the best epoch (or the strength of a head), the others train. Each is a run like any other,
`NAME/fold1` and so on, with lists of its own, `NAME/lists1` and so on.
"""

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import paddle

from annotation.lists import LABELS, Sample, list_digest, read_groups, read_labels, read_samples, write_list
from evaluation.cross_validation import assign_folds, possible_folds
from models.checkpoint import Run
from models.runs import FOLDS_FILE
from system import machine
from system.errors import UserError
from system.publishing import write_text
from system.settings import Settings


def prepare(settings: Settings) -> list[Settings]:
    """Writes the lists of every fold.

    Returns:
        The settings of each run.

    Raises:
        UserError: A list is malformed, a class has fewer images (or groups) than folds, or the folder holds a run, or
            another cross-validation that is neither to be resumed nor overwritten.
    """
    class_names = read_labels(settings.lists / LABELS)
    samples = [sample for split in ("train", "valid") for sample in read_samples(settings, split, len(class_names))]
    labels, groups = np.array([sample.label for sample in samples]), read_groups(settings, samples)
    if possible_folds(labels, groups, settings.folds) < settings.folds:
        most = possible_folds(labels, groups, settings.folds)
        raise UserError(
            f"folds={settings.folds}: the smallest class has {most or 'too few'} images, or groups, outside test; set "
            "fewer folds, or add images"
        )
    numbers = assign_folds(labels, groups, settings.folds, settings.seed)
    chosen = [
        settings.model_copy(
            update={
                "folds": 0,
                "lists_dir": str(settings.run / f"lists{fold + 1}"),
                "output_dir": str(settings.run),
                "run_name": f"fold{fold + 1}",
            }
        )
        for fold in range(settings.folds)
    ]
    if machine.rank()[0] == 0:
        _write(settings, class_names, samples, numbers)
    if machine.rank()[1] > 1:
        with contextlib.redirect_stderr(io.StringIO()):
            paddle.distributed.init_parallel_env()
        paddle.distributed.barrier()
    return chosen


def _write(settings: Settings, class_names: Sequence[str], samples: Sequence[Sample], numbers: np.ndarray) -> None:
    content = {"folds": settings.folds, "seed": settings.seed, "lists": list_digest(samples)}
    file = settings.run / FOLDS_FILE
    if Run(settings.run).state:
        raise UserError(f"{settings.run}: a run of this name exists; give the cross-validation another run_name=NAME")
    if file.is_file() and not settings.overwrite:
        if not settings.resume:
            raise UserError(
                f"{settings.run}: a cross-validation of this name exists; use resume=true, another run_name=NAME, or "
                "overwrite=true"
            )
        if json.loads(file.read_text(encoding="utf-8")) != content:
            raise UserError(
                f"{settings.run}: it was begun with other lists, folds or another seed; resume with the same, or use "
                "another run_name"
            )
    for fold in range(settings.folds):
        folder = settings.run / f"lists{fold + 1}"
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / LABELS, "".join(f"{name}\n" for name in class_names))
        chooses = (fold + 1) % settings.folds
        parts = {"test": numbers == fold, "valid": numbers == chooses}
        parts["train"] = ~(parts["test"] | parts["valid"])
        for split, own in parts.items():
            write_list(
                folder / f"{split}.txt", [(_path(samples[row]), samples[row].label) for row in np.flatnonzero(own)]
            )
    write_text(file, json.dumps(content, indent=2) + "\n")


def _path(sample: Sample) -> str:
    """The path as it stands in the list where that leads to the file from here, else the whole path."""
    return sample.path if Path(sample.path) == sample.file else str(sample.file.resolve())
