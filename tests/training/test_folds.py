"""Cross-validation of trainings: every image is predicted once, by a run that has seen neither it nor its group."""

import json
from pathlib import Path

import numpy as np
import pytest

import config
import evaluate
import train
from annotation.lists import read_list
from training import folds


def rows_of(folder: Path, split: str) -> set[str]:
    return {sample.path for sample in read_list(folder / f"{split}.txt", 3)}


def test_each_image_is_predicted_once_and_no_group_is_divided(data, settings_for):
    """Guards against an image, or its copy, in the training of the run that predicts it."""
    paths = [line.partition("\t")[0] for name in ("train", "valid") for line in (data / f"{name}.txt").open()]
    groups = {path: number // 2 for number, path in enumerate(sorted(paths)[:8])}
    (data / "groups.tsv").write_text("".join(f"{path}\t{group}\n" for path, group in groups.items()))
    chosen = folds.prepare(settings_for("data", folds=3))
    assert [str(one.run) for one in chosen] == [f"output/short/fold{number}" for number in (1, 2, 3)]
    tested = []
    for one in chosen:
        train_rows, valid, test = (rows_of(one.lists, split) for split in ("train", "valid", "test"))
        assert not (train_rows & valid or train_rows & test or valid & test)
        assert train_rows | valid | test == set(paths)
        for group in range(4):
            members = {path for path, number in groups.items() if number == group}
            assert any(members <= part for part in (train_rows, valid, test))
        tested += sorted(test)
        assert (one.lists / "labels.txt").read_text() == (data / "labels.txt").read_text()
    assert sorted(tested) == sorted(paths)
    assert rows_of(chosen[0].lists, "valid") == rows_of(chosen[1].lists, "test")


@pytest.mark.effect("folds")
def test_the_report_is_of_all_folds_together(call, data, arguments_for):
    """Guards against scores of one fold, or of images that a run has trained on; and against a fold trained twice."""
    common = arguments_for("data", folds=3, epochs=1)
    ended = call(train, *common)
    assert ended.status == 0 and "3 folds: valid accuracy" in ended.out and "evaluate.py output/short" in ended.out
    weights = {file: file.read_bytes() for file in Path("output/short").glob("fold*/best.pdparams")}
    assert len(weights) == 3
    report = call(evaluate, "output/short")
    assert report.status == 0, report
    written = json.loads(Path("output/short/metrics.json").read_text("utf-8"))
    _, *rows = [line.split("\t") for line in Path("output/short/predictions.tsv").read_text("utf-8").splitlines()]
    listed = {line.partition("\t")[0] for name in ("train", "valid") for line in (data / f"{name}.txt").open()}
    assert len(rows) == written["num_pictures"] == 30 and {row[0] for row in rows} == listed
    assert written["accuracy"] == pytest.approx(np.mean([row[1] == row[2] for row in rows]))
    assert "3 folds: every image was predicted by the run that has not seen it" in written["remarks"][0]
    assert Path("output/short/report.html").is_file()
    again = call(train, *common, "resume=true")
    assert again.status == 0 and "all 1 epochs are done" in again.out
    assert {file: file.read_bytes() for file in weights} == weights


def test_a_cross_validation_that_broke_off_goes_on(data, settings_for, monkeypatch):
    """Guards against folds that are lost, or begun anew, after an interruption."""
    original, trained = train.train, []

    def second_fails(settings):
        trained.append(settings.run.name)
        if trained == ["fold1", "fold2"]:
            raise KeyboardInterrupt
        return original(settings)

    monkeypatch.setattr(train, "train", second_fails)
    with pytest.raises(KeyboardInterrupt):
        train.cross_validate(settings_for("data", folds=3, epochs=1))
    before = Path("output/short/fold1/best.pdparams").read_bytes()
    runs = train.cross_validate(settings_for("data", folds=3, epochs=1, resume=True))
    assert [run.state["finished"] for run in runs] == [True] * 3
    assert Path("output/short/fold1/best.pdparams").read_bytes() == before


def test_a_fold_is_trained_like_any_run(data, settings_for):
    """Guards against a run of a fold that differs from a training on its lists."""
    (first, *_) = train.cross_validate(settings_for("data", folds=3, epochs=1))
    alone = train.train(first.settings.model_copy(update={"run_name": "alone", "output_dir": "elsewhere"}))
    assert alone.history() == first.history()


def test_bad_input_is_one_line(call, data, arguments_for):
    """Guards against a traceback of a library, and a cross-validation mixed with another one."""
    for number in (1, 2):
        call(train, *arguments_for("data", folds=number)).refused(f"folds={number} must be 0 or at least 3")
    call(train, *arguments_for("data", folds=12)).refused("folds=12: the smallest class has 10 images")
    folds.prepare(config.load(None, arguments_for("data", folds=3)))
    call(train, *arguments_for("data", folds=3)).refused("a cross-validation of this name exists", "resume=true")
    call(train, *arguments_for("data", folds=4), "resume=true").refused("begun with other lists, folds or another seed")
    call(evaluate, "output/short").refused("fold 1 of 3 is not trained yet")


def test_a_run_and_a_cross_validation_never_share_a_folder(call, data, arguments_for):
    """Guards against a trained run that evaluate.py no longer finds, for folds=3 was given after it."""
    call(train, *arguments_for("data", epochs=1))
    before = sorted(Path("output/short").iterdir())
    for extra in ("resume=true", "overwrite=true"):
        call(train, *arguments_for("data", folds=3), extra).refused("output/short: a run of this name exists")
    assert sorted(Path("output/short").iterdir()) == before
    folds.prepare(config.load(None, arguments_for("data", folds=3, run_name="divided")))
    for extra in ("resume=true", "overwrite=true"):
        call(train, *arguments_for("data", run_name="divided"), extra).refused("divided: this folder is no run")
