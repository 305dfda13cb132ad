"""PaddleX's answers beside ours on the same exported folder: largest difference of a score.

    python bench/paddlex.py infer/signs-cnn signs/test IMAGE ...

PaddleX pins packages of its own, so it runs in an environment of its own, made on the first run (--environment).
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
ASK_PADDLEX = """
import json, sys
from paddlex import create_model
folder, count = sys.argv[1], int(sys.argv[2])
model = create_model(model_name="ResNet50", model_dir=folder)
answers = {}
for path in json.load(sys.stdin):
    result = next(iter(model.predict(path, topk=count))).json["res"]
    answers[path] = dict(zip(result["label_names"], map(float, result["scores"])))
print("ANSWERS" + json.dumps(answers))
"""


def environment(folder: Path) -> Path:
    """Makes the environment where it is missing; returns its Python."""
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"making {folder} with {' '.join(PACKAGES)} (minutes)", flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return python


def ask(python: Path, model: Path, images: list[str], count: int) -> dict[str, dict[str, float]]:
    """Lets PaddleX answer: scores by class name, by image."""
    command = [str(python), "-c", ASK_PADDLEX, str(model), str(count)]
    done = subprocess.run(command, input=json.dumps(images), capture_output=True, text=True)
    line = next((line for line in done.stdout.splitlines() if line.startswith("ANSWERS")), None)
    if line is None:
        raise RuntimeError(f"PaddleX failed:\n{done.stderr[-2000:]}")
    return json.loads(line.removeprefix("ANSWERS"))


def compare(model, images: list[str], theirs: dict[str, dict[str, float]]) -> tuple[float, str, int]:
    """Largest difference of a score, its image, and on how many images the first class is the same."""
    from imaging.images import read_image

    largest, worst, same = 0.0, "", 0
    for path in images:
        row = model.predict(model.transform(read_image(path, 10**9))[None])[0]
        ours = dict(zip(model.class_names, map(float, row), strict=True))
        gap = max(abs(ours[name] - theirs[path][name]) for name in ours)
        same += max(ours, key=ours.__getitem__) == max(theirs[path], key=theirs[path].__getitem__)
        if gap >= largest:
            largest, worst = gap, path
    return largest, worst, same


def main() -> int:
    """Prints one line a folder of images, and fails above the tolerance."""
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
    from inference.predictor import ExportedModel
    from inference.sources import find_images

    model = ExportedModel(arguments.model)
    failed = False
    print(
        "| images | number | same first class | largest difference of a score | on |\n| --- | --- | --- | --- | --- |"
    )
    for source in arguments.images:
        images = list(find_images([source]))
        theirs = ask(python, arguments.model, images, len(model.class_names))
        gap, worst, same = compare(model, images, theirs)
        failed |= gap > TOLERANCE
        print(f"| {source} | {len(images)} | {same} | {gap:.1e} | {worst} |", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
