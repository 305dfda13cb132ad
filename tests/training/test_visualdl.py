"""VisualDL log: the values of history.csv and of the validation, at the right steps."""

import errno
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from visualdl import LogReader

import train
from training import callbacks, visualdl_log
from training.visualdl import VisualDLWriter
from training.visualdl_log import VisualDLLog


@pytest.fixture
def log(trained) -> LogReader:
    (file,) = (trained.path / "vdl").glob("*.log")
    return LogReader(file_path=str(file))


def test_the_log_holds_what_the_history_holds(trained, log):
    """Guards against VisualDL curves of other values or steps than the run's own, and recalls that are left out."""
    history = trained.history()
    for metric in ("loss", "accuracy"):
        points = log.get_data("scalar", f"valid/{metric}")
        assert [point.id for point in points] == history["epoch"]
        assert [point.value for point in points] == pytest.approx(history[f"valid_{metric}"], rel=1e-4)
    # The running metrics of an epoch's last step are those of the epoch.
    last = log.get_data("scalar", "train/loss")[-1]
    assert last.value == pytest.approx(history["train_loss"][-1], rel=1e-4)
    assert last.id == trained.state["epoch"] * trained.state["steps_per_epoch"]
    recalls = [log.get_data("scalar", f"recall/{name}")[-1].value for name in trained.class_names]
    assert np.mean(recalls) == pytest.approx(history["valid_accuracy"][-1], rel=1e-4)
    tags = {tag for tags in log.get_tags().values() for tag in tags}
    assert {"train/learning_rate", "train/images_per_second", "train/image 1"} <= tags


def test_every_epoch_has_the_curves_of_each_class(trained, log):
    """Guards against curves that a release of numpy or VisualDL breaks in silence, and numpy left patched."""
    for name in trained.class_names:
        for kind, tag in (("pr_curve", f"precision and recall/{name}"), ("roc_curve", f"ROC/{name}")):
            assert [point.id for point in log.get_data(kind, tag)] == trained.history()["epoch"]
    assert not hasattr(np, "float")


def test_curves_count_what_reaches_each_threshold(tmp_path):
    """Guards against VisualDL's own ROC curve, which divides the true positives by the negatives."""
    generator = np.random.default_rng(0)
    positive = generator.random(40) < 0.2
    scores = np.append(generator.random(38), [0.0, 1.0])
    writer = VisualDLWriter.__new__(VisualDLWriter)
    writer.session, writer.log = SimpleNamespace(epoch=3), VisualDLLog(tmp_path)
    writer._write_curves("dog", positive, scores)
    writer.log.close()
    (file,) = tmp_path.glob("*.log")
    log = LogReader(file_path=str(file))
    (first,) = log.get_data("pr_curve", "precision and recall/dog")
    (second,) = log.get_data("roc_curve", "ROC/dog")
    precision_recall, roc = first.pr_curve, second.roc_curve
    for place, threshold in enumerate(np.linspace(0, 1, len(roc.tpr))):
        reached = scores >= threshold
        tp, fp = (reached & positive).sum(), (reached & ~positive).sum()
        assert (roc.TP[place], roc.FP[place]) == (tp, fp)
        assert (roc.TN[place], roc.FN[place]) == ((~positive).sum() - fp, positive.sum() - tp)
        assert roc.tpr[place] == precision_recall.recall[place] == pytest.approx(tp / positive.sum())
        assert roc.fpr[place] == pytest.approx(fp / (~positive).sum())
        assert precision_recall.precision[place] == pytest.approx(tp / max(1, tp + fp))
    assert roc.tpr[0] == roc.fpr[0] == 1 and second.id == 3


class FullDisk:
    """A file on a disk that is full from the third record on."""

    def __init__(self, name: str):
        self.name, self.records = name, 0

    def write(self, data: bytes) -> None:
        self.records += 1
        if self.records > 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    def flush(self) -> None:
        pass

    def close(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_ends_the_log_and_nothing_else(drawn, tmp_path, settings_for, monkeypatch, capfd):
    """Guards against a training that ends, or waits for ever, because its log cannot be written."""
    monkeypatch.setattr(visualdl_log, "open", lambda name, mode: FullDisk(str(name)), raising=False)
    assert train.train(settings_for(drawn, output_dir=str(tmp_path))).state["finished"]
    said = capfd.readouterr().err
    assert "VisualDL: no log from here on" in said and "No space left" in said and said.count("VisualDL") <= 2


def test_without_a_home_there_is_no_log(drawn, tmp_path, settings_for, monkeypatch, capfd):
    """Guards against a container whose home directory is read-only, in which VisualDL cannot even be imported."""
    monkeypatch.setattr(visualdl_log, "base_component", None)
    monkeypatch.setattr(visualdl_log, "FAULT", "/root/.visualdl: Permission denied")
    run = train.train(settings_for(drawn, output_dir=str(tmp_path)))
    assert run.state["finished"] and not (run.path / "vdl").exists()
    assert capfd.readouterr().err.count("Permission denied") == 1


def test_the_log_reads_neither_lists_nor_images(data, settings_for, monkeypatch):
    """Guards against a training that ends because a list was edited, or the images went, while it ran from memory."""
    original = callbacks.StepTracker.on_train_batch_end

    def sabotage(tracker, step, logs=None):
        original(tracker, step, logs)
        for name in ("labels.txt", "valid.txt", "train.txt"):
            (data / name).write_text("")
        shutil.rmtree(data / "valid", ignore_errors=True)

    monkeypatch.setattr(callbacks.StepTracker, "on_train_batch_end", sabotage)
    assert train.train(settings_for("data", cache="ram")).state["finished"]


def test_the_surest_mistakes_are_those_of_the_validation(trained, log):
    """Guards against images of another place of the list, or of right predictions, under the name of mistakes."""
    tags = {tag for tags in log.get_tags().values() for tag in tags}
    shown = sorted(tag for tag in tags if tag.startswith("valid/surest mistake"))
    wrong = round((1 - trained.history()["valid_accuracy"][-1]) * 12)
    steps = [point.id for tag in shown[:1] for point in log.get_data("image", tag)]
    assert len(shown) >= min(6, wrong) and set(steps) <= {1, 2}
