"""Exports a trained run as a folder that says all about itself, and checks that it answers like the run."""

import hashlib
import json
import shlex
from pathlib import Path

import config
from system import cli, machine
from system.errors import UserError
from system.settings import Settings

# How many images example.json holds.
EXAMPLES = 3


def gate_samples(settings: Settings, run) -> tuple[str, list]:
    """Reads the images the gate looks at: the valid list, or the test list where there is no other.

    Returns:
        The split and its samples.

    Raises:
        UserError: Neither list is there, or its label map is not the run's.
    """
    from annotation.lists import LABELS, read_split
    from models.checkpoint import check_labels

    for split in ("valid", "test"):
        if (settings.lists / f"{split}.txt").is_file():
            samples, class_names = read_split(settings, split)
            check_labels(run, class_names, settings.lists / LABELS)
            return split, samples
    raise UserError(f"{settings.lists}: no valid.txt or test.txt to check the export with; run `python annotate.py`")


def calibration_images(settings: Settings, transform):
    """Reads training images for the quantiser, evenly from the whole list: uint8 [N, 3, H, W].

    Raises:
        UserError: There is no train list, or an image cannot be read.
    """
    import numpy as np

    from annotation.lists import read_split
    from imaging.images import read_image
    from inference.quantisation import CALIBRATION_IMAGES

    samples, _ = read_split(settings, "train")
    chosen = np.unique(np.linspace(0, len(samples) - 1, CALIBRATION_IMAGES).round().astype(int))
    return np.stack([transform(read_image(samples[i].file, settings.max_pixels)) for i in chosen.tolist()])


def probabilities_of(network, temperature: float):
    """Makes the function the export must equal: uint8 [N, 3, H, W] to probabilities float32 [N, C]."""
    import numpy as np
    import paddle
    from scipy.special import softmax

    def answer(images):
        with paddle.no_grad():
            return softmax(network(paddle.to_tensor(images)).numpy() / np.float32(temperature), axis=1)

    return answer


def write_example(answer, samples, transform, settings: Settings, class_names: list[str], path: Path) -> None:
    """Writes what a client in any language can check itself with.

    Args:
        answer: Probabilities of the run, from uint8 [N, 3, H, W].
    """
    import numpy as np

    from imaging.images import read_file, read_image
    from inference.engines import pattern

    examples = []
    for sample in samples[:EXAMPLES]:
        data = read_file(sample.file, sample.path)
        pixels = transform(read_image(data, settings.max_pixels, sample.path))
        row = answer(pixels[None])[0]
        examples.append(
            {
                "picture": sample.path,
                "file_sha256": hashlib.sha256(data).hexdigest(),
                "pixels_sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
                "probabilities": {name: float(p) for name, p in zip(class_names, row, strict=True)},
            }
        )
    values = answer(pattern(1, settings.image_shape).astype(np.uint8))[0]
    content = {
        "about": "pixels_sha256: of the uint8 pixels [3, height, width] in C order, after resize and crop. pattern: a "
        "image that needs no file; in C order its value i is floor(i * 40503 / 64) modulo 256.",
        "shape": list(settings.image_shape),
        "pattern": {"probabilities": [float(p) for p in values]},
        "examples": examples,
    }
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def export(run, settings: Settings, onnx: bool = False, int8: bool = False) -> Path:
    """Exports a run into settings.export_dir/NAME and checks it; nothing is left there when the check fails.

    Args:
        run: checkpoint.Run.
        onnx: Write inference.onnx too.
        int8: Write the 8-bit graph too.

    Returns:
        The folder.

    Raises:
        UserError: The exported model answers differently, or the folder cannot be written.
    """
    if onnx:
        from inference.onnx import check_installed

        check_installed()
    from inference.export_folder import appearing

    target = Path(settings.export_dir) / run.name
    with appearing(target) as folder:
        _fill(folder, run, settings, onnx, int8)
    return target


def _fill(folder: Path, run, settings: Settings, onnx: bool, int8: bool) -> None:
    import paddle

    from imaging.transforms import EvalTransform
    from inference import description, graphs

    device = machine.select_device(settings)
    (split, samples), class_names = gate_samples(settings, run), run.class_names
    transform = EvalTransform.from_settings(settings)
    temperature, threshold = run.temperature, run.threshold
    network = run.load_network()
    answer = probabilities_of(network, temperature)
    graphs.write_graphs(network, settings.image_shape, temperature, folder)
    if onnx:
        from inference.onnx import write_onnx

        write_onnx(folder)
    if int8:
        from inference.quantisation import quantise

        quantise(folder, calibration_images(settings, transform))
    write_example(answer, samples, transform, settings, class_names, folder / description.EXAMPLE)
    content = description.compose(transform, class_names, settings.top_k, temperature, threshold)
    description.seal(folder, content, paddle.__version__)
    measured = _pass_gate(folder, answer, transform, class_names, split, samples, settings, device)
    description.seal(folder, content | measured, paddle.__version__)
    _write_card(folder, run, settings)


