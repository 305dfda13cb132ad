"""Fixtures: small data sets, settings of a short training, a trained run, and ways to run the commands."""

import functools
import inspect
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "signs"))

import draw

import annotate
import config
from system import cli, machine
from system.settings import Augment, Settings

CLASS_NAMES = ["ox", "dragon", "dog"]
NO_BFLOAT16 = "no bfloat16 here"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
COUNTS = {"train": 6, "valid": 4, "test": 4}  # images per class
# Modules that cannot be imported without modules or signals of POSIX.
collect_ignore = (
    ["annotation/test_corrections.py", "inference/test_export.py", "training/test_resume.py"] if os.name == "nt" else []
)
POSIX_ONLY = re.compile(
    r"SIG(KILL|STOP|CONT|HUP|TERM)|\b(mkfifo|pgrep|killpg|symlink_to|getuid|chmod|setrlimit|pread)\b|/proc/|/dev/"
)
# A training of a second or two: the small network, small images, one thread.
SHORT = {
    "network": "cnn",
    "image_shape": [3, 24, 24],
    "epochs": 2,
    "batch_size": 6,
    "warmup_epochs": 0,
    "device": "cpu",
    "threads": 1,
    "num_workers": 0,
    "scan_workers": 1,
    "output_dir": "output",
    "run_name": "short",
    "export_dir": "infer",
    # One for all, so that each convolution is measured once and every training computes it in the same way.
    "cache_dir": tempfile.mkdtemp(prefix="tests-cache-"),
}

# Reports are English on every machine.
os.environ["LC_ALL"] = "C.UTF-8"
machine.prepare(config.load(None, ["device=cpu", "threads=1"]))
if hasattr(signal, "SIGHUP"):
    # Ignored where the tests run under nohup, and then by all their processes.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _ignore(key: str) -> None:
    """Makes a setting have its default, whatever it is set to; tests/mutation puts such faults in."""
    group, _, name = key.rpartition(".")
    default = config.look_up(config.load().model_dump(), key)
    default = tuple(default) if isinstance(default, list) else default
    setattr(Augment if group else Settings, name, property(lambda settings: default))


if "IGNORED_SETTING" in os.environ:
    _ignore(os.environ["IGNORED_SETTING"])


def as_arguments(values: dict[str, Any]) -> list[str]:
    """Formats settings as command-line arguments: {"a": {"b": [1, 2]}} becomes a.b=[1, 2]."""
    lines = []
    for key, value in values.items():
        if isinstance(value, dict):
            lines += [f"{key}.{line}" for line in as_arguments(value)]
        else:
            text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
            lines.append(f"{key}={text.removesuffix('...' + chr(10)).strip()}")
    return lines


def without_augmentation() -> dict[str, Any]:
    """Returns augment settings that leave images unchanged: ranges of factors at 1, everything else at 0."""
    values = config.load().augment.model_dump()
    return {key: [1.0, 1.0] if isinstance(value, tuple) else 0 for key, value in values.items()}


@dataclass
class Outcome:
    """Exit status and output of a command."""

    status: int
    out: str
    err: str

    def refused(self, *words: str) -> None:
        """Asserts a UserError's form: exit status 1, one line on stderr with a remedy and these words, no traceback."""
        assert self.status == 1, self
        assert len(self.err.strip().splitlines()) == 1, self.err
        assert "Traceback" not in self.out + self.err
        assert "; " in self.err, f"no remedy in: {self.err}"
        for word in words:
            assert word in self.err


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips on Windows the tests that use what only POSIX has; -rs lists them."""
    for item in items if os.name == "nt" else ():
        if needs := POSIX_ONLY.search(inspect.getsource(item.function)):
            item.add_marker(pytest.mark.skip(reason=f"Windows has no {needs[0]}"))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Removes the shared cache; fails where a test was skipped although all that tests want was installed (SKIPS=fail).

    A processor cannot be installed.
    """
    shutil.rmtree(SHORT["cache_dir"], ignore_errors=True)
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    skipped = [one for one in skipped if NO_BFLOAT16 not in str(one.longrepr)]
    if os.environ.get("SKIPS") == "fail" and skipped and exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def moments() -> random.Random:
    """Draws the moments at which a test kills; TEST_SEED repeats those of a test that failed, which prints it."""
    seed = int(os.environ.get("TEST_SEED") or random.SystemRandom().randrange(10**6))
    print(f"TEST_SEED={seed} kills at the same moments")
    return random.Random(seed)


