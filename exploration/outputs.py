"""The files of an exploration: explore.json, tables, features.npz and explore.html."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from evaluation import label_errors, plots
from exploration import page
from exploration.explorer import Exploration
from exploration.images import rows_of
from system.errors import UserError
from system.publishing import replacing, write_text


def write(found: Exploration, folder: Path, command: str) -> None:
    """Writes all files.

    Args:
        folder: Created if missing.
        command: The command line that the page shows.

    Raises:
        UserError: The folder cannot be written to.
    """
    images, remedy = found.images, "name another folder with --out"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "features.npz") as temporary, open(temporary, "wb") as handle:
            np.savez(
                handle,
                features=images.features,
                paths=np.array([sample.path for sample in images.samples]),
                labels=images.labels,
                splits=np.array(images.splits),
                class_names=np.array(images.class_names),
            )
        plots.learning_curve(found.curve, folder / "learning_curve.png")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); {remedy}") from None
    write_text(folder / "explore.json", json.dumps(found.content(), indent=2, ensure_ascii=False) + "\n", remedy)
    write_text(folder / "suspects.tsv", label_errors.table(found.suspects, images.class_names), remedy)
    write_text(folder / "similar.tsv", _similar(found), remedy)
    write_text(folder / "unlike.tsv", _unlike(found), remedy)
    if found.pool is None:
        (folder / "pool.tsv").unlink(missing_ok=True)
    else:
        write_text(folder / "pool.tsv", _pool(found), remedy)
    write_text(folder / "explore.html", page.render(found, folder, command), remedy)


def _lines(head: str, rows: Iterable[Iterable[str]]) -> str:
    return "".join(f"{line}\n" for line in (head, *("\t".join(row) for row in rows)))


def _similar(found: Exploration) -> str:
    rows = []
    for first, second, cosine in found.neighbours.similar:
        one, two = rows_of(found.images, (first, second))
        rows.append([f"{cosine:.4f}", *one.values(), *two.values()])
    return _lines("cosine\tpath\tsplit\tlabel\tsimilar_to\tsimilar_to_split\tsimilar_to_label", rows)


def _unlike(found: Exploration) -> str:
    described = rows_of(found.images, [row for row, _ in found.neighbours.unlike])
    rows = [
        [f"{closeness:.4f}", *one.values()]
        for one, (_, closeness) in zip(described, found.neighbours.unlike, strict=True)
    ]
    return _lines("closeness\tpath\tsplit\tlabel", rows)


def _pool(found: Exploration) -> str:
    pool, names = found.pool, found.images.class_names
    assert pool is not None
    rows = [
        [path, names[row.argmax()], f"{row.max():.4f}", f"{margin:.4f}"]
        for path, row, margin in zip(pool.paths, pool.probabilities, pool.margins(), strict=True)
    ]
    return _lines("path\tprediction\tprobability\tmargin", rows)
