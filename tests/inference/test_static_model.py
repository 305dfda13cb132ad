"""Static models without inference.yml: what is assumed of them is said, and what cannot be is refused."""

import re
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.static import InputSpec

import predict
from dataset import ZodiacDataset
from inference.static_model import StaticModel, find_graph
from system.errors import UserError

IMAGE = "data/test/ox/00000001.jpg"


class Raw(nn.Layer):
    """A network of raw bytes that returns probabilities."""

    def __init__(self, network: nn.Layer):
        super().__init__()
        self.network = network

    def forward(self, image: paddle.Tensor) -> paddle.Tensor:
        return nn.functional.softmax(self.network(image.astype("float32") / 255))


def save(prefix: str, network: nn.Layer, dtype: str = "float32", size=(24, 24)) -> None:
    network.eval()
    paddle.jit.save(network, prefix, input_spec=[InputSpec([-1, 3, *size], dtype, "image")])


def small(num_classes: int = 3) -> nn.Layer:
    paddle.seed(3)
    return nn.Sequential(
        nn.Conv2D(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2D(1), nn.Flatten(), nn.Linear(4, num_classes)
    )


def test_bytes_and_probabilities_are_recognised(data, settings_for):
    """Guards against bytes that are normalised twice, and a softmax of probabilities."""
    network, settings = small(), settings_for("data")
    save("m/raw", Raw(network), "uint8", (-1, -1))
    model = StaticModel(*find_graph("m/raw"), settings, "cpu", 1)
    assert "uint8, 0 to 255" in model.assumed and model.assumed.endswith("its outputs are probabilities")
    images = np.stack([model.transform.read(IMAGE, 10**8)] * 2)
    assert np.abs(model.predict(images) - Raw(network)(paddle.to_tensor(images)).numpy()).max() < 1e-5


def test_float_inputs_are_normalised_as_the_course_does(data, settings_for):
    """Guards against raw bytes, or another mean or std, for a graph that knows normalised images only."""
    network, settings = small(), settings_for("data", mean=[0.2, 0.4, 0.6], std=[0.1, 0.2, 0.3])
    save("m/one", network)
    dataset = ZodiacDataset("test", settings)
    model = StaticModel(*find_graph("m/one"), settings, "cpu", 1)
    images = np.stack([model.transform.read(sample.file, 10**8) for sample in dataset.images.samples])
    logits = network(paddle.to_tensor(np.stack([dataset[index][0] for index in range(len(dataset))])))
    expected = nn.functional.softmax(logits).numpy()
    assert np.ptp(expected, axis=0).max() > 0.1, "nothing would be seen"
    assert np.abs(model.predict(images) - expected).max() < 1e-5


def test_a_prefix_a_file_and_a_folder_name_a_model(data):
    """Guards against a model that one spelling only finds, and an export without its description taken for one."""
    save("m/one", small())
    expected = (Path("m/one.json"), Path("m/one.pdiparams"))
    assert [find_graph(name) for name in ("m/one", "m/one.json", "m/one.pdiparams", "m")] == [expected] * 4
    assert find_graph("m/two") is None and find_graph("nowhere") is None
    save("m/two", small())
    with pytest.raises(UserError, match="m: holds several models; name one: m/one, m/two"):
        find_graph("m")
    Path("m/example.json").touch()
    assert find_graph("m") is None


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            ["image_shape=[3,32,32]"],
            r"takes \[\[-1, 3, 24, 24\]\], not \[N, 3, 32, 32\]; set image_shape=\[3, 24, 24\]",
        ),
        (["engine=int8"], "engine=int8: does not run this file; use engine=onednn or plain"),
        (["lists_dir=other"], r"returns \[1, 3\] for one image, other/labels.txt has 2 classes"),
        (["lists_dir=nowhere"], r"nowhere/labels.txt: no such file"),
    ],
)
def test_what_does_not_fit_is_refused(data, call, changes, message):
    """Guards against predictions under the names of other classes, or of images of another size."""
    Path("other").mkdir()
    Path("other/labels.txt").write_text("ox\ndog\n")
    save("m/one", small())
    settings = ["data_dir=data", "image_shape=[3,24,24]", "threads=1", *changes]
    ended = call(predict, IMAGE, "--model", "m/one", *{one.partition("=")[0]: one for one in settings}.values())
    ended.refused()
    assert re.search(message, ended.err), ended.err


def test_a_damaged_model_is_refused(data, settings_for):
    """Guards against a traceback of Paddle's."""
    save("m/one", small())
    Path("m/one.pdiparams").write_bytes(Path("m/one.pdiparams").read_bytes()[:100])
    with pytest.raises(UserError, match="m/one: cannot be read as a static model"):
        StaticModel(*find_graph("m"), settings_for("data"), "cpu", 1)
