"""explore.py as a user runs it: its files, its page, its pool, the comparison of backbones, and bad input."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from test_golden import Outline, check, dead_links

import explore
from exploration import backbones, pool
from exploration.explorer import require_pretrained
from system.errors import UserError

SMALL = {"network": "shufflenet_v2_x0_25", "image_shape": [3, 32, 32], "cpu_speedups": False}


@pytest.fixture
def settings(data, settings_for, donor):
    """Settings of an exploration of the test's own images."""
    return lambda **changes: settings_for(
        "data", **SMALL | {"pretrained": donor(SMALL["network"], 32), "cache_dir": "kept"} | changes
    )


@pytest.fixture(scope="module")
def explored(drawn, settings_for, donor, tmp_path_factory):
    """An exploration with a pool, its folder and what it returned; read-only."""
    folder = tmp_path_factory.mktemp("explored")
    shutil.copytree(drawn / "test", folder / "pool")
    (folder / "pool" / "broken.jpg").write_bytes(b"no image")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(drawn.parent)
        chosen = settings_for("data", **SMALL, pretrained=donor(SMALL["network"], 32), cache="none")
        return folder, explore.explore(chosen, str(folder / "pool"), folder, "python explore.py --pool pool")


def table(file: Path) -> list[dict[str, str]]:
    head, *rows = (line.split("\t") for line in file.read_text("utf-8").splitlines())
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_the_files_agree(explored):
    """Guards against counts, tables and arrays of different images."""
    folder, content = explored
    assert json.loads((folder / "explore.json").read_text("utf-8")) == content
    assert content["images"] == {"train": 18, "valid": 12, "test": 12} and content["folds"] == 5
    with np.load(folder / "features.npz") as kept:
        assert kept["features"].shape == (42, 512) and len(kept["paths"]) == 42
        assert kept["paths"][0].startswith("data/train/") and set(kept["splits"]) == {"train", "valid", "test"}
        assert kept["class_names"][kept["labels"][0]] == Path(str(kept["paths"][0])).parent.name
    assert len(table(folder / "suspects.tsv")) == content["suspects"]
    assert {row["split"] for row in table(folder / "suspects.tsv")} <= {"train", "valid", "test"}
    assert len(table(folder / "similar.tsv")) == content["similar_pairs"]
    assert len(table(folder / "unlike.tsv")) == content["unlike_any_other"]


def test_the_pool_is_ranked_and_what_is_left_out_is_named(explored):
    """Guards against images that are lost between folder and table, and ranked from the most decided one."""
    folder, content = explored
    rows = table(folder / "pool.tsv")
    assert len(rows) == content["pool"]["images"] == 12
    assert "1 images that cannot be read: not_a_picture" in content["pool"]["left_out"]
    assert sorted(row["path"] for row in rows) == sorted(str(file) for file in (folder / "pool").glob("*/*.jpg"))
    # 30 images are labelled: too few for the margin to help.
    assert [float(row["margin"]) for row in rows] != sorted(float(row["margin"]) for row in rows)


def test_the_least_decided_come_first_where_enough_are_labelled(settings, monkeypatch, capsys, data):
    """Guards against a random order that never ends, and images of the lists that are asked for again."""
    monkeypatch.setattr(pool, "FEWEST", 30)
    shutil.copy(next((data / "test").rglob("*.jpg")), data / "train" / "ox" / "new.jpg")
    content = explore.explore(settings(), "data/train", "out")
    assert content["pool"] == {"images": 1, "left_out": "18 images are in the lists"}
    shutil.copytree(data / "test", "unlabelled")
    explore.explore(settings(), "unlabelled", "out")
    margins = [float(row["margin"]) for row in table(Path("out/pool.tsv"))]
    assert len(margins) == 12 and margins == sorted(margins)
    assert "to label next: 12 images, the least decided first" in capsys.readouterr().out
    explore.explore(settings(), None, "out")
    assert not Path("out/pool.tsv").exists()


