"""The project's targets, on every system: `python make.py demo`. Needs nothing but Python.

A target first makes .venv and installs the pinned requirements into it, where it is missing or they changed.
"""

import argparse
import os
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path

if sys.version_info < (3, 10):  # noqa: UP036 - older ones are told so in words
    sys.exit(f"make.py: this is Python {platform.python_version()}; install Python 3.10 to 3.13 and run it with that")

ROOT = Path(__file__).resolve().parent
VENV = Path(".venv")
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
OLDEST, NEWEST = (3, 10), (3, 13)
# Where the pinned release of paddlepaddle has wheels on PyPI.
SYSTEMS = {("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "arm64"), ("Windows", "AMD64")}
PADDLE, REST = "requirements.txt", "requirements-no-paddle.txt"
DEVELOPMENT = ("requirements-dev.txt", "requirements-tracing.txt")
GPU_INDEX = "https://www.paddlepaddle.org.cn/packages/stable"
INSTALLED = "installed"
PROBE = """
import platform, struct, sys
print(*sys.version_info[:2], struct.calcsize("P") * 8, platform.system(), platform.machine())
"""
BUILDS = """
import importlib.metadata as metadata
names = {(one.metadata["Name"] or "").lower() for one in metadata.distributions()}
print(*sorted(names & {"paddlepaddle", "paddlepaddle-gpu"}))
"""

PREDICTIONS = Path("output", "predictions.txt")
TARGETS = {
    "demo": "check, train, evaluate, predict and export on the images in signs/",
    "test": "the tests, and which were skipped and why",
    "test-slow": "the tests that take minutes",
    "fuzz": "odd settings, files and lists: 10,000 of each, and 200 command lines",
    "mutants": "one-line faults: which of them the tests notice (an hour)",
    "golden": "keeps today's texts, helps and pages as those that the tests expect",
    "lint": "style and types: ruff, mypy",
    "docs": "docs/settings.md from config.yaml, the table of docs/tests.md",
    "serve": "the newest exported model and its web page on http://127.0.0.1:8000",
    "board": "VisualDL over output/ on http://127.0.0.1:8040",
    "clean": "deletes output/, infer/ and log/",
}
# VisualDL's page shows an error 500 without a language, and it reports its start to its makers.
BOARD = ["--language", "en", "--disable-telemetry"]
# Python's arguments, one command after the other, of each target but clean.
COMMANDS = {
    "demo": [
        ["annotate.py"],
        ["train.py", "overwrite=true"],
        ["evaluate.py"],
        ["export.py"],
        [
            *["predict.py", "signs/test", "--model", "infer/signs-resnet50"],
            *["--out", "output/predictions.csv", "--show", "output/predictions.png"],
        ],
    ],
    "test": [["-m", "pytest", "-n", "2", "--dist", "loadfile", "-m", "not slow"]],
    "test-slow": [["-m", "pytest", "-m", "slow"]],
    "fuzz": [["-m", "pytest", "tests/fuzz"]],
    "mutants": [["tests/mutation/mutants.py"]],
    "golden": [["-m", "pytest", "-m", "golden"]],
    "lint": [["-m", "ruff", "check", "."], ["-m", "ruff", "format", "--check", "."], ["-m", "mypy"]],
    "docs": [["docs/settings.py"], ["docs/effects.py"]],
    "serve": [["serve.py"]],
    "board": [["-m", "visualdl.server.app", "--logdir", "output", "--host", "127.0.0.1", *BOARD]],
}
ENVIRONMENT = {
    "fuzz": {"FUZZ_EXAMPLES": "10000", "FUZZ_COMMANDS": "200", "FUZZ_IMAGES": "200000"},
    "golden": {"GOLDEN": "write"},
}
OF_DEVELOPERS = ("test", "test-slow", "fuzz", "mutants", "golden", "lint")
PORTS = {"serve": 8000, "board": 8040}


def main() -> int:
    """Runs one target; returns the exit status of the first of its commands that fails, or 0."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A console of Windows may lack the characters of a path.
            stream.reconfigure(errors="backslashreplace")
    parser = _parser()
    arguments = parser.parse_args()
    target = arguments.target
    if not target:
        parser.print_help()
        return 0
    if arguments.port and target not in PORTS:
        parser.error(f"--port: {target} has none; it is an option of {' and '.join(PORTS)}")
    found = shutil.which(arguments.python)
    base = os.path.abspath(found) if found else arguments.python
    os.chdir(ROOT)
    if target == "clean":
        for folder in ("output", "infer", "log"):
            _remove(Path(folder))
        return 0
    prepare(base, arguments.gpu, target in OF_DEVELOPERS)
    for command in COMMANDS[target]:
        if target in PORTS:
            command = [*command, "--port", str(arguments.port or PORTS[target])]
        to = PREDICTIONS if command[0] == "predict.py" else None
        status = run([str(PYTHON), *command], ENVIRONMENT.get(target), to)
        if status:
            return status
    if target == "demo":
        print_predictions()
    return 0


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, TARGETS))
    rows = "".join(f"  {name:{width}}  {text}\n" for name, text in TARGETS.items())
    result = argparse.ArgumentParser(
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"Targets:\n{rows}\nEach but clean first makes .venv and installs the pinned requirements into it.",
        epilog="pip takes another index than PyPI, such as a mirror nearby, from the variable PIP_INDEX_URL.",
    )
    result.add_argument("target", nargs="?", choices=list(TARGETS), metavar="TARGET", help="one of those above")
    result.add_argument(
        "--gpu",
        metavar="CUDA",
        type=_gpu,
        help="cu126, cu118, cu129 ...: Paddle's GPU build for that CUDA instead of the CPU build; "
        f"{INSTALLED}: the paddle that this Python has already, for example on AI Studio",
    )
    result.add_argument("--port", type=int, help="port of serve (8000) and board (8040)")
    result.add_argument(
        "--python", default=sys.executable, help="Python 3.10 to 3.13 that .venv is made with (default: this one)"
    )
    return result


def _gpu(text: str) -> str:
    if text != INSTALLED and not (text.startswith("cu") and text[2:].isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a CUDA version, as cu126, nor {INSTALLED}")
    return text


def prepare(base: str, gpu: str | None, for_developers: bool) -> None:
    """Makes .venv and installs what the target needs, unless it was installed from the same files before.

    Args:
        base: The Python that .venv is made with.
        gpu: CUDA version of a GPU build, "installed", or None: the build that .venv has, else the CPU build.
    """
    before = _read(VENV / "run-time")
    wanted = gpu or before.partition("\n")[0]
    stamp = "\n".join([wanted, _read(PADDLE), _read(REST)])
    if stamp != before or not PYTHON.exists():
        _make_venv(base, wanted == INSTALLED)
        _install_run_time(base, wanted)
        _write(VENV / "run-time", stamp)
    if for_developers:
        stamp += "".join(map(_read, DEVELOPMENT))
        if stamp != _read(VENV / "development"):
            # What these files include is installed already, with the build that was chosen.
            lines = [line for file in DEVELOPMENT for line in _read(file).splitlines() if not line.startswith("-r ")]
            _write(VENV / "requirements-dev.txt", "\n".join(lines) + "\n")
            pip("install", "-r", str(VENV / "requirements-dev.txt"))
            _write(VENV / "development", stamp)


def _make_venv(base: str, with_site_packages: bool) -> None:
    """Makes .venv, unless it holds a Python with pip."""
    if not PYTHON.exists() or subprocess.call([str(PYTHON), "-c", "import pip"], stderr=subprocess.DEVNULL):
        check(base)
        options = ["--system-site-packages"] if with_site_packages else []
        if subprocess.call([base, "-m", "venv", *options, str(VENV)]):
            sys.exit("make.py: .venv could not be made, as said above")
    check(str(PYTHON))


def check(python: str) -> None:
    """Ends with an error in words unless this Python can run the pinned release of Paddle."""
    try:
        found = subprocess.run([python, "-c", PROBE], stdout=subprocess.PIPE, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        sys.exit(f"make.py: {python} does not start; name a Python 3.10 to 3.13 with --python")
    major, minor, bits, system, machine = found.stdout.split()
    how = f"{'delete .venv, ' if python == str(PYTHON) else ''}install a 64-bit Python 3.10 to 3.13"
    example = "py -3.12 make.py demo" if os.name == "nt" else "python3.12 make.py demo"
    if not OLDEST <= (int(major), int(minor)) <= NEWEST or bits != "64":
        sys.exit(
            f"make.py: {python} is Python {major}.{minor} ({bits} bits), for which Paddle has no build; {how} and run "
            f"this with it: {example}"
        )
    if (system, machine) not in SYSTEMS:
        sys.exit(
            f"make.py: Paddle has no build for {system} on {machine}; it has them for "
            + ", ".join(" on ".join(one) for one in sorted(SYSTEMS))
        )


def _builds(python: str) -> list[str]:
    """Distributions of Paddle that a Python sees."""
    return subprocess.run([python, "-c", BUILDS], stdout=subprocess.PIPE, text=True, check=True).stdout.split()


def _install_run_time(base: str, wanted: str) -> None:
    builds = _builds(str(PYTHON))
    if wanted == INSTALLED and not builds:
        sys.exit(
            f"make.py: --gpu {INSTALLED}: the Python of .venv sees no paddle; delete .venv, and run this with the "
            "Python that has one"
        )
    if wanted == INSTALLED or (not wanted and "paddlepaddle-gpu" in builds):
        print(f"using the {' and '.join(builds)} that is installed; installing the other requirements into .venv")
        pip("install", "-r", REST)
        return
    if not builds and "paddlepaddle-gpu" in _builds(base):
        print(f"{base} has a GPU build of Paddle already; to use that, delete .venv and add --gpu {INSTALLED}")
    print("installing the requirements into .venv (about 1 GB, a minute or two)", flush=True)
    if not wanted:
        pip("install", "-r", PADDLE)
        return
    if "paddlepaddle" in builds:
        # Both builds install the package paddle: one over the other is neither.
        pip("uninstall", "-y", "paddlepaddle")
    pip("install", "-r", REST)
    pins = [line for line in _read(PADDLE).splitlines() if line.startswith("paddlepaddle==")]
    pip("install", pins[0].replace("==", "-gpu==", 1), "-i", f"{GPU_INDEX}/{wanted}/")


def pip(command: str, *arguments: str) -> None:
    """Runs pip in .venv, and ends with an error where it fails."""
    line = [str(PYTHON), "-m", "pip", command, "--quiet", "--disable-pip-version-check", *arguments]
    if subprocess.call(line):
        sys.exit(
            f"make.py: pip could not {command} what is needed, as said above; where the network is the cause, "
            "set PIP_INDEX_URL to a mirror nearby, and run this again"
        )


def run(line: list[str], environment: dict[str, str] | None = None, to: Path | None = None) -> int:
    """Prints and runs a command, and returns its exit status.

    Args:
        environment: Variables that are set for it.
        to: File that takes its standard output, in UTF-8.
    """
    shown = subprocess.list2cmdline(line)
    print(f"{shown} > {to}" if to else shown, flush=True)
    variables = {**os.environ, **(environment or {}), **({"PYTHONIOENCODING": "utf-8"} if to else {})}
    output = open(to, "wb") if to else None  # noqa: SIM115 - the process writes to it
    process = subprocess.Popen(line, env=variables, stdout=output)
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                # Ctrl-C reaches the command too, which may have a training to save.
                pass
    finally:
        signal.signal(signal.SIGTERM, before)
        if output:
            output.close()


def print_predictions() -> None:
    """Prints the first predictions of the demo, and where its results are."""
    print("\n".join(_read(PREDICTIONS).splitlines()[:3]))
    print("all predictions: output/predictions.csv, as an image: output/predictions.png")
    print("report: output/signs-resnet50/report.html")


def _remove(folder: Path) -> None:
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def _read(file: str | Path) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("stopped by Ctrl-C")
