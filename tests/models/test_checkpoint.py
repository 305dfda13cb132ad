"""The run folder: it describes itself, is replaced whole, and is never overwritten by accident."""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import paddle
import pytest

from models import factory
from models.checkpoint import BEST, LAST, Run
from models.classifier import Classifier
from system.errors import UserError
from system.settings import Settings

CLASS_NAMES = ["猫", "a dog", "pig"]


@pytest.fixture
def settings(settings_for, tmp_path) -> Settings:
    return settings_for("data", output_dir=str(tmp_path / "out put"), run_name="一 run")


@pytest.fixture
def network(settings) -> Classifier:
    return factory.build(settings, 3)[0]


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_describes_itself(settings, network):
    """Guards against later commands that need today's config.yaml to know what was trained."""
    run = Run.create(settings, CLASS_NAMES)
    run.save({BEST: network.network.state_dict()})
    again = Run(run.path)
    assert (again.settings, again.class_names, again.name) == (settings, CLASS_NAMES, "一 run")
    restored = again.load_network()
    assert not restored.training
    for key, weight in network.network.state_dict().items():
        assert (restored.network.state_dict()[key].numpy() == weight.numpy()).all()
    pixels = paddle.to_tensor(np.random.default_rng(0).integers(0, 256, (2, 3, 24, 24), np.uint8))
    network.eval()
    assert (network(pixels).numpy() == restored(pixels).numpy()).all()


@pytest.mark.effect("overwrite")
def test_a_run_with_weights_is_overwritten_only_on_request(settings, network):
    """Guards against a night of training lost to the same command typed again."""
    run = Run.create(settings, CLASS_NAMES)
    run.save({BEST: network.network.state_dict()})
    before = listing(run.path)
    with pytest.raises(UserError, match="overwrite=true"):
        Run.create(settings, CLASS_NAMES[:2])
    assert listing(run.path) == before
    Run.create(settings.model_copy(update={"overwrite": True}), CLASS_NAMES[:2])
    assert run.class_names == CLASS_NAMES[:2] and not list(run.path.glob("*.pdparams"))


@pytest.mark.parametrize("files", [["mine.txt"], ["config.yaml", "train.py"]])
def test_overwrite_never_clears_a_folder_that_is_no_run(settings, files):
    """Guards against overwrite=true that costs somebody photos, or a project because a config.yaml lies in it."""
    settings.run.mkdir(parents=True)
    for name in files:
        (settings.run / name).write_text("keep")
    with pytest.raises(UserError, match="is no run, so it is not overwritten"):
        Run.create(settings.model_copy(update={"overwrite": True}), CLASS_NAMES)
    assert listing(settings.run) == dict.fromkeys(files, b"keep")


def test_weights_are_replaced_whole_and_leave_nothing_behind(settings, network):
    """Guards against damaged weights, and against temporary files that pile up."""
    run = Run.create(settings, CLASS_NAMES)
    for _ in range(2):
        run.save({LAST: network.network.state_dict()})
    assert sorted(path.name for path in run.path.iterdir()) == ["config.yaml", "labels.txt", "last.pdparams"]
    assert run.weights_kind() == "last"
    run.save({BEST: network.network.state_dict()})
    assert run.weights_kind() == "best"


def test_weights_of_another_network_are_refused(settings, network):
    """Guards against a run folder whose weights were replaced by those of another network."""
    run = Run.create(settings, [*CLASS_NAMES, "one more"])
    run.save({BEST: network.network.state_dict()})
    with pytest.raises(UserError, match=r"best\.pdparams: .* is \[.*weights of another network"):
        run.load_network()
    (run.path / "best.pdparams").write_bytes((run.path / "best.pdparams").read_bytes()[:2000])
    with pytest.raises(UserError, match=r"best\.pdparams: "):
        run.load_network()


def test_a_damaged_state_file_is_named(settings):
    """Guards against a JSONDecodeError after the disk was full."""
    run = Run.create(settings, CLASS_NAMES)
    assert run.state == {}
    (run.path / "state.json").write_text('{"epoch": 1')
    with pytest.raises(UserError, match=r"state\.json"):
        run.state  # noqa: B018


