"""Exports a trained run as one static graph for Paddle Inference, and checks that it answers like the run."""

import hashlib
import json
import os
import shlex
import shutil
from pathlib import Path

import config
import runtime
from config import Settings, UserError
from evaluate import open_run

# Largest difference of a probability between the run and its export.
TOLERANCE = 1e-4
# How many pictures example.json holds.
EXAMPLES = 3


def write_graph(network, image_shape: tuple[int, int, int], folder: Path) -> None:
    """Writes graph and weights: raw pixels float32 0..255 [N, 3, H, W] in, probabilities [N, C] out."""
    import paddle
    from paddle.static import InputSpec

    class Served(paddle.nn.Layer):
        """Softmax is inside, because PaddleX only sorts what the graph returns."""

        def __init__(self, classifier):
            super().__init__()
            self.classifier = classifier

        def forward(self, image):
            return paddle.nn.functional.softmax(self.classifier(image), axis=-1)

    served = Served(network)
    served.eval()
    spec = InputSpec([None, *image_shape], "float32", "image")
    paddle.jit.save(served, str(folder / "inference"), input_spec=[spec])


def check(expected, model, entries, batches, engine: str) -> float:
    """Compares an exported model with the run, picture by picture.

    Args:
        expected: Probabilities of the run, float32 [N, C], in the order of entries.
        model: inference.ExportedModel.
        batches: Yields (images uint8 [n, 3, H, W], labels) over the entries in order.
        engine: What messages call the way the model runs.

    Returns:
        The largest difference of a probability.

    Raises:
        UserError: A picture's first class differs, or a probability by more than TOLERANCE.
    """
    import numpy as np

    got = np.concatenate([model.predict(images) for images, _ in batches])
    gaps = np.abs(got - expected).max(axis=1)
    wrong = np.flatnonzero(~(gaps <= TOLERANCE) | (got.argmax(axis=1) != expected.argmax(axis=1)))
    if len(wrong):
        worst = wrong[np.nan_to_num(gaps[wrong], nan=np.inf).argmax()]
        raise UserError(
            f"{entries[worst].path}: {engine} answers {model.class_names[int(got[worst].argmax())]}, the run "
            f"{model.class_names[int(expected[worst].argmax())]}, probabilities differ by {gaps[worst]:.2g} "
            f"({len(wrong)} of {len(got)} pictures); nothing was exported, report this with the network's name"
        )
    return float(gaps.max())


def write_example(expected, entries, images, class_names: list[str], path: Path) -> None:
    """Writes a few pictures with the digest of their pixels and the probabilities that a client must get."""
    examples = [
        {
            "picture": entry.path,
            "pixels_sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
            "probabilities": {name: float(p) for name, p in zip(class_names, row, strict=True)},
        }
        for entry, pixels, row in zip(entries, images, expected, strict=False)
    ]
    about = "pixels_sha256: of the uint8 pixels [3, height, width] in C order, after resize and crop"
    path.write_text(json.dumps({"about": about, "examples": examples}, indent=2, ensure_ascii=False) + "\n", "utf-8")


def gate_entries(settings: Settings, run):
    """Collects the pictures the gate looks at: all that valid and test list.

    Raises:
        UserError: Neither list is there, or its label map is not the run's.
    """
    from checkpoint import check_labels
    from lists import LABELS, read_split

    entries = []
    for split in ("valid", "test"):
        if (settings.lists / f"{split}.txt").is_file():
            listed, class_names = read_split(settings, split)
            check_labels(run, class_names, settings.lists / LABELS)
            entries += listed
    if not entries:
        raise UserError(f"{settings.lists}: no valid.txt or test.txt to check the export with; run `python annotate.py`")
    return entries


def export(run, settings: Settings) -> Path:
    """Exports a run into settings.export_dir/NAME and checks it; nothing is left there when the check fails.

    Returns:
        The folder.

    Raises:
        UserError: The exported model answers differently, or the folder cannot be written.
    """
    target = Path(settings.export_dir) / run.name
    if target.exists() and not (target / "inference.yml").is_file():
        raise UserError(f"{target}: this folder is no export, so it is not replaced; choose another export_dir")
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{target.parent}: cannot be written ({error.strerror}); choose another export_dir") from None
    try:
        _fill(temporary, run, settings)
        _replace(target, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _fill(folder: Path, run, settings: Settings) -> None:
    import numpy as np
    import yaml
    from scipy.special import softmax

    from dataset import BatchLoader, ListDataset
    from evaluate import predict_logits
    from inference import DESCRIPTION, ExportedModel, describe
    from transforms import EvalTransform

    device = runtime.select_device(settings)
    entries, class_names = gate_entries(settings, run), run.class_names
    transform = EvalTransform.from_settings(settings)
    loader = BatchLoader(ListDataset(entries, transform, settings.max_pixels), settings.batch_size)
    network = run.load_network()
    logits, _ = predict_logits(network, loader, len(entries), "run")
    expected = softmax(logits, axis=1)
    write_graph(network, settings.image_shape, folder)
    description = yaml.safe_dump(describe(transform, class_names, settings.top_k), sort_keys=False, allow_unicode=True)
    (folder / DESCRIPTION).write_text(description, encoding="utf-8")
    engines = {"oneDNN": ("cpu", True), "plain CPU": ("cpu", False)}
    if device != "cpu":
        engines["GPU"] = (device, False)
    for engine, (place, onednn) in engines.items():
        model = ExportedModel(folder, place, runtime.threads(settings), onednn)
        gap = check(expected, model, entries, loader, engine)
        print(f"{engine}: same first class on {len(entries)} pictures, probabilities differ by {gap:.1e} at most")
    images = np.stack([loader.dataset[i][0] for i in range(min(EXAMPLES, len(entries)))])
    write_example(expected, entries, images, class_names, folder / "example.json")


def _replace(target: Path, temporary: Path) -> None:
    """Puts a finished folder in place; an older export leaves only when the new one is whole."""
    old = target.with_name(f".{target.name}.old.{os.getpid()}")
    if target.exists():
        os.replace(target, old)
    os.replace(temporary, target)
    shutil.rmtree(old, ignore_errors=True)


def main() -> None:
    """Command line of export.py."""
    parser = config.parser(__doc__)
    parser.add_argument("arguments", nargs="*", metavar="RUN|KEY=VALUE", help="run folder (the one trained last) and settings")
    run, settings = open_run(parser, parser.parse_args())
    folder = export(run, settings)
    print(f"{folder}: inference.json, inference.pdiparams, inference.yml, example.json")
    print(f"next: python predict.py PICTURE --model {shlex.quote(str(folder))}")


if __name__ == "__main__":
    config.command(main)
