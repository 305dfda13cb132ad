"""What has to stay the same: the label map of a model, and most settings of a run that is resumed."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from models.compatibility import check_labels, check_resumable
from system.errors import UserError


@dataclass
class Model:
    class_names: list[str]
    path: Path = Path("run")


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (["猫", "pig", "a dog"], "labels.txt: class 1 is pig, but run was trained with a dog; "),
        (["猫", "a dog"], "labels.txt: class 2 is nothing, but run was trained with pig; "),
        (["猫", "a dog", "pig", "ox"], "labels.txt: class 3 is ox, but run was trained with nothing; "),
    ],
)
def test_another_label_map_is_refused_with_the_first_difference(found, message):
    """Guards against class ids that have changed since the training: every prediction would have a wrong name."""
    model = Model(["猫", "a dog", "pig"])
    check_labels(model, list(model.class_names), "labels.txt")
    with pytest.raises(UserError, match=f"^{message}"):
        check_labels(model, found, "labels.txt")


def test_only_settings_that_leave_the_training_as_it_is_may_change_on_resume(settings_for):
    """Guards against a resumed run that is neither the old training nor a new one."""
    old = settings_for("data")
    harmless = {"epochs": 9, "patience": 1, "threads": 2, "num_workers": 2, "save_every_minutes": 1, "resume": True}
    check_resumable(old, settings_for("data", **harmless), "run")
    changed = settings_for("data", batch_size=7, learning_rate=0.5, augment={"rotation": 1}, **harmless)
    with pytest.raises(UserError) as error:
        check_resumable(old, changed, "run")
    message = str(error.value)
    assert message.startswith("run: batch_size was 6, is 7; learning_rate was ")
    assert "augment.rotation was " in message and "epochs" not in message
