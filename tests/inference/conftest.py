"""A run with random weights and its export, shared by the tests of exported models."""

import shutil
from pathlib import Path

import numpy as np
import paddle
import pytest
from PIL import Image

import config
import export
from annotation.lists import write_list
from models import factory
from models.checkpoint import BEST, Run
from system import machine
from system.publishing import write_text

CLASS_NAMES = ["red", "green", "blue"]


def _write_images(folder: Path, counts: dict[str, int]) -> None:
    generator = np.random.default_rng(7)
    for split, count in counts.items():
        for index, name in enumerate(CLASS_NAMES):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 90, (50, 37 + 20 * i, 3), dtype=np.uint8)
                pixels[..., index] += 120
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")
        files = sorted((folder / split).rglob("*.png"))
        write_list(folder / f"{split}.txt", [(str(file), CLASS_NAMES.index(file.parent.name)) for file in files])
    write_text(folder / "labels.txt", "".join(f"{name}\n" for name in CLASS_NAMES))


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A run with random weights whose predictions differ between images, and its settings."""
    folder = tmp_path_factory.mktemp("export")
    _write_images(folder / "data", {"train": 4, "valid": 4, "test": 2})
    overrides = [
        f"data_dir={folder / 'data'}", "network=cnn", "image_shape=[3,40,24]", f"output_dir={folder / 'output'}",
        f"export_dir={folder / 'infer'}", "device=cpu", "threads=1", "batch_size=5", "run_name=tiny",
    ]  # fmt: skip
    settings = config.load(overrides=overrides)
    machine.seed_all(3)
    run = Run.create(settings, CLASS_NAMES)
    network, _ = factory.build(settings, len(CLASS_NAMES))
    # Logits of about 1: a network that is certain of everything would hide what was changed.
    images = paddle.to_tensor(np.random.default_rng(0).integers(0, 256, (8, 3, 40, 24), dtype=np.uint8))
    network.eval()
    last = network.parameters()[-2]
    last.set_value(last / network(images).std())
    run.save(weights={BEST: network.network.state_dict()})
    return run, settings


@pytest.fixture(scope="session")
def exported(made) -> Path:
    """The export of `made`; tests must not change it."""
    return export.export(*made)


@pytest.fixture
def copy(exported, tmp_path) -> Path:
    """A copy of `exported` for one test."""
    return Path(shutil.copytree(exported, tmp_path / "copy"))


@pytest.fixture
def export_to(made):
    """Returns a function that exports `made` into a folder."""
    run, settings = made
    return lambda folder, *extras: export.export(
        run, settings.model_copy(update={"export_dir": str(folder)}), [*extras]
    )
