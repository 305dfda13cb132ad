"""What explore.py prints."""

from pathlib import Path

from exploration.explorer import Exploration
from exploration.page import advice
from system.text import counted

# Classes listed, the weakest first.
WEAKEST = 5


def text(found: Exploration, folder: Path) -> str:
    """Formats an exploration for the terminal."""
    content, images = found.content(), found.images
    known = int(images.known.sum())
    accuracy = content["scores"]["accuracy"]
    lines = [
        f"accuracy to expect: {accuracy['value']:.4f} (95 % interval {accuracy['low']:.4f} to {accuracy['high']:.4f}), "
        f"{counted(found.folds, 'fold')} over the {counted(known, 'image that is', 'images that are')} not in test",
        _weakest(found),
        "images a class: "
        + ", ".join(f"{point['images_per_class']:,} {point['accuracy']:.4f}" for point in found.curve)
        + f". {advice(found.curve)}",
        f"suspected label errors: {content['suspects']}; pairs of similar images: {content['similar_pairs']}; "
        f"images unlike any other: {content['unlike_any_other']}",
    ]
    if found.pool is not None:
        order = "in random order, for so few are labelled" if found.pool.is_random else "the least decided first"
        left_out = f"; {found.pool.left_out}" if found.pool.left_out else ""
        lines.append(f"to label next: {counted(len(found.pool.paths), 'image')}, {order} (pool.tsv){left_out}")
    lines += [
        "note: the network knows photos from the web; where yours are of another kind (X-rays, documents), training "
        "all of it may reach far more",
        f"{folder}: explore.json, suspects.tsv, similar.tsv, unlike.tsv, features.npz",
        f"look at: {folder / 'explore.html'}",
    ]
    return "\n".join(lines)


def _weakest(found: Exploration) -> str:
    rows = [row for row in found.scores["classes"] if row["recall"] is not None]
    rows.sort(key=lambda row: row["recall"])
    shown = ", ".join(f"{row['name']} {row['recall']:.4f} of {row['images']}" for row in rows[:WEAKEST])
    return f"recall by class{', the weakest first' if len(rows) > 1 else ''}: {shown}"
