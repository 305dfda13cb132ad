"""What the tests of review.py share: a data set with something for every queue, and a server over a copy of it."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from review_process import CAT, DOG, OX, SUSPECTS, ReviewProcess, write
from test_annotate import folder, image, settings

import annotate
from annotation import corrections

SIMILAR = "cosine\tpath\tsplit\tlabel\tsimilar_to\tsimilar_to_split\tsimilar_to_label\n"
REPORTS = "time\tmodel\tfile\tdigest\tclass\tnote\n"


def _write_tables(place: Path) -> None:
    photos = place / "photos"
    rows = [
        f"photos/train/{CAT}/0.jpg\ttrain\t{CAT}\t{DOG}\t0.0100\t0.9800\n",
        f"photos/train/{DOG}/1.jpg\ttrain\t{DOG}\t{OX}\t0.1000\t0.7000\n",
        f"photos/train/{OX}/2.jpg\ttrain\t{OX}\t{CAT}\t0.2000\t0.6000\n",
        f"photos/train/{CAT}/gone.jpg\ttrain\t{CAT}\t{DOG}\t0.1\t0.9\n",
        f"photos/train/{CAT}/1.jpg\ttrain\t{OX}\t{DOG}\t0.1\t0.9\n",
    ]
    explored = place / "output" / "explore-photos"
    write(explored / "suspects.tsv", SUSPECTS + "".join(rows))
    pair = f"train/{CAT}/2.jpg\ttrain\t{CAT}", f"valid/{DOG}/0.jpg\tvalid\t{DOG}"
    write(explored / "similar.tsv", SIMILAR + "0.8123\t" + "\t".join(f"photos/{one}" for one in pair) + "\n")
    write(explored / "unlike.tsv", f"closeness\tpath\tsplit\tlabel\n-0.0500\tphotos/test/{OX}/0.jpg\ttest\t{OX}\n")
    # An evaluated run that suspects one of them less, and another image most.
    write(
        place / "output" / "run" / "suspects.tsv",
        f"{SUSPECTS}photos/train/{CAT}/0.jpg\ttrain\t{CAT}\t{OX}\t0.3\t0.6\n"
        f"photos/test/{DOG}/1.jpg\ttest\t{DOG}\t{CAT}\t0.0010\t0.9980\n",
    )
    write(place / "output" / "other" / "suspects.tsv", f"{SUSPECTS}else/a.jpg\ttest\ta\tb\t0.1\t0.8\n")
    digest = {
        name: hashlib.sha256((photos / name).read_bytes()).hexdigest()
        for name in (f"valid/{OX}/1.jpg", f"valid/{OX}/0.jpg")
    }
    one, other = digest.values()
    write(
        place / "reports.tsv",
        f"{REPORTS}2026-11-27\tm\tx.jpg\t{one}\t{CAT}\t'=no ox\n2026-11-27\tm\ty.jpg\t{other}\t'{OX}\tsure\n"
        f"2026-11-27\tm\tz.jpg\t{64 * '0'}\t{CAT}\t\n",
    )


@pytest.fixture(scope="session")
def original(tmp_path_factory) -> Path:
    """A folder with the data set `photos`, checked by annotate.py, and the tables of other commands; read-only."""
    place = tmp_path_factory.mktemp("review")
    photos = folder(
        place / "photos", {f"{split}/{name}": 3 for split in ("train", "valid", "test") for name in (CAT, DOG, OX)}
    )
    shutil.copy(photos / f"train/{DOG}/0.jpg", photos / f"valid/{DOG}/leak.jpg")
    shutil.copy(photos / f"train/{OX}/0.jpg", photos / f"train/{CAT}/ox too.jpg")
    image(900, (96, 80)).save(photos / f"train/{CAT}/large.jpg")
    image(900, (96, 80)).resize((84, 70)).save(photos / f"train/{CAT}/small.jpg")
    image(901).convert("L").save(photos / f"train/{DOG}/grey %41.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        annotate.annotate(settings(Path("photos")))
    _write_tables(place)
    return place


@pytest.fixture
def place(original, tmp_path) -> Path:
    """A copy of it for one test."""
    shutil.copytree(original, tmp_path / "place")
    return tmp_path / "place"


@pytest.fixture
def review(place) -> Iterator[Callable[..., ReviewProcess]]:
    """Returns a function that starts review.py on the copy; all are ended with the test."""
    started: list[ReviewProcess] = []

    def start(*arguments: str) -> ReviewProcess:
        started.append(ReviewProcess(place, "data_dir=photos", *arguments))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


@pytest.fixture
def decided(place) -> Callable[[], dict[str, tuple[str, str]]]:
    """Returns a function: path -> action and class, as annotate.py will read them."""

    def read() -> dict[str, tuple[str, str]]:
        rows = corrections.read(place / "photos", Path("photos"), [CAT, DOG, OX])
        return {path: (row.action, row.class_name) for path, row in corrections.current(rows)[0].items()}

    return read
