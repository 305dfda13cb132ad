"""The run folder: it describes itself, is never overwritten by accident, and says what it lacks."""

import json
import os
from pathlib import Path

import numpy as np
import paddle
import pytest

from models import checkpoint, networks
from models.checkpoint import Run
from system.errors import UserError
from system.settings import Settings

CLASS_NAMES = ["猫", "a dog", "pig"]


@pytest.fixture
def settings(settings_for, tmp_path) -> Settings:
    return settings_for("data", output_dir=str(tmp_path / "out put"), run_name="一 run")


@pytest.fixture
def network(settings) -> networks.Classifier:
    return networks.build(settings, 3)[0]


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_describes_itself(settings, network):
    """Guards against later commands that need today's config.yaml to know what was trained."""
    run = Run.create(settings, CLASS_NAMES)
    run.save_weights(checkpoint.BEST, network)
    again = checkpoint.find(run.path, "nowhere")
    assert (again.settings, again.class_names, again.name) == (settings, CLASS_NAMES, "一 run")
    restored = again.load_network()
    assert not restored.training
    for key, weight in network.network.state_dict().items():
        assert (restored.network.state_dict()[key].numpy() == weight.numpy()).all()
    pixels = paddle.to_tensor(np.random.default_rng(0).integers(0, 256, (2, 3, 24, 24), np.uint8))
    network.eval()
    assert (network(pixels).numpy() == restored(pixels).numpy()).all()


def test_a_run_with_weights_is_not_overwritten_unless_told(settings, network):
    """Guards against a night of training lost to the same command typed again."""
    run = Run.create(settings, CLASS_NAMES)
    run.save_weights(checkpoint.BEST, network)
    before = listing(run.path)
    with pytest.raises(UserError, match="overwrite=true"):
        Run.create(settings, CLASS_NAMES[:2])
    assert listing(run.path) == before
    Run.create(settings.model_copy(update={"overwrite": True}), CLASS_NAMES[:2])
    assert run.class_names == CLASS_NAMES[:2] and not list(run.path.glob("*.pdparams"))


def test_a_folder_that_is_no_run_is_never_cleared(settings):
    """Guards against output_dir=. run_name=photos overwrite=true, which would cost somebody the photos."""
    settings.run.mkdir(parents=True)
    (settings.run / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="no run"):
        Run.create(settings.model_copy(update={"overwrite": True}), CLASS_NAMES)
    assert listing(settings.run) == {"mine.txt": b"keep"}


def test_weights_are_replaced_whole_and_leave_nothing_behind(settings, network):
    """Guards against torn weights, and against temporary files that pile up."""
    run = Run.create(settings, CLASS_NAMES)
    for _ in range(2):
        run.save_weights(checkpoint.LAST, network)
    assert sorted(path.name for path in run.path.iterdir()) == ["config.yaml", "labels.txt", "last.pdparams"]
    assert run.weights_kind() == "last"
    run.save_weights(checkpoint.BEST, network)
    assert run.weights_kind() == "best"


