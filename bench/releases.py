"""Which networks of a Paddle release can be served on a CPU, with and without oneDNN.

Run it in an environment with the release in question; it needs only paddlepaddle and numpy:

    python bench/releases.py                            one to seven networks per family, then three checks of training
    python bench/releases.py --networks resnet18,lenet  some of them
    python bench/releases.py --list                     their names

Every network is built with ten classes, exported as it is served (raw pixels in, probabilities out) and run by
Paddle Inference twice: with Paddle's own kernels ("plain") and with oneDNN. Both outputs are compared with those of
the network in Python. Each network runs in its own process, so that a crash costs one line of the table.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

warnings.filterwarnings("ignore", message="No ccache found")

NUM_CLASSES = 10
IMAGES = 4
THREADS = 2
ROUNDS = 3
SEED = 1
TIMEOUT_SECONDS = 300
LOGIT_SPREAD = 2.0
WRONG = 1e-3  # a difference between probabilities that rounding does not explain
ENGINES = ("plain", "oneDNN")

# Constructors of paddle.vision.models under another name than here, or with an extra argument.
VARIANTS = {
    "lenet": ("LeNet", {}),
    "vgg16_batch_norm": ("vgg16", {"batch_norm": True}),
    "mobilenet_v2_x0_5": ("mobilenet_v2", {"scale": 0.5}),
}
NETWORKS = (
    "small_resize_to_size small_resize_nearest small_resize_bilinear small_attention small_matmul lenet "
    "squeezenet1_0 squeezenet1_1 mobilenet_v1 mobilenet_v2 mobilenet_v2_x0_5 mobilenet_v3_small mobilenet_v3_large "
    "shufflenet_v2_x0_25 shufflenet_v2_x0_33 shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5 "
    "shufflenet_v2_x2_0 shufflenet_v2_swish googlenet alexnet "
    "resnet18 resnet34 resnet50 resnext50_32x4d wide_resnet50_2 resnet101 densenet121 densenet161 "
    "inception_v3 vgg11 vgg16_batch_norm vgg19"
).split()
# More of the same layers; run when named.
MORE_NETWORKS = (
    "vgg13 vgg16 resnet152 wide_resnet101_2 resnext50_64x4d resnext101_32x4d resnext101_64x4d resnext152_32x4d "
    "resnext152_64x4d "
    "densenet169 densenet201 densenet264"
).split()
SHAPES = {"lenet": (1, 28, 28), "alexnet": (3, 224, 224), "googlenet": (3, 224, 224), "inception_v3": (3, 299, 299)}
# About half the usual size: the same layers in a third of the time.
DEFAULT_SHAPE = (3, 128, 128)


def build_network(name):
    """Returns the untrained network of that name with ten outputs."""
    import paddle

    if name.startswith("small_"):
        return build_small_network(name.removeprefix("small_"))
    constructor, arguments = VARIANTS.get(name, (name, {}))
    return getattr(paddle.vision.models, constructor)(num_classes=NUM_CLASSES, **arguments)


def build_small_network(middle):
    """Returns a small network around a layer that paddle.vision's networks lack and users' networks may have."""
    import paddle

    class Attention(paddle.nn.Layer):
        def __init__(self):
            super().__init__()
            self.attention = paddle.nn.MultiHeadAttention(16, 4)

        def forward(self, features):
            tokens = self.attention(features.flatten(2).transpose([0, 2, 1]))
            return tokens.transpose([0, 2, 1]).reshape([-1, 16, 8, 8])

    class Matmul(paddle.nn.Layer):
        def forward(self, features):
            return paddle.matmul(features, features) / 8

    steps = {
        "resize_to_size": lambda: paddle.nn.Upsample(size=[12, 12], mode="bilinear"),
        "resize_nearest": lambda: paddle.nn.Upsample(scale_factor=2, mode="nearest"),
        "resize_bilinear": lambda: paddle.nn.Upsample(scale_factor=2, mode="bilinear"),
        "attention": Attention,
        "matmul": Matmul,
    }
    return paddle.nn.Sequential(
        paddle.nn.Conv2D(3, 16, 3, stride=16, padding=1),
        paddle.nn.BatchNorm2D(16),
        paddle.nn.ReLU(),
        steps[middle](),
        paddle.nn.AdaptiveAvgPool2D(4),
        paddle.nn.Flatten(),
        paddle.nn.Linear(256, NUM_CLASSES),
    )


def served_network(network):
    """Wraps `network`: float32 pixels 0..255 of shape [N, C, H, W] in, probabilities [N, 10] out."""
    import paddle

    class Served(paddle.nn.Layer):
        def __init__(self):
            super().__init__()
            self.network = network

        def logits(self, image):
            outputs = self.network((image / 255.0 - 0.45) / 0.22)
            return outputs[0] if isinstance(outputs, (list, tuple)) else outputs

        def forward(self, image):
            return paddle.nn.functional.softmax(self.logits(image), axis=-1)

    return Served()


def random_images(count, shape, seed):
    """Returns images that differ: coarse patches, with a random colour and contrast per image, and noise.

    To a network that ends in an average, images of pure noise are all the same.

    Returns:
        float32 [count, *shape], whole numbers 0..255.
    """
    import numpy as np

    channels, height, width = shape
    random = np.random.default_rng(seed)
    coarse = random.normal(0, 1, (count, channels, 7, 7)).repeat(-(-height // 7), axis=2).repeat(-(-width // 7), axis=3)
    level = random.uniform(60, 190, (count, channels, 1, 1))
    contrast = random.uniform(10, 70, (count, 1, 1, 1))
    noise = random.normal(0, 15, (count, *shape))
    pixels = level + contrast * coarse[:, :, :height, :width] + noise
    return pixels.round().clip(0, 255).astype("float32")


def settle(served, images):
    """Gives an untrained network batch statistics and a spread of logits like those of a trained one.

    Without that, features grow or vanish and the probabilities are uniform, or 0 and 1, so that all engines agree. One
    pass in training mode fills the running statistics; then the last layer is scaled until the standard deviation of an
    image's logits is `LOGIT_SPREAD`.
    """
    import paddle

    layers = served.sublayers()
    norms = [layer for layer in layers if hasattr(layer, "_momentum")]
    momenta = [layer._momentum for layer in norms]
    for layer in norms:
        layer._momentum = 0.0
    with paddle.no_grad():
        served.train()
        served(images)
        served.eval()
        gain = LOGIT_SPREAD / float(served.logits(images).std(axis=1).mean())
        for layer in layers:
            if is_classifier(layer):
                layer.weight.set_value(layer.weight * gain)
                layer.bias.set_value(layer.bias * gain)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer._momentum = momentum


def is_classifier(layer):
    """Returns True if the layer outputs the logits; GoogLeNet has three, SqueezeNet's is a convolution."""
    import paddle

    linear = isinstance(layer, paddle.nn.Linear) and layer.weight.shape[1] == NUM_CLASSES
    convolution = isinstance(layer, paddle.nn.Conv2D) and layer.weight.shape[0] == NUM_CLASSES
    return (linear or convolution) and layer.bias is not None