@pytest.fixture(scope="session")
def arguments_for() -> Callable[..., list[str]]:
    """Returns a function: data folder and changed settings -> command-line arguments of a short training."""

    def build(data: str | os.PathLike, **changes: Any) -> list[str]:
        return as_arguments({"data_dir": str(data), **SHORT, **changes})

    return build


@pytest.fixture(scope="session")
def settings_for(arguments_for) -> Callable[..., Settings]:
    """Returns a function: data folder and changed settings -> settings of a short training."""
    return lambda data, **changes: config.load(None, arguments_for(data, **changes))


@pytest.fixture(scope="session")
def bfloat16_cpu() -> None:
    """Skips a test where this processor or Paddle has no bfloat16; why is tested everywhere."""
    from models import bfloat16

    if reason := bfloat16.obstacle():
        pytest.skip(f"{NO_BFLOAT16}: {reason}")


@pytest.fixture(scope="session")
def plain() -> dict[str, Any]:
    """Augment settings that leave images unchanged."""
    return without_augmentation()


@pytest.fixture(scope="session")
def draw_data() -> Callable[..., Path]:
    """Returns a function that draws a data set with signs/draw.py."""

    def build(folder: Path, class_names=CLASS_NAMES, counts=COUNTS, size=(48, 40), seed=5) -> Path:
        draw.write_images(folder, counts, class_names, size, seed)
        return folder

    return build


@pytest.fixture(scope="session")
def drawn(tmp_path_factory, draw_data, settings_for) -> Path:
    """A data set of three classes, drawn and annotated once; read-only, `data` is a copy to change."""
    folder = draw_data(tmp_path_factory.mktemp("drawn") / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parent)
        annotate.annotate(settings_for("data"))
    return folder


@pytest.fixture
def data(drawn, tmp_path, monkeypatch) -> Path:
    """A copy of `drawn` for one test, as `data` in the current folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(drawn, tmp_path / "data")
    return Path("data")


@pytest.fixture(scope="session")
def trained(drawn, tmp_path_factory, settings_for):
    """A short run, trained once (checkpoint.Run); read-only."""
    import train

    output = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(drawn.parent)
        return train.train(settings_for(drawn, output_dir=str(output)))


@pytest.fixture(scope="session")
def donor(tmp_path_factory) -> Callable[..., str]:
    """Returns a function: network and side of its images -> a weights file of it, for 7 classes."""

    @functools.cache
    def build(network: str, side: int) -> str:
        import paddle

        from models import networks

        file = tmp_path_factory.mktemp("donors") / f"{network}.pdparams"
        paddle.seed(11)
        paddle.save(networks.construct(network, 7, [3, side, side]).state_dict(), str(file))
        return str(file)

    return build


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """The machine's Chromium or Chrome, with a camera that shows a test image."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is on this machine")
    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=camera)
        yield opened
        opened.close()


@pytest.fixture
def call(monkeypatch, capfd) -> Callable[..., Outcome]:
    """Runs a command in this process, through `cli.command`: `call(train, "epochs=1")`."""

    def run(module: ModuleType, *arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.command(module.main)
        code = ended.value.code
        return Outcome(code if isinstance(code, int) else int(bool(code)), *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def command() -> Callable[..., Outcome]:
    """Runs a command in a process of its own: `command("train.py", "epochs=1", cwd=folder)`."""

    def run(
        script: str, *arguments: str, cwd: Path, root: Path = ROOT, seconds: int = 240, **environment: str
    ) -> Outcome:
        ended = subprocess.run(
            [sys.executable, str(root / script), *map(str, arguments)],
            cwd=cwd,
            env=os.environ | {"PYTHONIOENCODING": "utf-8"} | environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=seconds,
        )
        return Outcome(ended.returncode, ended.stdout, ended.stderr)

    return run
