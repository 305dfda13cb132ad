"""make.py: the targets, .venv and the requirements, with wheels of a few bytes in the place of the real ones."""

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ("annotate", "train", "evaluate", "export", "predict", "serve")
# Prints its arguments, as pytest and visualdl would be run too.
ECHO = "import sys\nprint('ran', *sys.argv, '狗 ✓')\n"


def wheel(folder: Path, name: str, version: str, package: str) -> None:
    """Writes a wheel of one module, which names the distribution it comes from."""
    known = f"{name.replace('-', '_')}-{version}"
    with zipfile.ZipFile(folder / f"{known}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{package}.py", f"origin = {name!r}\n{ECHO}")
        archive.writestr(f"{known}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{known}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{known}.dist-info/RECORD", "")


class Project:
    """A folder with make.py, commands that only print, and requirements that are such wheels."""

    def __init__(self, folder: Path):
        self.folder = folder

    def make(self, *arguments: str, python: str = sys.executable, **environment: str) -> subprocess.CompletedProcess:
        own = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": (self.folder / "wheels").as_uri()}
        names = ("PIP_CONSTRAINT", "PIP_EXTRA_INDEX_URL", "PYTHONPATH", "GOLDEN")
        kept = {name: value for name, value in os.environ.items() if name not in names}
        return subprocess.run(
            [python, str(self.folder / "make.py"), *arguments],
            cwd=self.folder.parent,
            env=kept | own | {"PYTHONIOENCODING": "utf-8"} | environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=120,
        )

    def installed(self) -> set[str]:
        """Distributions in .venv but pip and setuptools."""
        found = self.folder.glob(".venv/**/site-packages/*.dist-info")
        return {path.name.partition("-")[0] for path in found} - {"pip", "setuptools"}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Project:
    """A project whose demo has run once; read-only."""
    folder = tmp_path_factory.mktemp("made") / "用户 project"
    (folder / "wheels").mkdir(parents=True)
    (folder / "output").mkdir()
    shutil.copy(ROOT / "make.py", folder)
    for name in SCRIPTS:
        (folder / f"{name}.py").write_text(ECHO, encoding="utf-8")
    packages = {"paddlepaddle": "paddle", "paddlepaddle-gpu": "paddle", "rest": "rest", "more": "more"}
    for name, package in {**packages, "pytest": "pytest"}.items():
        wheel(folder / "wheels", name, "3.2.2", package)
    (folder / "requirements.txt").write_text("-r requirements-no-paddle.txt\npaddlepaddle==3.2.2\n")
    (folder / "requirements-no-paddle.txt").write_text("rest==3.2.2\n")
    (folder / "requirements-dev.txt").write_text("-r requirements.txt\npytest==3.2.2\n")
    (folder / "requirements-tracing.txt").write_text("# optional\n")
    project = Project(folder)
    project.first = project.make("demo")
    return project


@pytest.fixture
def project(made, tmp_path) -> Project:
    """A copy of it to change."""
    shutil.copytree(made.folder, tmp_path / "copy", symlinks=True)
    return Project(tmp_path / "copy")


def test_demo_makes_the_environment_and_runs_every_step(made):
    """Guards against a first command that needs make, a shell or an activated environment, or loses a step."""
    assert made.first.returncode == 0, made.first.stderr
    lines = made.first.stdout.splitlines()
    assert lines[0] == "installing the requirements into .venv (about 1 GB, a minute or two)"
    ran = [line.split()[1] for line in lines if line.startswith("ran ")]
    assert ran == [f"{name}.py" for name in SCRIPTS[:5]]
    assert lines[-1] == "report: output/signs-resnet50/report.html"
    assert "ran predict.py signs/test" in (made.folder / "output" / "predictions.txt").read_text(encoding="utf-8")
    assert made.installed() == {"paddlepaddle", "rest"}


def test_requirements_are_installed_when_they_changed_and_only_then(project):
    """Guards against an environment that stays old, and against pip before each command."""
    again = project.make("docs", PIP_FIND_LINKS="file:///nowhere")
    assert "installing" not in again.stdout
    (project.folder / "requirements-no-paddle.txt").write_text("rest==3.2.2\nmore==3.2.2\n")
    changed = project.make("serve", "--port", "8001")
    assert changed.returncode == 0 and "ran serve.py --port 8001" in changed.stdout
    assert project.installed() == {"paddlepaddle", "rest", "more"}
    (project.folder / "requirements-no-paddle.txt").write_text("lost==3.2.2\n")
    failed = project.make("serve")
    assert failed.returncode == 1 and "PIP_INDEX_URL" in failed.stderr and "ran" not in failed.stdout