def _pass_gate(
    folder: Path, answer, transform, class_names, split: str, samples, settings: Settings, device: str
) -> dict:
    """Compares every engine that is offered here with the run, and times them.

    Returns:
        The groups Checks and Engines of inference.yml.

    Raises:
        UserError: An engine answers otherwise; the message names image, engine and gap.
    """
    from tqdm import tqdm

    from inference import engines, verification
    from inference.predictor import ExportedModel

    threads = machine.threads(settings)
    models = {name: ExportedModel(folder, device, threads, name) for name in engines.offered(folder, device)}
    batches = (samples[at : at + settings.batch_size] for at in range(0, len(samples), settings.batch_size))
    total = -(-len(samples) // settings.batch_size)
    with tqdm(batches, total=total, unit=" batches", desc=f"check on {split}", leave=False, disable=None) as bar:
        accuracy, tallies = verification.compare(answer, transform, class_names, models, bar, settings.max_pixels)
    verification.judge(accuracy, tallies)
    milliseconds = engines.measure({name: model.predict for name, model in models.items()}, settings.image_shape)
    _tell(split, accuracy, tallies, milliseconds)
    seen = {
        name: {
            "largest_difference": float(f"{tally.largest_difference:.3g}"),
            "accuracy": round(tally.accuracy, 6),
            "same_class": tally.same_class,
            "milliseconds": round(milliseconds[name], 3),
        }
        for name, tally in tallies.items()
    }
    times = {name: row["milliseconds"] for name, row in seen.items()}
    return {
        "Checks": {"split": split, "pictures": len(samples), "accuracy": round(accuracy, 6), "engines": seen},
        "Engines": {"processor": engines.processor(), "threads": threads, "milliseconds": times},
    }


def _tell(split: str, accuracy: float, tallies: dict, milliseconds: dict[str, float]) -> None:
    width = max(map(len, tallies))
    for name, tally in tallies.items():
        line = f"{name:<{width}}  same first class on {tally.same_class} of {tally.images} {split} images, "
        line += f"probabilities differ by {tally.largest_difference:.1e} at most, {milliseconds[name]:.2f} ms an image"
        if name == "int8":
            lost = 100 * (accuracy - tally.accuracy)
            line += f"; accuracy {tally.accuracy:.4f}, the run's {accuracy:.4f} ({lost:+.2f} points lost)"
        print(line)


def _write_card(folder: Path, run, settings: Settings) -> None:
    from annotation.lists import SPLITS, read_lines
    from inference.description import CARD
    from inference.model_card import write_card

    files = {split: settings.lists / f"{split}.txt" for split in SPLITS}
    counts = {split: len(read_lines(file)) for split, file in files.items() if file.is_file()}
    metrics = run.path / "metrics.json"
    try:
        scores = json.loads(metrics.read_text(encoding="utf-8")) if metrics.is_file() else {}
    except ValueError:
        raise UserError(f"{metrics}: this is not JSON; run `python evaluate.py` anew") from None
    (folder / CARD).write_text(write_card(folder, run.name, settings, counts, scores), encoding="utf-8")


def main() -> None:
    """Command line of export.py."""
    parser = cli.parser(__doc__)
    parser.add_argument(
        "arguments", nargs="*", metavar="RUN|KEY=VALUE", help="run folder (the one trained last) and settings"
    )
    parser.add_argument(
        "--onnx", action="store_true", help="write inference.onnx too (needs paddle2onnx and onnxruntime)"
    )
    parser.add_argument(
        "--int8", action="store_true", help="write an 8-bit graph for the CPU too, if it keeps the accuracy"
    )
    arguments = parser.parse_intermixed_args()
    overrides, named = cli.split_overrides(arguments.arguments)
    if len(named) > 1:
        parser.error(f"one run at a time: {' '.join(named)}")
    given = config.load(arguments.config, overrides)
    machine.prepare(given)
    from models.checkpoint import open_run

    run, settings = open_run(named[0] if named else None, given.output_dir, overrides)
    folder = export(run, settings, arguments.onnx, arguments.int8)
    print(f"{folder}: {', '.join(sorted(file.name for file in folder.iterdir()))}")
    print(f"next: python predict.py IMAGE --model {shlex.quote(str(folder))}")


if __name__ == "__main__":
    cli.command(main)
