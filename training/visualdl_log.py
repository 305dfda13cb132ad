"""VisualDL's log file: records are written at once, and a failure ends the log, not the training.

VisualDL's own LogWriter hands records to a thread, which dies of a full disk; the training then waits for it for ever.
"""

import struct
import sys
import time
from pathlib import Path
from typing import IO, Any

import numpy as np

try:
    from visualdl.component import base_component
    from visualdl.proto.record_pb2 import Record

    FAULT = ""
except OSError as error:  # on import it makes a folder in the home directory
    base_component = None
    FAULT = f"{error.filename}: {error.strerror}"


class VisualDLLog:
    """A log file in a folder; after a failure, and a warning, nothing is written any more."""

    def __init__(self, folder: Path):
        self.file: IO[bytes] | None = None
        if base_component is None:
            self._warn(FAULT)
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # VisualDL reads files of this name only.
            self.file = open(folder / f"vdlrecords.{int(time.time()):010d}.log", "ab")  # noqa: SIM115 - open while the training is
        except OSError as error:
            self._warn(f"{error.filename}: {error.strerror}")

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Adds a point of a curve over steps or epochs."""
        self._add("scalar", tag=tag, value=value, step=step, walltime=_now())

    def image(self, tag: str, pixels: np.ndarray, step: int) -> None:
        """Adds an image, uint8 [3, H, W]."""
        self._add("image", tag=tag, image_array=pixels.transpose(1, 2, 0), step=step, walltime=_now())

    def curve(self, kind: str, tag: str, step: int, **points: list) -> None:
        """Adds a finished curve.

        VisualDL's own add_pr_curve and add_roc_curve (2.5.3) use a name that numpy has dropped, and the latter divides
        the true positives by the negatives; its records take finished points.

        Args:
            kind: "pr_curve" or "roc_curve".
            points: TP, FP, TN and FN by threshold, and the coordinates.
        """
        self._add(f"{kind}_raw", tag=tag, step=step, walltime=_now(), **points)

    def _add(self, kind: str, **values: Any) -> None:
        if self.file is None:
            return
        record: Record = getattr(base_component, kind)(**values)
        data = record.SerializeToString()
        try:
            self.file.write(struct.pack("<Q", len(data)) + data)
            self.file.flush()
        except OSError as error:
            self._warn(f"{self.file.name}: {error.strerror}")
            self.close()

    def _warn(self, fault: str) -> None:
        print(f"VisualDL: no log from here on ({fault}); the training goes on", file=sys.stderr)

    def close(self) -> None:
        """Closes the file."""
        file, self.file = self.file, None
        if file is not None:
            try:
                file.close()
            except OSError as error:
                self._warn(f"{file.name}: {error.strerror}")


def _now() -> int:
    return round(time.time() * 1000)