@pytest.mark.golden
def test_the_page_is_one_file_that_opens_offline(explored):
    """Guards against images, styles or scripts from the internet, and sections that were lost."""
    page = (explored[0] / "explore.html").read_text("utf-8")
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources and all(source.startswith(("data:", "#")) for source in sources)
    assert "http://" not in page and "https://" not in page and "url(" not in page
    assert page.count('href="#') == 7 and dead_links(page) == []
    outline = str(Outline(page.replace("explored", "data")))
    check("explore", outline)


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium")
@pytest.mark.parametrize("width", [1200, 500])
def test_the_page_in_a_browser(explored, tmp_path, width):
    """Guards against a script that throws, a map without points, no image under the pointer, and a page too wide."""
    page = (explored[0] / "explore.html").read_text("utf-8")
    probe = """<script>
    const pen = canvas.getContext("2d");
    const pixels = () => pen.getImageData(0, 0, canvas.width, canvas.height).data.filter((value) => value).length;
    const all = pixels(), [x, y] = place(MAP.points[5]), box = canvas.getBoundingClientRect();
    canvas.dispatchEvent(new PointerEvent("pointermove", {clientX: box.left + x, clientY: box.top + y}));
    const text = hover.textContent, shown = hover.style.display, source = hover.querySelector("img").src.slice(0, 10);
    document.querySelector("#legend button").click();
    document.title = JSON.stringify({all, one: pixels(), text, shown, source, points: MAP.points.length,
      expected: MAP.classes[MAP.points[5][2]], wide: document.documentElement.scrollWidth,
      broken: [...document.images].filter((image) => image.src && image.complete && !image.naturalWidth).length});
    </script></body>"""
    file = tmp_path / "probe.html"
    file.write_text(page.replace("</body>", probe), "utf-8")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += [f"--window-size={width},900", "--enable-logging=stderr", "--dump-dom", "--virtual-time-budget=3000"]
    done = subprocess.run([*command, file.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    # The probe reads the canvas more often than Chromium likes.
    messages = [line for line in done.stderr.splitlines() if "CONSOLE" in line and "willReadFrequently" not in line]
    assert messages == []
    found = json.loads(re.search("<title>(.*?)</title>", done.stdout).group(1))
    assert found["points"] == 42 and found["all"] > 1000 and found["one"] > 0 and found["broken"] == 0
    assert found["text"].startswith(found["expected"]) and found["shown"] == "block"
    assert found["source"] == "data:image" and found["wide"] <= width


def test_the_same_twice(settings):
    """Guards against numbers that differ from run to run, or with and without a cache."""
    first = explore.explore(settings(), None, "one")
    assert explore.explore(settings(cache="none"), None, "two") == first
    for name in ("suspects.tsv", "similar.tsv", "unlike.tsv"):
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes()


def test_backbones_are_compared_on_the_same_folds(call, data, arguments_for, donor):
    """Guards against a best one that is not the first, and weights of one network given to another."""
    names = ("shufflenet_v2_x0_25", "squeezenet1_1")
    choice = ",".join(f"{name}={donor(name, 32)}" for name in names)
    ended = call(explore, *arguments_for("data", image_shape=[3, 32, 32], cache="none"), "--backbones", choice)
    assert ended.status == 0, ended
    lines = ended.out.splitlines()
    rows = [line for line in lines if re.match(rf"({'|'.join(names)})  ", line)]
    accuracies = [float(row.split()[1]) for row in rows]
    assert len(rows) == 2 and accuracies == sorted(accuracies, reverse=True)
    assert " +0.0000 (+0.0000 to +0.0000) " in rows[0]
    best = rows[0].split()[0]
    assert lines[-1] == f"next: python train.py freeze=true network={best} pretrained={donor(best, 32)}"


def test_names_of_backbones_are_read(settings):
    """Guards against a comparison of one network with itself, or with weights of the wrong one."""
    chosen = backbones.parse("resnet18, mobilenet_v2=a/b=c.pdparams", settings(pretrained=True))
    assert [(one.network, one.pretrained) for one in chosen] == [
        ("resnet18", True),
        ("mobilenet_v2", "a/b=c.pdparams"),
    ]
    for text in ("", "resnet18,", "resnet18,resnet18"):
        with pytest.raises(UserError, match="--backbones"):
            backbones.parse(text, settings())


def test_bad_input_is_one_line(call, data, arguments_for, donor):
    """Guards against a traceback, and against conclusions from a network that knows nothing."""
    good = arguments_for("data", **SMALL, pretrained=donor(SMALL["network"], 32), cache="none")
    call(explore, *arguments_for("data")).refused("pretrained=false", "pretrained=FILE")
    call(explore, *good, "--pool", "nowhere").refused("nowhere: no such folder")
    call(explore, *good, "--pool", "data").refused("data: all 42 images are in the lists")
    assert call(explore, *good, "--pool", "data", "--backbones", "resnet18").status == 2
    Path("file").touch()
    call(explore, *good, "--out", "file/below").refused("file/below", "--out")
    (data / "train.txt").unlink()
    call(explore, *good).refused("train.txt: no such file")


def test_a_network_whose_last_layers_are_new_is_refused(settings_for):
    """Guards against an estimate from features that were drawn at random."""
    settings = settings_for("data", network="vgg19_bottleneck", pretrained=True)
    with pytest.raises(UserError, match=r"dense layers begin at random.*; use network=vgg19, or"):
        require_pretrained(settings)
    require_pretrained(settings.model_copy(update={"network": "vgg19"}))