def test_what_a_run_lacks_is_named(settings, network, tmp_path):
    """Guards against a FileNotFoundError deep inside paddle for a run without weights, or a folder that is no run."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: this is no run, config\.yaml is missing"):
        checkpoint.find(tmp_path / "empty", "nowhere")
    with pytest.raises(UserError, match="none: no such folder"):
        checkpoint.find(tmp_path / "none", "nowhere")
    with pytest.raises(UserError, match=r"there is no run yet; train one with `python train\.py`"):
        checkpoint.find(None, tmp_path / "empty")
    run = Run.create(settings, CLASS_NAMES)
    with pytest.raises(UserError, match=r"no weights yet; train it with `python train\.py`"):
        run.load_network()
    (run.path / "labels.txt").unlink()
    run.save_weights(checkpoint.BEST, network)
    with pytest.raises(UserError, match=r"labels\.txt is missing"):
        run.load_network()


def test_weights_of_another_network_are_refused(settings, network):
    """Guards against a run folder whose weights were replaced by others and answers at random."""
    run = Run.create(settings, [*CLASS_NAMES, "one more"])
    run.save_weights(checkpoint.BEST, network)
    with pytest.raises(UserError, match=r"best\.pdparams: .* is \[.*weights of another network"):
        run.load_network()
    (run.path / "best.pdparams").write_bytes((run.path / "best.pdparams").read_bytes()[:2000])
    with pytest.raises(UserError, match=r"best\.pdparams: "):
        run.load_network()


def test_a_torn_state_is_named(settings):
    """Guards against a JSONDecodeError after the disk was full."""
    run = Run.create(settings, CLASS_NAMES)
    assert run.state == {}
    (run.path / "state.json").write_text('{"epoch": 1')
    with pytest.raises(UserError, match=r"state\.json"):
        run.state  # noqa: B018


def test_the_run_trained_last_is_found(settings, network):
    """Guards against a command that takes the run whose name sorts last, or one that has no weights yet."""
    runs = []
    for age, name in ((20, "b"), (10, "a"), (30, "c")):
        run = Run.create(settings.model_copy(update={"run_name": name}), CLASS_NAMES)
        run.save_weights(checkpoint.BEST, network)
        os.utime(run.path / "best.pdparams", (10**9 - age, 10**9 - age))
        runs.append(run)
    Run.create(settings.model_copy(update={"run_name": "z"}), CLASS_NAMES)
    assert checkpoint.find(None, settings.output_dir).name == "a"
    with pytest.raises(UserError, match=r"one of .*c.*b.*a"):
        checkpoint.find("none", settings.output_dir)


def test_history_is_read_back_as_columns(settings):
    """Guards against a history whose columns shift from epoch to epoch."""
    run = Run.create(settings, CLASS_NAMES)
    for epoch in (1, 2, 3):
        run.append_history({"epoch": epoch, "train_loss": epoch / 8})
    assert run.history() == {"epoch": [1, 2, 3], "train_loss": [0.125, 0.25, 0.375]}


def test_another_label_map_is_refused_with_the_first_difference(settings):
    """Guards against class ids that have changed since the training: every answer would have a wrong name."""
    run = Run.create(settings, CLASS_NAMES)
    checkpoint.check_labels(run, CLASS_NAMES, "labels.txt")
    for other, told in (
        (["猫", "pig", "a dog"], "class 1 is pig, but .* was trained with a dog"),
        (CLASS_NAMES[:2], "class 2 is nothing, but .* was trained with pig"),
        ([*CLASS_NAMES, "ox"], "class 3 is ox, but .* was trained with nothing"),
    ):
        with pytest.raises(UserError, match=told):
            checkpoint.check_labels(run, other, "labels.txt")


def test_the_state_is_plain_json(settings):
    """Guards against a state that only Python's pickle reads."""
    run = Run.create(settings, CLASS_NAMES)
    run.save_state(epoch=3, finished=False)
    assert json.loads((run.path / "state.json").read_text()) == run.state == {"epoch": 3, "finished": False}


def test_overwrite_never_clears_a_folder_that_is_no_run(tmp_path, settings_for):
    """Guards against overwrite=true emptying somebody's project because a config.yaml lies in it."""
    project = tmp_path / "project"
    project.mkdir()
    for name in ("config.yaml", "train.py"):
        (project / name).write_text("precious\n", encoding="utf-8")
    settings = settings_for("data", output_dir=str(tmp_path), run_name="project", overwrite=True)
    with pytest.raises(UserError, match="is no run, so it is not overwritten"):
        Run.create(settings, ["a", "b"])
    assert (project / "train.py").read_text(encoding="utf-8") == "precious\n"
    with pytest.raises(UserError, match="run_name"):
        settings_for("data", output_dir=str(tmp_path), run_name="..")
