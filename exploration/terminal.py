"""What explore.py prints."""

from pathlib import Path

from exploration.explorer import Exploration
from exploration.page import advice
from system.language import counted, translate

# Classes listed, the weakest first.
WEAKEST = 5


def text(found: Exploration, folder: Path) -> str:
    """Formats an exploration for the terminal."""
    content, images = found.content(), found.images
    known = int(images.known.sum())
    accuracy = content["scores"]["accuracy"]
    lines = [
        translate(
            "accuracy to expect: {value:.4f} (95 % interval {low:.4f} to {high:.4f}), {folds} over the {images}",
            **{key: accuracy[key] for key in ("value", "low", "high")},
            folds=counted(found.folds, "fold"),
            images=counted(known, "image that is not in test", "images that are not in test"),
        ),
        _weakest(found),
        translate(
            "images a class: {points}. {advice}",
            points=", ".join(f"{point['images_per_class']:,} {point['accuracy']:.4f}" for point in found.curve),
            advice=advice(found.curve),
        ),
        translate(
            "suspected label errors: {suspects}; pairs of similar images: {pairs}; images unlike any other: {unlike}",
            suspects=content["suspects"],
            pairs=content["similar_pairs"],
            unlike=content["unlike_any_other"],
        ),
    ]
    if found.pool is not None:
        order = "in random order, for so few are labelled" if found.pool.is_random else "the least decided first"
        left_out = f"; {found.pool.left_out}" if found.pool.left_out else ""
        count = counted(len(found.pool.paths), "image")
        lines.append(
            translate("to label next: {images}, {order} (pool.tsv)", images=count, order=translate(order)) + left_out
        )
    lines += [
        translate(
            "note: the network knows photos from the web; where yours are of another kind (X-rays, documents), "
            "training all of it may reach far more"
        ),
        f"{folder}: explore.json, suspects.tsv, similar.tsv, unlike.tsv, features.npz",
        f"look at: {folder / 'explore.html'}",
    ]
    return "\n".join(lines)


def _weakest(found: Exploration) -> str:
    rows = [row for row in found.scores["classes"] if row["recall"] is not None]
    rows.sort(key=lambda row: row["recall"])
    shown = ", ".join(
        translate("{name} {recall:.4f} of {images}", **{key: row[key] for key in ("name", "recall", "images")})
        for row in rows[:WEAKEST]
    )
    sentence = "recall by class, the weakest first: {classes}" if len(rows) > 1 else "recall by class: {classes}"
    return translate(sentence, classes=shown)
