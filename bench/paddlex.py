"""PaddleX's predictions compared with ours on the same exported folder: largest difference of a score.

An export that export.py said PaddleX refuses must be refused: then one line says so.

    python bench/paddlex.py infer/signs-cnn signs/test IMAGE ...

PaddleX pins other packages, so it runs in an environment of its own, created on the first run (--environment).
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("paddlex[cv]==3.7.2", "paddlepaddle==3.2.2")
TOLERANCE = 1e-4

# Runs under PaddleX's Python: every class with its score, for every image.
PREDICT_WITH_PADDLEX = """
import json, sys
from paddlex import create_model
folder, count = sys.argv[1], int(sys.argv[2])
model = create_model(model_name="ResNet50", model_dir=folder)
scores = {}
for path in json.load(sys.stdin):
    result = next(iter(model.predict(path, topk=count))).json["res"]
    scores[path] = dict(zip(result["label_names"], map(float, result["scores"])))
print("SCORES" + json.dumps(scores))
"""


def environment(folder: Path) -> Path:
    """Creates the environment if it is missing; returns its Python."""
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"making {folder} with {' '.join(PACKAGES)} (minutes)", flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return python


def predict_with_paddlex(python: Path, model: Path, images: list[str], count: int) -> dict[str, dict[str, float]]:
    """Returns PaddleX's scores by class name, by image."""
    command = [str(python), "-c", PREDICT_WITH_PADDLEX, str(model), str(count)]
    done = subprocess.run(command, input=json.dumps(images), capture_output=True, text=True)
    line = next((line for line in done.stdout.splitlines() if line.startswith("SCORES")), None)
    if line is None:
        raise RuntimeError(f"PaddleX failed:\n{done.stderr[-2000:]}")
    return json.loads(line.removeprefix("SCORES"))


def compare(model, images: list[str], theirs: dict[str, dict[str, float]]) -> tuple[float, str, int]:
    """Returns the largest difference of a score, its image, and on how many images top-1 agrees."""
    from imaging.images import read_image

    largest, worst, agreeing = 0.0, "", 0
    for path in images:
        row = model.predict(model.transform(read_image(path, 10**9))[None])[0]
        ours = dict(zip(model.class_names, map(float, row), strict=True))
        gap = max(abs(ours[name] - theirs[path][name]) for name in ours)
        agreeing += max(ours, key=ours.__getitem__) == max(theirs[path], key=theirs[path].__getitem__)
        if gap >= largest:
            largest, worst = gap, path
    return largest, worst, agreeing


def check_refused(python: Path, model: Path, images: list[str], count: int) -> int:
    """Prints how PaddleX refuses an export; returns 1 if it does not."""
    try:
        predict_with_paddlex(python, model, images, count)
    except RuntimeError as error:
        print(f"PaddleX refuses it: {str(error).strip().splitlines()[-1]}")
        return 0
    print("PaddleX answers, although its operators cannot say what this export does")
    return 1


def main() -> int:
    """Prints one line per source of images; exit status 1 above the tolerance."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="a folder that export.py made")
    parser.add_argument("images", nargs="+", help="images, folders, lists")
    parser.add_argument("--environment", type=Path, default=ROOT / ".bench-venv" / "paddlex")
    arguments = parser.parse_args()
    python = environment(arguments.environment)
    sys.path.insert(0, str(ROOT))
    import config
    from system import machine

    machine.prepare(config.load())
    from inference.description import is_read_by_paddlex
    from inference.predictor import ExportedModel
    from inference.sources import find_images

    model = ExportedModel(arguments.model)
    if not is_read_by_paddlex(model.transform):
        return check_refused(python, arguments.model, list(find_images(arguments.images))[:1], len(model.class_names))
    failed = False
    print("| images | number | top-1 agrees | largest difference of a score | on |\n| --- | --- | --- | --- | --- |")
    for source in arguments.images:
        images = list(find_images([source]))
        theirs = predict_with_paddlex(python, arguments.model, images, len(model.class_names))
        gap, worst, agreeing = compare(model, images, theirs)
        failed |= gap > TOLERANCE
        print(f"| {source} | {len(images)} | {agreeing} | {gap:.1e} | {worst} |", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