def make_predictor(folder, engine):
    """Returns a predictor for the export in `folder`; engine is "plain" or "oneDNN"."""
    import paddle.inference

    suffix = "json" if (Path(folder) / "inference.json").exists() else "pdmodel"
    config = paddle.inference.Config(f"{folder}/inference.{suffix}", f"{folder}/inference.pdiparams")
    config.disable_gpu()
    config.disable_glog_info()
    config.set_cpu_math_library_num_threads(THREADS)
    config.enable_mkldnn() if engine == "oneDNN" else config.disable_mkldnn()
    return paddle.inference.create_predictor(config)


def predict(predictor, images):
    """Returns the probabilities [N, 10] of `images` and the seconds the run took."""
    predictor.get_input_handle(predictor.get_input_names()[0]).copy_from_cpu(images)
    start = time.perf_counter()
    predictor.run()
    seconds = time.perf_counter() - start
    return predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu(), seconds


def emit(**facts):
    """Prints facts for the parent process at once, so that they survive a crash in the next step."""
    print("FACTS " + json.dumps(facts), flush=True)


def first_line(error):
    """Returns the informative line of a Paddle error: the first that begins with the kind in parentheses."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = next((line for line in lines if line.startswith("(")), lines[0] if lines else "")
    return f"{type(error).__name__}: {line}"


def measure(name, folder):
    """Builds, exports and runs one network; prints each fact as soon as it is known."""
    import paddle

    shape = SHAPES.get(name, DEFAULT_SHAPE)
    paddle.seed(SEED)
    served = served_network(build_network(name))
    settle(served, paddle.to_tensor(random_images(IMAGES, shape, SEED)))
    images = random_images(IMAGES, shape, SEED + 1)
    with paddle.no_grad():
        expected = served(paddle.to_tensor(images)).numpy()
    emit(spread=float((expected.max(axis=0) - expected.min(axis=0)).max()))
    spec = paddle.static.InputSpec([None, *shape], "float32", "image")
    paddle.jit.save(served, f"{folder}/inference", input_spec=[spec])
    emit(exported=sorted(path.suffix for path in Path(folder).iterdir()))

    predictors = {}
    for engine in ENGINES:
        emit(step=engine)
        try:
            predictor = make_predictor(folder, engine)
            probabilities, _ = predict(predictor, images)
        except Exception as error:
            emit(**{engine: first_line(error)})
            continue
        emit(**{engine: float(abs(probabilities - expected).max())})
        predictors[engine] = predictor
    emit(step="timing")
    seconds = {engine: [] for engine in predictors}
    for _ in range(ROUNDS):
        for engine, predictor in predictors.items():
            seconds[engine].append(predict(predictor, images)[1])
    emit(**{f"{engine} ms": 1000 * statistics.median(runs) / IMAGES for engine, runs in seconds.items()})


def measure_apart(name):
    """Runs `measure` in its own process.

    Returns:
        The facts by name; "error" holds what ended it early.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--measure", name, folder]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
        ) as process:
            try:
                output, errors = process.communicate(timeout=TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                output, errors = process.communicate()
                errors = f"no end after {TIMEOUT_SECONDS} s"
    facts = {"step": "export"}
    for line in output.splitlines():
        if line.startswith("FACTS "):
            facts.update(json.loads(line.removeprefix("FACTS ")))
    if process.returncode:
        last = ([line for line in errors.splitlines() if line.strip()] or ["no message"])[-1]
        killed = signal.Signals(-process.returncode).name + ": " if process.returncode < 0 else ""
        facts["error"] = killed + last.strip()
        facts.setdefault(facts["step"], facts["error"])
    return facts


def row(name, facts):
    """Returns the line of the table for one network."""

    def difference(value):
        if not isinstance(value, float):
            return value or "-"
        return f"{value:.1e}" if value < WRONG else f"WRONG {value:.1e}"

    def milliseconds(value):
        return f"{value:.1f}" if value else "-"

    exported = "yes" if "exported" in facts else facts["error"]
    spread = f"{facts['spread']:.1e}" if "spread" in facts else "-"
    cells = [name, "x".join(map(str, SHAPES.get(name, DEFAULT_SHAPE))), exported, spread]
    cells += [difference(facts.get(engine)) for engine in ENGINES]
    cells += [milliseconds(facts.get(f"{engine} ms")) for engine in ENGINES]
    if all(f"{engine} ms" in facts for engine in ENGINES):
        cells.append(f"{facts['oneDNN ms'] / facts['plain ms']:.2f}")
    else:
        cells.append("-")
    return "| " + " | ".join(cells) + " |"


def check_training(folder):
    """Trains for one epoch with paddle.Model, exports with it, and imports VisualDL; prints one line each."""
    import numpy as np
    import paddle

    warnings.filterwarnings("ignore", category=UserWarning, module="paddle")
    paddle.seed(SEED)
    images = random_images(16, (3, 32, 32), SEED) / 255.0
    dataset = paddle.io.TensorDataset([paddle.to_tensor(images), paddle.to_tensor(np.arange(16) % NUM_CLASSES)])
    network = paddle.vision.models.resnet18(num_classes=NUM_CLASSES)
    model = paddle.Model(network, inputs=[paddle.static.InputSpec([None, 3, 32, 32], "float32", "image")])
    optimizer = paddle.optimizer.Momentum(0.05, parameters=network.parameters())
    model.prepare(optimizer, paddle.nn.CrossEntropyLoss(), paddle.metric.Accuracy())
    before = network.conv1.weight.numpy().copy()
    model.fit(dataset, batch_size=8, epochs=1, verbose=0)
    moved = float(abs(network.conv1.weight.numpy() - before).max())
    print(f"Model.fit, 1 epoch of 2 steps: weights moved by {moved:.1e}", flush=True)
    model.save(f"{folder}/inference", training=False)
    written = sorted(path.name for path in Path(folder).iterdir())
    print("Model.save(training=False) writes", ", ".join(written), flush=True)
    try:
        import visualdl
    except ImportError as error:
        print(f"visualdl: {error}")
    else:
        print("visualdl imports, release", visualdl.__version__)


def print_environment():
    """Prints the machine and the versions that the table is valid for."""
    processor = platform.processor() or platform.machine()
    flags = ""
    if Path("/proc/cpuinfo").exists():
        lines = dict(line.split("\t:", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if "\t:" in line)
        lines = {key.strip(): value.strip() for key, value in lines.items()}
        processor = lines.get("model name", processor)
        known = ("avx2", "avx512f", "avx512_vnni", "amx_int8")
        flags = " ".join(flag for flag in known if flag in lines.get("flags", "").split())
    versions = " ".join(f"{name} {importlib.metadata.version(name)}" for name in ("paddlepaddle", "numpy"))
    print(f"{processor} ({flags}), {os.cpu_count()} cores, {THREADS} math threads, batch {IMAGES}, {platform.system()}")
    print(f"{versions}, Python {platform.python_version()}\n", flush=True)


def main():
    """Measures the named networks, or all, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", metavar="A,B", help="only these, names with commas between them")
    parser.add_argument("--list", action="store_true", help="print the names of the networks")
    parser.add_argument("--measure", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--check", metavar="FOLDER", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        return measure(*arguments.measure)
    if arguments.check:
        return check_training(arguments.check)
    if arguments.list:
        return print("\n".join(NETWORKS + MORE_NETWORKS))
    names = arguments.networks.split(",") if arguments.networks else NETWORKS
    if unknown := [name for name in names if name not in NETWORKS + MORE_NETWORKS]:
        parser.error(f"--networks: unknown {', '.join(unknown)}; see --list")

    print_environment()
    print("| network | input | exported | spread | plain dp | oneDNN dp | plain ms | oneDNN ms | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for name in names:
        print(row(name, measure_apart(name)), flush=True)
    print("\nspread: largest range of a class's probability over the images; dp: largest difference from the")
    print("probabilities of the network in Python; ms: median per image; ratio: oneDNN / plain.\n", flush=True)
    if not arguments.networks:
        with tempfile.TemporaryDirectory() as folder:
            return subprocess.run([sys.executable, __file__, "--check", folder]).returncode


if __name__ == "__main__":
    sys.exit(main())
