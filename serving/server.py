"""The life of a server: start, take up new exports, drain on SIGTERM."""

import asyncio
import contextlib
import importlib.metadata
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import uvicorn

import config
from inference.description import DESCRIPTION
from serving.app import build
from serving.monitoring import Monitor
from serving.options import Options
from serving.worker_pool import Pool
from serving.worker_process import StartError
from system import machine
from system.errors import UserError
from system.files import file_digest

# Workers that --workers 0 starts, at most: each holds a model and a Paddle in memory.
MOST_WORKERS = 8
# Images that may wait to be explained: each takes as long as many answers.
EXPLAIN_QUEUE = 8
# Tries to take up a folder that is being copied while it is looked at.
TRIES = 5


def plan(options: Options) -> tuple[dict[str, Any], int]:
    """Shares the cores out.

    Returns:
        What each worker is told, and how many there are to be.
    """
    settings = config.load(options.config_file, options.overrides)
    on_gpu = settings.device.startswith("gpu") or (settings.device == "auto" and _gpu_build())
    count = options.workers or (1 if on_gpu else min(MOST_WORKERS, machine.cores()))
    threads = settings.threads if settings.threads != "auto" else max(1, machine.cores() // count)
    told = {
        "folder": str(options.folder), "config_file": options.config_file, "overrides": list(options.overrides),
        "threads": threads, "engine": settings.engine, "max_pixels": options.max_pixels, "run": "", "bound": not on_gpu,
    }  # fmt: skip
    return told, count


def _gpu_build() -> bool:
    """Tells whether the GPU build of Paddle is installed, without importing it."""
    try:
        return bool(importlib.metadata.version("paddlepaddle-gpu"))
    except importlib.metadata.PackageNotFoundError:
        return False


class Server(uvicorn.Server):
    """uvicorn, which ends with exit status 0 when it was told to end, and says so to the pool first."""

    def __init__(self, settings: uvicorn.Config, pool: Pool):
        super().__init__(settings)
        self.pool = pool

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ends on SIGTERM and Ctrl-C without raising them again at the end."""
        before = {one: signal.signal(one, self.handle_exit) for one in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Refuses new images from now on; what waits is answered."""
        self.pool.draining = True
        super().handle_exit(sig, frame)


def run(options: Options) -> None:
    """Serves until told to end.

    Raises:
        UserError: The port is taken, or the folder cannot be served.
    """
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    # asyncio sends small answers at once only where the protocol is named; else they wait 40 ms for an acknowledgement.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((options.host, options.port))
        except OSError as error:
            told = f"cannot listen there ({error.strerror or error}); use another --port"
            raise UserError(f"{options.host}:{options.port}: {told}") from None
        asyncio.run(_serve(options, listening))


async def _serve(options: Options, listening: socket.socket) -> None:
    monitor = Monitor()
    told, count = plan(options)
    pool = Pool(options, monitor, told, count)
    explainer = None
    if options.run:
        one_by_one = replace(options, max_batch=1, max_wait_ms=0, queue_size=EXPLAIN_QUEUE)
        # Figures of its own: /metrics tells of predictions.
        explainer = Pool(one_by_one, Monitor(), told | {"run": str(options.run), "bound": False}, 1)
    settings = uvicorn.Config(
        build(options, monitor, pool, explainer), lifespan="off", log_level="warning", access_log=False,
        server_header=False, timeout_graceful_shutdown=int(options.deadline_seconds + options.upload_seconds) + 1,
    )  # fmt: skip
    server = Server(settings, pool)
    keeper = asyncio.create_task(_keep(options, pool, explainer, server, listening))
    try:
        await server.serve(sockets=[listening])
    finally:
        keeper.cancel()
        ended = await asyncio.gather(keeper, return_exceptions=True)
        await asyncio.gather(*(one.stop() for one in (pool, explainer) if one))
    if isinstance(ended[0], UserError):
        raise ended[0]


async def _keep(options: Options, pool: Pool, explainer: Pool | None, server: Server, listening: socket.socket) -> None:
    """Starts the workers, and starts new ones whenever the folder holds another export."""
    asked = asyncio.Event()
    if hasattr(signal, "SIGHUP"):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
    try:
        await pool.start()
        if explainer:
            await explainer.start()
    except StartError as error:
        server.should_exit = True
        raise UserError(str(error)) from None
    host, port = listening.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    pool.tell(f"{pool.about['name']} on {address}, {pool.count} workers, {pool.about['engine']}")
    failed, tries = "", 0
    while True:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asked.wait(), options.watch_seconds or None)
            failed = ""
        asked.clear()
        digest = _digest(options)
        tries = tries if digest == failed else 0
        if not digest or digest == pool.about["digest"] or tries >= TRIES:
            continue
        try:
            await pool.start()
            pool.monitor.reloads.inc()
            pool.tell(f"{pool.about['name']}: the new export is served, {pool.about['engine']}")
        except StartError as error:
            failed, tries = digest, tries + 1
            pool.tell(f"{error}; the old export is served on")


def _digest(options: Options) -> str:
    try:
        return file_digest(options.folder / DESCRIPTION)
    except OSError:
        return ""