def test_a_gpu_build_replaces_the_cpu_build_and_stays(project):
    """Guards against both builds of Paddle in one environment, also after a target of developers."""
    demo = project.make("demo", "--gpu", "cu126")
    assert demo.returncode == 0, demo.stderr
    assert project.installed() == {"paddlepaddle_gpu", "rest"}
    tested = project.make("test")
    assert tested.returncode == 0, tested.stderr
    assert project.installed() == {"paddlepaddle_gpu", "rest", "pytest"}
    # As an environment of an earlier make is found, or one that a person has filled.
    for stamp in ("run-time", "development"):
        (project.folder / ".venv" / stamp).write_text("")
    assert "using the paddlepaddle-gpu" in project.make("demo").stdout
    assert "paddlepaddle" not in project.installed()


def test_an_installed_paddle_is_used_as_it_is(project):
    """Guards against a CPU build beside the GPU build of AI Studio, and against --gpu installed without one."""
    used = project.make("demo", "--gpu", "installed")
    assert used.returncode == 0 and "using the paddlepaddle that is installed" in used.stdout
    python = next(project.folder.glob(".venv/[bS]*/python*"))
    subprocess.run([python, "-m", "pip", "uninstall", "-q", "-y", "paddlepaddle"], check=True)
    (project.folder / ".venv" / "run-time").unlink()
    refused = project.make("demo", "--gpu", "installed")
    assert refused.returncode == 1 and "sees no paddle" in refused.stderr


def test_the_makefile_is_a_front_to_it():
    """Guards against a target that only one of the two knows."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    (targets,) = re.findall(r"^TARGETS := (.*)$", text, re.MULTILINE)
    shown = subprocess.run([sys.executable, str(ROOT / "make.py")], capture_output=True, text=True).stdout
    assert re.findall(r"^  (\S+)  ", shown, re.MULTILINE)[: len(targets.split())] == targets.split()
    if shutil.which("make"):
        line = ["make", "-n", "demo", "GPU=cu126", "PYTHON=python3.12"]
        planned = subprocess.run(line, cwd=ROOT, capture_output=True, text=True).stdout
        assert planned.split() == "python3.12 make.py demo --gpu cu126".split()


def test_only_the_standard_library_is_needed():
    """Guards against a first command that needs what it is about to install."""
    tree = ast.parse((ROOT / "make.py").read_text(encoding="utf-8"))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {name.partition(".")[0] for name in names} <= set(sys.stdlib_module_names)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("3 14 64 Windows AMD64", "is Python 3.14 (64 bits), for which Paddle has no build; install a 64-bit Python"),
        ("3 9 64 Linux x86_64", "is Python 3.9"),
        ("3 12 32 Windows AMD64", "(32 bits)"),
        ("3 12 64 Darwin x86_64", "no build for Darwin on x86_64; it has them for Darwin on arm64"),
    ],
)
def test_a_python_without_paddle_is_refused_in_words(tmp_path, answer, words):
    """Guards against pip's "no matching distribution" where Paddle has no wheel (emulated)."""
    shutil.copy(ROOT / "make.py", tmp_path)
    fake = tmp_path / "python3.x"
    fake.write_text(f"#!/bin/sh\necho {answer}\n")
    fake.chmod(0o755)
    refused = Project(tmp_path).make("demo", "--python", str(fake))
    assert refused.returncode == 1 and words in refused.stderr, refused.stderr
    assert not (tmp_path / ".venv").exists()


def test_what_is_wrong_is_said_in_one_line(tmp_path):
    """Guards against an option that is silently ignored, and against a traceback for a Python that is not there."""
    shutil.copy(ROOT / "make.py", tmp_path)
    project = Project(tmp_path)
    assert "--port: lint has none" in project.make("lint", "--port", "9").stderr
    assert "neither a CUDA version" in project.make("demo", "--gpu", "12.6").stderr
    gone = project.make("demo", "--python", "python-that-is-not-there")
    assert gone.returncode == 1 and len(gone.stderr.splitlines()) == 1 and "does not start" in gone.stderr


def test_clean_deletes_what_the_commands_made_and_nothing_else(project):
    """Guards against a clean that follows a link out of the project, or takes the images."""
    elsewhere = project.folder.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept.txt").write_text("")
    (project.folder / "infer").symlink_to(elsewhere)
    assert project.make("clean").returncode == 0
    assert not (project.folder / "output").exists() and not (project.folder / "infer").exists()
    assert (elsewhere / "kept.txt").exists() and (project.folder / "wheels").exists()


SAVES = """
import signal, sys, time
def end(*_): print("saving", flush=True); time.sleep(0.5); print("saved", flush=True); sys.exit(143)
for one in (signal.SIGTERM, signal.SIGINT): signal.signal(one, end)
print("waiting", flush=True)
while True: time.sleep(0.05)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGTERM, and Ctrl-C to all of a console only")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_command_save_first(project, number):
    """Guards against Ctrl-C or SIGTERM that kills a training in the midst of its save, or leaves it behind."""
    (project.folder / "serve.py").write_text(SAVES)
    line = [sys.executable, str(project.folder / "make.py"), "serve"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        while process.stdout.readline().strip() != "waiting":
            assert process.poll() is None
        # A terminal sends Ctrl-C to all of its processes, a service manager SIGTERM to the first.
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        assert process.stdout.read().split() == ["saving", "saved"]
        assert process.wait() == 143