def _stepping(stop: int):
    """Ends this process at the operation on files that has this number."""
    left = [stop]

    def counting(function):
        def call(*names, **options):
            left[0] -= 1
            if left[0] < 0:
                os._exit(9)
            return function(*names, **options)

        return call

    for owner, name in ((os, "replace"), (os, "link"), (os, "fsync"), (Path, "unlink"), (Path, "mkdir")):
        setattr(owner, name, counting(getattr(owner, name)))
    shutil.rmtree = counting(shutil.rmtree)


def _killed(action, stop: int) -> int:
    child = os.fork()
    if child == 0:
        _stepping(stop)
        action()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_start_that_is_killed_at_any_step_leaves_a_run_or_none(settings, network, tmp_path):
    """Guards against a folder that is neither the old run nor a new one, and that nothing can be trained in."""
    overwriting = settings.model_copy(update={"overwrite": True, "epochs": 77})
    ends = []
    for stop in range(80):
        shutil.rmtree(settings.run, ignore_errors=True)
        run = Run.create(settings, CLASS_NAMES)
        run.save({BEST: network.network.state_dict()}, state={"step": 3})
        (run.path / "vdl").mkdir()
        before = listing(run.path)
        status = _killed(lambda: Run.create(overwriting, CLASS_NAMES[:2]), stop)
        found = Run(settings.run)
        if found.state:
            assert {name: data for name, data in listing(run.path).items() if not name.endswith(".new")} == before
            ends.append("old")
        else:
            assert (found.settings.epochs, found.class_names) == (77, CLASS_NAMES[:2])
            assert not list(run.path.glob("*.pdparams"))
            ends.append("new")
        Run.create(overwriting, CLASS_NAMES[:2])
        assert sorted(listing(run.path)) == ["config.yaml", "labels.txt"]
        if status == 0:
            break
    assert status == 0 and set(ends) == {"old", "new"} and ends == sorted(ends, reverse=True)


def test_a_first_start_and_a_resume_that_are_killed_can_be_repeated(settings, network):
    """Guards against a run that `resume=true` refuses because a file of its start is missing."""
    for stop in range(40):
        shutil.rmtree(settings.run, ignore_errors=True)
        status = _killed(lambda: Run.create(settings, CLASS_NAMES), stop)
        run = Run.create(settings, CLASS_NAMES)
        assert sorted(listing(run.path)) == ["config.yaml", "labels.txt"]
        if status == 0:
            break
    assert status == 0
    run.save({LAST: network.network.state_dict()}, {}, None, {"step": 3})
    longer = settings.model_copy(update={"epochs": 99})
    for stop in range(20):
        status = _killed(lambda: Run.reopen(longer, CLASS_NAMES), stop)
        assert Run(settings.run).settings.epochs in (settings.epochs, 99) and Run(settings.run).state == {"step": 3}
        if status == 0:
            break
    assert status == 0 and Run(settings.run).settings.epochs == 99


def test_history_is_read_back_as_columns(settings):
    """Guards against a history whose columns shift from epoch to epoch."""
    run = Run.create(settings, CLASS_NAMES)
    for epoch in (1, 2, 3):
        run.save(row={"epoch": epoch, "train_loss": epoch / 8})
    assert run.history() == {"epoch": [1, 2, 3], "train_loss": [0.125, 0.25, 0.375]}


def test_the_state_is_plain_json(settings):
    """Guards against a state that only Python's pickle reads."""
    run = Run.create(settings, CLASS_NAMES)
    run.save(state={"epoch": 3, "finished": False})
    assert json.loads((run.path / "state.json").read_text()) == run.state == {"epoch": 3, "finished": False}


def test_a_full_disk_leaves_the_run_as_it_was(settings, monkeypatch):
    """Guards against half a state after an hour of training, and against advice about another folder."""
    run = Run.create(settings, CLASS_NAMES)
    run.save(state={"epoch": 1}, row={"epoch": 1})
    before = listing(run.path)

    def fail(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\); free some space, or "):
        run.save(state={"epoch": 2}, row={"epoch": 2})
    assert listing(run.path) == before
