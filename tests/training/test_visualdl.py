"""VisualDL log: the values of history.csv and of the validation, at the right steps."""

from types import SimpleNamespace

import numpy as np
import pytest
from visualdl import LogReader

from training.visualdl import VisualDLWriter


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


def test_curves_count_what_reaches_each_threshold():
    """Guards against VisualDL's own ROC curve, which divides the true positives by the negatives."""
    generator = np.random.default_rng(0)
    positive = generator.random(40) < 0.2
    scores = np.append(generator.random(38), [0.0, 1.0])
    records = []
    writer = VisualDLWriter.__new__(VisualDLWriter)
    writer.session = SimpleNamespace(epoch=3)
    writer.writer = SimpleNamespace(_get_file_writer=lambda: SimpleNamespace(add_record=records.append))
    writer._write_curves("dog", positive, scores)
    precision_recall, roc = records[0].values[0].pr_curve, records[1].values[0].roc_curve
    for place, threshold in enumerate(np.linspace(0, 1, len(roc.tpr))):
        reached = scores >= threshold
        tp, fp = (reached & positive).sum(), (reached & ~positive).sum()
        assert (roc.TP[place], roc.FP[place]) == (tp, fp)
        assert (roc.TN[place], roc.FN[place]) == ((~positive).sum() - fp, positive.sum() - tp)
        assert roc.tpr[place] == precision_recall.recall[place] == pytest.approx(tp / positive.sum())
        assert roc.fpr[place] == pytest.approx(fp / (~positive).sum())
        assert precision_recall.precision[place] == pytest.approx(tp / max(1, tp + fp))
    assert roc.tpr[0] == roc.fpr[0] == 1 and records[1].values[0].id == 3
