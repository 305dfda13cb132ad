"""What the tests of the server share: an exported model, and files that are no images."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import export


@pytest.fixture(scope="session")
def exported(trained, tmp_path_factory, settings_for, drawn) -> Path:
    """An export of the short run; tests must not change it."""
    return export.export(trained, settings_for(drawn, export_dir=str(tmp_path_factory.mktemp("served"))))


@pytest.fixture(scope="session")
def images(drawn) -> list[Path]:
    """The images of the test split."""
    return sorted(drawn.glob("test/*/*"))


@pytest.fixture(scope="session")
def bad_files() -> dict[str, bytes]:
    """Uploads that no server may accept as images, by file name."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole, large = io.BytesIO(), io.BytesIO()
    Image.fromarray(noise).save(whole, "JPEG")
    Image.new("1", (2000, 2000)).save(large, "PNG")
    return {
        "empty.png": b"",
        "text.txt": b"hello",
        "page.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "cut.jpg": whole.getvalue()[:900],
        "header.png": b"\x89PNG\r\n\x1a\n" + b"\0" * 40,
        "bomb.png": large.getvalue(),
        "pointer.jpg": b"version https://git-lfs.github.com/spec/v1\n",
    }
