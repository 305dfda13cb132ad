"""Builds every network of PaddleClas and runs it once, in a process of its own; writes docs/paddleclas.md. 20 minutes.

python bench/paddleclas_networks.py
"""

import json
import os
import re
import resource
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import config
from system import machine

machine.prepare(config.load(None, ["device=cpu", "threads=1"]))

import paddle

from models import paddleclas
from models.classifier import main_output

CLASSES, MEMORY, SECONDS = 7, 14 << 30, 150
HEAD = (
    "# Networks of PaddleClas\n\n`network=ppcls.NAME` takes these networks of paddleclas {version}, where its wheel is "
    "installed ([pretrained.md](pretrained.md)).\nEach was built for {classes} classes and run once by "
    "`bench/paddleclas_networks.py`: {right} of {total} are right.\nSide: of the square images it was run on, in "
    "pixels.\n\n| network | side | weights | if not: why |\n| --- | --- | --- | --- |\n"
)


def sides(name: str) -> list[int]:
    """The side in a network's name, or what networks usually take."""
    found = re.search(r"_(\d{3})$", name)
    return [int(found[1])] if found and 200 < int(found[1]) < 400 else [224, 256]


def result(name: str) -> dict:
    """Builds a network and runs it; returns its side and weights, or why it fails."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.alarm(SECONDS)
    reason = ""
    for side in sides(name):
        paddle.utils.unique_name.switch()
        try:
            network = paddleclas.construct(name, CLASSES)
            network.eval()
            with paddle.no_grad():
                shape = list(main_output(network(paddle.zeros([1, 3, side, side]))).shape)
            if shape == [1, CLASSES]:
                return {"side": side, "weights": sum(int(weight.size) for weight in network.parameters())}
            reason = f"its output is {shape}"
        except BaseException as error:
            lines = str(error).strip().splitlines()
            reason = re.sub(
                r"^network=\S+: | \(at /.*|; take another$", "", lines[-1].strip() if lines else repr(error)
            )
    return {"reason": reason[:140].replace("|", "/")}


def in_a_process(name: str) -> dict:
    """What `result` returns, whatever becomes of the process."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, json.dumps(result(name)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else {"reason": f"more than {SECONDS} s, or {MEMORY >> 30} GB"}


def main() -> None:
    """Writes the page."""
    rows = []
    for name in paddleclas.names():
        found = in_a_process(name)
        cells = (
            str(found.get("side", "")),
            f"{found['weights']:,}" if "weights" in found else "",
            found.get("reason", ""),
        )
        rows.append(f"| `{name}` | {' | '.join(cells)} |\n")
        print(rows[-1], end="", flush=True)
    right = sum("|  |  |" not in row for row in rows)
    head = HEAD.format(version="2.6.0", classes=CLASSES, right=right, total=len(rows))
    (ROOT / "docs" / "paddleclas.md").write_text(head + "".join(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
