"""Worker processes that decode images, so that no file can end the scan."""

import itertools
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from system.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
# The worker has to find our modules whatever folder the command was started from.
PROGRAM = "import sys; sys.path[0] = sys.argv[1]; from annotation.worker import main; main()"
TIMEOUT_SECONDS = 120  # for one batch, and for one file when it is tried alone
STARTED_AT_ONCE = 2  # workers that start while the files are listed; more would be for nothing where there are few
BATCHES_WAITING = 4  # per worker: enough that none idles, few enough that memory stays flat


class WorkerLost(Exception):  # noqa: N818 - an event, not a mistake
    """A worker process ended in the middle of a batch; the text says how."""


class Worker:
    """One process and its pipes; it starts with the first batch at the latest, and again after a loss."""

    def __init__(self, folder: Path, max_pixels: int, timeout_seconds: float):
        self.folder = folder
        self.max_pixels = max_pixels
        self.timeout_seconds = timeout_seconds
        self.process: subprocess.Popen | None = None
        self._ready = False

    def start(self) -> None:
        """Starts the process, without waiting until it is ready."""
        # One thread each: there is a worker per core, and threads would count against the memory limit.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(ROOT), str(self.max_pixels)],
                cwd=self.folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                # Ctrl-C reaches the command only, which ends its workers itself.
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        except OSError as error:
            # Its current folder is the data folder.
            remedy = "see that the disk or the share is there; nothing was written"
            raise UserError(f"{self.folder}: no process can start there ({error.strerror}); {remedy}") from None

    def run(self, task: str, items: list, options: dict[str, Any]) -> list:
        """Runs a task on one batch.

        Returns:
            One result per item.

        Raises:
            WorkerLost: The process ended or took too long; the next call starts another.
        """
        if self.process is None:
            self.start()
        assert self.process, "started"
        if not self._ready:
            self._await_ready(self.process)
        stdin, stdout = _pipes(self.process)
        timer = threading.Timer(self.timeout_seconds, self.process.kill)
        timer.start()
        try:
            pickle.dump((task, items, options), stdin, protocol=pickle.HIGHEST_PROTOCOL)
            stdin.flush()
            return pickle.load(stdout)
        except (OSError, EOFError, pickle.UnpicklingError):
            status = self.close()
            timed_out = not timer.is_alive()
            raise WorkerLost("timeout" if timed_out else _ending(status)) from None
        finally:
            timer.cancel()

    def _await_ready(self, process: subprocess.Popen) -> None:
        try:
            pickle.load(_pipes(process)[1])
            self._ready = True
        except (OSError, EOFError, pickle.UnpicklingError):
            raise WorkerLost(_ending(self.close())) from None

    def close(self) -> int:
        """Ends the process; returns its exit status (negative: the signal that killed it)."""
        process, self.process, self._ready = self.process, None, False
        if process is None:
            return 0
        stdin, stdout = _pipes(process)
        if not stdin.closed:
            stdin.close()
        try:
            return process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
        finally:
            stdout.close()


def _pipes(process: subprocess.Popen) -> tuple[IO[bytes], IO[bytes]]:
    assert process.stdin and process.stdout, "started with pipes"
    return process.stdin, process.stdout


def _ending(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"


class Pool:
    """Worker processes that share batches of work.

    Args:
        workers: Number of processes; STARTED_AT_ONCE of them start now, the others with their first batch.
        folder: Current folder of the workers; paths are relative to it.
        max_pixels: Largest width x height that is decoded.
        timeout_seconds: Time limit for one batch.
    """

    def __init__(self, workers: int, folder: Path, max_pixels: int, timeout_seconds: float = TIMEOUT_SECONDS):
        self.size = workers
        self._workers = [Worker(folder, max_pixels, timeout_seconds) for _ in range(workers)]
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        for worker in self._workers[:STARTED_AT_ONCE]:
            worker.start()
        self._threads = ThreadPoolExecutor(workers)
        self._closing = False

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            if worker.process is not None:
                worker.process.kill()
        self._threads.shutdown(wait=True)
        for worker in self._workers:
            worker.close()

    def run(
        self, task: str, batches: Iterable[list], lost: Callable[[str], Any], **options: Any
    ) -> Iterator[tuple[list, list]]:
        """Runs a task on batches, in order.

        Args:
            task: Name of one of the worker's tasks.
            batches: Lists of items; only a few of them are held at a time.
            lost: Makes the result of an item whose worker ended, from a text that says how it ended.
            options: Keyword arguments of the task.

        Yields:
            Each batch with the list of its results.
        """
        waiting: deque[tuple[list, Future[list]]] = deque()
        for batch in itertools.chain(batches, [None]):
            while waiting and (batch is None or len(waiting) >= self.size * BATCHES_WAITING):
                done, future = waiting.popleft()
                yield done, future.result()
            if batch is not None:
                waiting.append((batch, self._threads.submit(self._run_batch, task, batch, lost, options)))

    def _run_batch(self, task: str, batch: list, lost: Callable[[str], Any], options: dict[str, Any]) -> list:
        worker = self._idle.get()
        try:
            return worker.run(task, batch, options)
        except WorkerLost:
            if self._closing:
                raise
            # Run alone, each item shows whether it was the cause.
            return [self._run_alone(worker, task, item, lost, options) for item in batch]
        finally:
            self._idle.put(worker)

    def _run_alone(
        self, worker: Worker, task: str, item: Any, lost: Callable[[str], Any], options: dict[str, Any]
    ) -> Any:
        try:
            return worker.run(task, [item], options)[0]
        except WorkerLost as error:
            return lost(str(error))
