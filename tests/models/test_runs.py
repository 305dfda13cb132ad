"""Finding runs: the one named or the one trained last, with its own settings."""

import os

import pytest

from models import factory, runs
from models.checkpoint import BEST, Run
from system.errors import UserError
from system.settings import Settings

CLASS_NAMES = ["猫", "a dog", "pig"]


@pytest.fixture
def settings(settings_for, tmp_path) -> Settings:
    return settings_for("data", output_dir=str(tmp_path / "out put"), run_name="一 run")


@pytest.fixture
def weights(settings) -> dict:
    classifier, _ = factory.build(settings, 3)
    return classifier.network.state_dict()


def test_the_run_trained_last_is_found(settings, weights, capsys):
    """Guards against a command that takes the run whose name sorts last, or one that has no weights yet."""
    for age, name in ((20, "b"), (10, "a"), (30, "c")):
        run = Run.create(settings.model_copy(update={"run_name": name}), CLASS_NAMES)
        run.save({BEST: weights})
        os.utime(run.path / "best.pdparams", (10**9 - age, 10**9 - age))
    Run.create(settings.model_copy(update={"run_name": "z"}), CLASS_NAMES)
    run, _ = runs.open_run(None, settings.output_dir, [])
    assert run.name == "a"
    assert capsys.readouterr().err == f"run: {run.path} (the one trained last)\n"
    with pytest.raises(UserError, match=r"none: no such folder; name a run, one of .*c.*b.*a"):
        runs.find_run("none", settings.output_dir)


def test_what_a_run_lacks_is_named(settings, weights, tmp_path):
    """Guards against a FileNotFoundError deep inside paddle for a run without weights, or a folder that is no run."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: this is no run, config\.yaml is missing"):
        runs.find_run(tmp_path / "empty", "nowhere")
    with pytest.raises(UserError, match=r"none: no such folder; name a run that train\.py made"):
        runs.find_run(tmp_path / "none", "nowhere")
    with pytest.raises(UserError, match=r"there is no run yet; train one with `python train\.py`"):
        runs.find_run(None, tmp_path / "empty")
    run = Run.create(settings, CLASS_NAMES)
    with pytest.raises(UserError, match=r"no weights yet; train it with `python train\.py`"):
        run.load_network()
    run.save({BEST: weights})
    (run.path / "labels.txt").unlink()
    with pytest.raises(UserError, match=r"labels\.txt is missing"):
        run.load_network()


def test_a_command_changes_nothing_that_the_network_is_or_sees(settings, tmp_path):
    """Guards against a run that is evaluated on images of another size than it was trained on."""
    run = Run.create(settings, CLASS_NAMES)
    changed = runs.run_settings(run, ["batch_size=3", f"export_dir={tmp_path}"])
    assert changed == settings.model_copy(update={"batch_size": 3, "export_dir": str(tmp_path)})
    for override in ("image_shape=[3,32,32]", "network=resnet18", "augment.rotation=3"):
        with pytest.raises(UserError, match=f"^{override.partition('=')[0]}: this belongs to the run"):
            runs.run_settings(run, ["batch_size=3", override])
