"""Several processes train one network: every image once, one set of metrics, one writer."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest

import config
import train
from dataset import PADDING, BatchLoader
from models.checkpoint import Run
from system import machine

ROOT = Path(train.__file__).parent
LIMIT_SECONDS = 300


class Numbered(paddle.io.Dataset):
    """Items that are their own index."""

    seed = 1

    def __init__(self, count: int):
        super().__init__()
        self.count = count
        self.labels = np.arange(count) % 2

    def __len__(self) -> int:
        return self.count


@pytest.mark.parametrize(("count", "batch_size", "processes"), [(48, 8, 2), (23, 4, 3), (5, 1, 2), (7, 10, 3)])
def test_processes_share_an_epoch_without_loss_or_repetition(count, batch_size, processes):
    """Guards against images that several processes see or none, and against unequal numbers of steps."""
    shares = [
        BatchLoader(Numbered(count), batch_size, 0, True, False, rank, processes).batches() for rank in range(processes)
    ]
    assert len({len(share) for share in shares}) == 1
    assert all(len(batch) for share in shares for batch in share)
    assert sorted(np.concatenate([np.concatenate(share) for share in shares]).tolist()) == list(range(count))


@pytest.mark.parametrize(("count", "batch_size", "processes"), [(48, 8, 2), (23, 4, 3), (5, 4, 2)])
def test_validation_is_padded_to_equal_batches_with_rows_that_do_not_count(count, batch_size, processes):
    """Guards against scores that count a padding image, and against batches too unequal to be gathered."""
    shares = [
        BatchLoader(Numbered(count), batch_size, 0, False, False, rank, processes).batches()
        for rank in range(processes)
    ]
    assert len({tuple(map(len, share)) for share in shares}) == 1
    seen = np.concatenate([np.concatenate(share) for share in shares])
    assert sorted(seen[seen != PADDING].tolist()) == list(range(count))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launch(folder: Path, arguments: list[str], *options: str) -> subprocess.Popen:
    """Starts `python -m paddle.distributed.launch ... train.py ...`."""
    line = [sys.executable, "-m", "paddle.distributed.launch", *options, "--log_dir", str(folder / "log")]
    folder.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        [*line, str(ROOT / "train.py"), *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={key: value for key, value in os.environ.items() if not key.startswith("PADDLE_")},
    )


# No random change and no batch norm: what is left is the sum of gradients, split over the processes.
PLAIN_RUN = {"epochs": 3, "optimizer": "momentum", "learning_rate": 0.05, "schedule": "constant"}


def test_two_processes_follow_the_curve_of_one(drawn, tmp_path, arguments_for, settings_for, plain):
    """Guards against gradients that are summed, scores of one process's half, and two writers of one run."""
    one = train.train(settings_for(drawn, **PLAIN_RUN, augment=plain, output_dir=str(tmp_path / "one"), batch_size=6))
    arguments = arguments_for(drawn, **PLAIN_RUN, augment=plain, output_dir=str(tmp_path / "two"), batch_size=3)
    process = launch(tmp_path / "two", arguments, "--nproc_per_node", "2", "--master", f"127.0.0.1:{free_port()}")
    output = process.communicate(timeout=LIMIT_SECONDS)[0]
    assert process.returncode == 0, output
    two = Run(tmp_path / "two" / "short")
    assert two.state["finished"]
    for column, values in one.history().items():
        np.testing.assert_allclose(two.history()[column], values, rtol=1e-3, err_msg=column)
    weights = [paddle.load(str(run.path / "last.pdparams")) for run in (one, two)]
    for key, value in weights[0].items():
        np.testing.assert_allclose(weights[1][key].numpy(), value.numpy(), atol=1e-5, err_msg=key)


def test_weights_that_unfreeze_are_exchanged_too(drawn, tmp_path, arguments_for, settings_for, plain, donor):
    """Guards against processes that each train a backbone of their own once it is unfrozen."""
    frozen = PLAIN_RUN | {"freeze": True, "unfreeze_epoch": 2, "backbone_lr_scale": 0.5, "features": "off"}
    frozen["pretrained"] = donor("cnn", 24)
    one = train.train(settings_for(drawn, **frozen, augment=plain, output_dir=str(tmp_path / "one"), batch_size=6))
    arguments = arguments_for(drawn, **frozen, augment=plain, output_dir=str(tmp_path / "two"), batch_size=3)
    process = launch(tmp_path / "two", arguments, "--nproc_per_node", "2", "--master", f"127.0.0.1:{free_port()}")
    output = process.communicate(timeout=LIMIT_SECONDS)[0]
    assert process.returncode == 0, output
    frozen["epochs"] = 1
    start = train.train(settings_for(drawn, **frozen, augment=plain, output_dir=str(tmp_path / "start")))
    paths = (start.path, one.path, tmp_path / "two" / "short")
    first, *weights = [paddle.load(str(path / "last.pdparams")) for path in paths]
    assert any("0." in key and (first[key].numpy() != weights[0][key].numpy()).any() for key in first)
    for key, value in weights[0].items():
        np.testing.assert_allclose(weights[1][key].numpy(), value.numpy(), atol=1e-5, err_msg=key)


def test_a_dead_process_ends_the_job_and_names_its_log(drawn, tmp_path, arguments_for):
    """Guards against a job whose other processes wait for ever for one that has died."""
    broken = tmp_path / "data"
    shutil.copytree(drawn, broken)
    (broken / "valid.txt").unlink()
    arguments = arguments_for(broken, output_dir=str(tmp_path / "output"))
    process = launch(tmp_path, arguments, "--nproc_per_node", "2", "--master", f"127.0.0.1:{free_port()}")
    output = process.communicate(timeout=LIMIT_SECONDS)[0]
    assert process.returncode != 0
    assert "workerlog" in output
    assert "valid.txt: " in "".join(file.read_text() for file in (tmp_path / "log").glob("workerlog.*"))


@pytest.mark.slow
def test_two_machines_train_one_network(drawn, tmp_path, arguments_for):
    """Guards against a training over --nnodes that hangs at its start or writes twice."""
    arguments = arguments_for(drawn, output_dir=str(tmp_path / "output"))
    options = ("--master", f"127.0.0.1:{free_port()}", "--nnodes", "2", "--nproc_per_node", "1")
    nodes = [launch(tmp_path / f"node{number}", arguments, *options) for number in (1, 2)]
    outputs = [node.communicate(timeout=LIMIT_SECONDS)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs
    run = Run(tmp_path / "output" / "short")
    assert run.state["finished"]
    assert run.history()["epoch"] == [1, 2]


def test_ranks_are_read_from_the_launcher(monkeypatch):
    """Guards against a single process that believes it is one of many, and the reverse."""
    monkeypatch.delenv("PADDLE_TRAINER_ID", raising=False)
    monkeypatch.delenv("PADDLE_TRAINERS_NUM", raising=False)
    assert machine.rank() == (0, 1)
    monkeypatch.setenv("PADDLE_TRAINER_ID", "2")
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "4")
    assert machine.rank() == (2, 4)
    monkeypatch.setenv("PADDLE_LOCAL_SIZE", "4")
    monkeypatch.setattr(machine, "cores", lambda: 8)
    assert machine.threads(config.load()) == 2
