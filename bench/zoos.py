"""Compares what torchvision's and timm's networks compute with what ours compute with their weights.

python bench/zoo_reference.py FOLDER      # with torch, torchvision and timm
python bench/zoos.py FOLDER               # prints the table of docs/pretrained.md; exit status 1 where one differs
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import config
from system import machine

machine.prepare(config.load(None, ["device=cpu"]))

import numpy as np
import paddle

from models.networks import construct
from models.pretrained import load_strictly, read_for
from system.errors import UserError

# Of the logits' largest size.
TOLERANCE = 1e-5
FORMS = (".safetensors", ".pth", ".old.pth")


def difference(folder: Path, row: dict, form: str) -> float | str:
    """Returns the largest difference of a logit, relative to the largest logit; or why the weights do not load."""
    with np.load(folder / f"{row['key']}.npz") as kept:
        images, expected = kept["images"], kept["logits"]
    paddle.utils.unique_name.switch()
    network = construct(row["network"], expected.shape[1], [3, row["side"], row["side"]])
    file = str(folder / f"{row['key']}{form}")
    try:
        weights, _ = read_for(network, row["network"], file)
        load_strictly(network, weights, file, set())
    except UserError as error:
        return str(error).removeprefix(file)[:160]
    network.eval()
    with paddle.no_grad():
        outputs = network(paddle.to_tensor(images))
    logits = (outputs[0] if isinstance(outputs, (list, tuple)) else outputs).numpy()
    if not (logits.argmax(axis=1) == expected.argmax(axis=1)).all():
        return "another class"
    return float(np.abs(logits - expected).max() / np.abs(expected).max())


def main() -> int:
    """Prints the table."""
    folder = Path(sys.argv[1])
    kept = json.loads((folder / "zoos.json").read_text())
    versions = ", ".join(f"{name} {number}" for name, number in kept["versions"].items())
    print(f"paddle {paddle.__version__}, {versions}")
    print(f"| zoo | network | {' | '.join(FORMS)} |")
    print("| --- | --- | --- | --- | --- |")
    wrong = 0
    for row in kept["networks"]:
        found = [difference(folder, row, form) for form in FORMS]
        wrong += any(isinstance(one, str) or one > TOLERANCE for one in found)
        cells = " | ".join(one if isinstance(one, str) else f"{one:.0e}" for one in found)
        print(f"| {row['zoo']} | `{row['network']}` | {cells} |", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
