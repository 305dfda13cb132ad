"""The zodiac course's notebook: every call of its cells, in their order and in one process, on drawn images."""

import functools
import os
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle.static import InputSpec

import annotate
import config
import evaluate
import predict
import train
from config import get
from dataset import ZodiacDataset
from system.errors import UserError

CLASSES = ["ratt", "ox", "dog"]
OURS = ["image_shape=[3, 40, 48]", "epochs=1", "batch_size=4", "threads=1", "scan_workers=1", "device=cpu"]


@pytest.fixture
def signs(draw_data, tmp_path, monkeypatch):
    """The course's folders and lists in an empty folder, and a config.yaml with small images."""
    draw_data(tmp_path / "signs", CLASSES, {"train": 4, "valid": 2, "test": 3}, (52, 44))
    (tmp_path / "signs" / "labels.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    config.save(config.load(None, OURS), tmp_path / "config.yaml")
    monkeypatch.setattr(config, "load", functools.partial(config.load, base=tmp_path / "config.yaml"))
    monkeypatch.chdir(tmp_path)
    annotate.annotate(config.load())
    return tmp_path


def fit(network: paddle.nn.Layer, **data) -> paddle.Model:
    """The cells that prepare and train."""
    model = paddle.Model(network)
    schedule = paddle.optimizer.lr.CosineAnnealingDecay(learning_rate=1e-3, T_max=10)
    optimizer = paddle.optimizer.Momentum(schedule, 0.9, parameters=model.parameters())
    model.prepare(optimizer, paddle.nn.CrossEntropyLoss(), paddle.metric.Accuracy())
    model.fit(
        data["train"],
        data["valid"],
        epochs=get("epochs"),
        batch_size=get("batch_size"),
        shuffle=True,
        verbose=1,
        callbacks=[paddle.callbacks.VisualDL("visual_log")],
    )
    return model


def test_the_notebook_runs_as_it_is(signs, call):
    """Guards against a cell of the course that fails, or that gets values of another form, order or range."""
    assert get("LABEL_MAP") == CLASSES and get("image_shape") == [3, 40, 48]
    assert (-1,) + tuple(get("image_shape")) == (-1, 3, 40, 48)  # noqa: RUF005 - the cell
    rows = [line.split("\t") for line in Path("signs/test.txt").read_text().splitlines()]
    assert all(int(index) == get("LABEL_MAP").index(Path(path).parent.name) for path, index in rows)

    train_dataset, valid_dataset, test_dataset = (ZodiacDataset(mode=mode) for mode in ("train", "valid", "test"))
    assert (len(train_dataset), len(valid_dataset), len(test_dataset)) == (12, 6, 9)
    image, label = test_dataset[0]
    assert (image.shape, image.dtype, label) == ((3, 40, 48), np.float32, test_dataset[0][1])
    assert 0.5 < max(image.max(), -image.min()) < 3
    assert [test_dataset[index][1] for index in range(9)] == [int(index) for _, index in rows]

    network = paddle.vision.models.mobilenet_v2(num_classes=get("num_classes"))
    assert paddle.Model(network).summary((-1, *get("image_shape")))["total_params"] > 2e6
    model = fit(network, train=train_dataset, valid=valid_dataset)
    model.save(get("model_save_dir"))
    assert sorted(os.listdir("output/course")) == ["model.pdopt", "model.pdparams"]
    assert set(os.listdir()) == {"config.yaml", "signs", "output", "visual_log"}

    network = paddle.vision.models.mobilenet_v2(num_classes=get("num_classes"))
    inputs = [InputSpec(shape=[-1] + get("image_shape"), dtype="float32", name="image")]  # noqa: RUF005 - the cell
    model_2 = paddle.Model(network, inputs=inputs)
    model_2.load(get("model_save_dir"))
    model_2.prepare()
    result = model_2.predict(test_dataset)
    scores = np.stack([result[0][index][0] for index in range(9)])
    assert scores.shape == (9, 3)
    for index in (2, 5, 8):
        real, predicted = (get("LABEL_MAP")[i] for i in (test_dataset[index][1], scores[index].argmax()))
        print(f"样本ID: {index}, 真实标签: {real}, 预测值: {predicted}")

    model_2.save("infer/zodiac", training=False)
    ended = call(predict, "signs/test.txt", "--model", "infer/zodiac", "top_k=1")
    assert ended.status == 0, ended.err
    (assumed,) = (line for line in ended.err.splitlines() if line.startswith("infer/zodiac: there is no inference.yml"))
    assert "images of 48x40" in assumed and "normalised by mean [0.485" in assumed and "signs/labels.txt" in assumed
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    expected = powers / powers.sum(axis=1, keepdims=True)
    found = predict.predict("signs/test.txt", "infer")
    assert [one.path for one in found] == [path for path, _ in rows]
    assert [one.label for one in found] == [Path(path).parent.name for path, _ in rows]
    rows_found = [[one.probabilities[name] for name in CLASSES] for one in found]
    assert np.abs(np.array(rows_found) - expected).max() < 1e-4

    assert call(train, "--import", get("model_save_dir"), "network=mobilenet_v2", "run_name=own").status == 0
    call(train, "--import", get("model_save_dir"), "run_name=other").refused("these are weights of another network")
    of_run = predict.predict("signs/test.txt", "output/own")
    assert [one.prediction for one in of_run] == [CLASSES[index] for index in expected.argmax(axis=1)]
    assert call(evaluate, "output/own").status == 0


def test_resnet50_takes_a_step_of_the_course(signs):
    """Guards against images that the course's own network cannot train on."""
    network = paddle.vision.models.resnet50(num_classes=get("num_classes"))
    before = network.fc.weight.numpy().copy()
    dataset = paddle.io.Subset(ZodiacDataset(mode="train"), [0, 1, 2, 3])
    fit(network, train=dataset, valid=paddle.io.Subset(ZodiacDataset(mode="valid"), [0, 1]))
    assert np.isfinite(network.fc.weight.numpy()).all() and (network.fc.weight.numpy() != before).any()
    assert set(os.listdir()) == {"config.yaml", "signs", "visual_log"}


def test_only_training_images_are_augmented_and_anew_each_time(signs):
    """Guards against a training that sees the same images in every epoch, and scores that depend on chance."""
    for mode in ("train", "valid", "test"):
        images = [ZodiacDataset(mode=mode)[0][0] for _ in range(2)]
        assert (images[0] != images[1]).any() == (mode == "train")
    dataset, seen = ZodiacDataset(mode="train"), []
    for seed in (3, 3, 4):
        np.random.seed(seed)
        seen.append(dataset[1][0])
    assert (seen[0] == seen[1]).all() and (seen[0] != seen[2]).any()
    with pytest.raises(UserError, match="mode='val' is no split; take one of train, valid, test"):
        ZodiacDataset(mode="val")
    (signs / "signs" / "valid" / "ox" / "00000001.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"00000001\.jpg"):
        ZodiacDataset(mode="valid")
