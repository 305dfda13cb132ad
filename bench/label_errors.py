"""Label errors on purpose: how many of them explore.py finds first.

    python bench/label_errors.py output/explore-NAME/features.npz [--share 0.05] [--draws 20] [--most 10000]

Of the images that are not in test a share gets another class at random; the suspects are ranked as explore.py ranks
them, and as evaluate.py --train-suspects did before it (one strength of the penalty). Printed: the share of the flips
among the first N and 2 N suspects, N being their number; means over the draws.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from annotation.lists import Sample
from evaluation import label_errors, metrics
from evaluation.cross_validation import assign_folds, out_of_fold
from features import linear_head


def ranked(features: np.ndarray, labels: np.ndarray, classes: int, seed: int, strengths: tuple) -> np.ndarray:
    """Rows of the suspects, the most suspect first."""
    folds = assign_folds(labels, range(len(labels)), 5, seed)
    probabilities = metrics.probabilities(out_of_fold(features, labels, classes, folds, strengths=strengths))
    samples = [Sample(str(row), Path(str(row)), int(label)) for row, label in enumerate(labels)]
    found = label_errors.merge([label_errors.find("", samples, probabilities)])
    return np.array([int(one.sample.path) for one in found])


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("features", type=Path)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--most", type=int, default=10_000, help="images, drawn at random where there are more")
    arguments = parser.parse_args()
    with np.load(arguments.features) as kept:
        known = np.flatnonzero(kept["splits"] != "test")
        known = np.random.default_rng(0).permutation(known)[: arguments.most]
        features, labels, classes = kept["features"][known], kept["labels"][known], len(kept["class_names"])
    ways = {"explore.py": linear_head.STRENGTHS, "one strength (0.4)": (0.4,)}
    flips = round(arguments.share * len(labels))
    print(f"{len(labels)} images, {classes} classes, {flips} labels flipped, {arguments.draws} draws")
    print(f"{'way':20} {'among the first N':>18} {'first 2 N':>10} {'suspects':>9}")
    for name, tried in ways.items():
        shares = []
        for draw in range(arguments.draws):
            generator = np.random.default_rng(draw)
            rows, changed = generator.choice(len(labels), flips, replace=False), labels.copy()
            changed[rows] = (changed[rows] + generator.integers(1, classes, flips)) % classes
            suspects = ranked(features, changed, classes, draw, tried)
            shares.append([np.isin(rows, suspects[: many * flips]).mean() for many in (1, 2)] + [len(suspects)])
        first, second, found = np.mean(shares, axis=0)
        print(f"{name:20} {first:18.3f} {second:10.3f} {found:9.1f}")


if __name__ == "__main__":
    main()
