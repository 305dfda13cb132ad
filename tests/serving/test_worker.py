"""Workers: what travels over their pipes, and what they load."""

import io
import subprocess
import sys

from serving_process import ROOT

from serving import frames
from serving.messages import HeatMap, Prediction, pack_results, unpack_results
from serving.refusal import RefusalError


def test_results_survive_the_pipe():
    """Guards against results that lose their order, their drawn image or their error between worker and server."""
    results = [
        Prediction([(1, "dog", 0.75), (0, "名\n", 0.25)], False, b"\xff\xd8"),
        RefusalError(422, "a.png: not an image; send JPEG"),
        HeatMap(b"png"),
        Prediction([(0, "名\n", 0.1)], True),
    ]
    pipe = io.BytesIO()
    contents, images = pack_results(results)
    frames.write(pipe, {"results": contents}, images)
    pipe.seek(0)
    head, blocks = frames.read(pipe)
    received = unpack_results(head["results"], blocks)
    assert [received[0], received[2], received[3]] == [results[0], results[2], results[3]]
    assert (received[1].status, received[1].message) == (422, "a.png: not an image; send JPEG")
    assert frames.read(pipe) is None


def test_a_classifying_worker_loads_no_training_code():
    """Guards against workers that each hold the networks, the training and matplotlib in memory."""
    script = """
import sys, config
from system import machine
machine.prepare(config.load(None, ["threads=1"]))
import serving.worker, serving.batch_classifier
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""
    line = [sys.executable, "-W", "ignore", "-c", script]
    loaded = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert "paddle" in loaded
    assert not {"models", "training", "evaluation", "dataset", "matplotlib", "uvicorn", "fastapi"} & set(loaded)
