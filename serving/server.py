"""Server lifecycle: start the workers, load new exports, drain on SIGTERM."""

import asyncio
import contextlib
import importlib.metadata
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from types import FrameType

import uvicorn
from uvicorn.server import HANDLED_SIGNALS

import config
from inference.names import DESCRIPTION
from serving import service_manager
from serving.access_log import AccessLog
from serving.app import build
from serving.connections import connection_class, raise_file_limit
from serving.messages import WorkerPlan
from serving.monitoring import Monitor
from serving.options import Options
from serving.shadow import Shadow
from serving.worker_pool import WorkerPool
from serving.worker_process import WorkerStartError
from system import machine
from system.errors import UserError
from system.files import file_digest
from system.windows import claim_port

# Upper limit of --workers 0: each worker holds a model and a copy of Paddle in memory.
MAX_WORKERS = 8
# Images that may wait for a heat map: each takes as long as many predictions.
EXPLAIN_QUEUE = 8
# Images that may wait for the model of --shadow.
SHADOW_QUEUE = 64
# Attempts to load a folder, which may still be being copied at the first.
MAX_ATTEMPTS = 5


def run(options: Options) -> None:
    """Serves until SIGTERM or Ctrl-C.

    Raises:
        UserError: The port is taken, or the folder cannot be served.
    """
    raise_file_limit()
    machine.return_large_blocks()
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    # asyncio disables Nagle's algorithm only where the protocol is named; else small responses wait 40 ms.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        claim_port(listener)
        try:
            listener.bind((options.host, options.port))
        except OSError as error:
            where, reason = f"{options.host}:{options.port}", error.strerror or error
            raise UserError(f"{where}: cannot listen there ({reason}); use another --port") from None
        asyncio.run(_serve(options, listener))


async def _serve(options: Options, listener: socket.socket) -> None:
    monitor = Monitor()
    access_log = AccessLog(options.access_log, monitor) if options.access_log else None
    pools = _pools(options, monitor)
    classifiers, shadow = pools["classify"], None
    if "shadow" in pools:
        shadow = Shadow(classifiers, pools["shadow"], monitor, options.body_bytes)
    monitor.watch(pools)
    app = build(options, monitor, classifiers, pools.get("explain"), shadow, access_log)
    settings = uvicorn.Config(
        app, lifespan="on", log_level="warning", access_log=False, server_header=False, http=connection_class(options),
        timeout_graceful_shutdown=int(options.deadline_seconds + options.upload_seconds) + 1,
    )  # fmt: skip
    server = Server(settings, classifiers)
    manager = asyncio.create_task(_manage(options, pools, server, listener))
    try:
        await server.serve(sockets=[listener])
    finally:
        manager.cancel()
        (outcome,) = await asyncio.gather(manager, return_exceptions=True)
        if shadow:
            await shadow.stop()
        await asyncio.gather(*(pool.stop() for pool in pools.values()))
        if access_log:
            access_log.close()
    if isinstance(outcome, UserError):
        raise outcome


def _pools(options: Options, monitor: Monitor) -> dict[str, WorkerPool]:
    """Builds the pools of workers: that of the exported model first."""
    plan, count = plan_workers(options)
    pools = {"classify": WorkerPool(options, monitor, plan, count)}
    # Monitors of their own: /metrics is about predictions.
    if options.run:
        one_by_one = replace(options, max_batch=1, max_wait_ms=0, queue_size=EXPLAIN_QUEUE)
        pools["explain"] = WorkerPool(one_by_one, Monitor(), replace(plan, run=str(options.run), pin_cores=False), 1)
    if options.shadow:
        apart = replace(plan, folder=str(options.shadow), pin_cores=False, is_background=True)
        pools["shadow"] = WorkerPool(replace(options, queue_size=SHADOW_QUEUE), Monitor(), apart, 1)
    return pools


def plan_workers(options: Options) -> tuple[WorkerPlan, int]:
    """Divides the CPU cores among the workers.

    Returns:
        What each worker loads, and the number of workers.
    """
    settings = config.load(options.config_file, options.overrides)
    on_gpu = settings.device.startswith("gpu") or (settings.device == "auto" and _has_gpu_build())
    count = options.workers or (1 if on_gpu else min(MAX_WORKERS, machine.cores()))
    threads = settings.threads if settings.threads != "auto" else max(1, machine.cores() // count)
    plan = WorkerPlan(
        str(options.folder), options.config_file, options.overrides, threads, settings.engine, options.max_pixels,
        pin_cores=not on_gpu,
    )  # fmt: skip
    return plan, count


def _has_gpu_build() -> bool:
    """Whether the GPU build of Paddle is installed; does not import it."""
    try:
        return bool(importlib.metadata.version("paddlepaddle-gpu"))
    except importlib.metadata.PackageNotFoundError:
        return False


class Server(uvicorn.Server):
    """uvicorn that exits with status 0 on SIGTERM, and refuses new images from that moment on."""

    def __init__(self, settings: uvicorn.Config, pool: WorkerPool):
        super().__init__(settings)
        self.pool = pool

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handles SIGTERM, Ctrl-C and Windows' Ctrl-Break, and does not raise them again at the end as uvicorn does."""
        before = {one: signal.signal(one, self.handle_exit) for one in HANDLED_SIGNALS}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Refuses new images; those in the queue are processed."""
        self.pool.is_draining = True
        service_manager.notify("STOPPING=1")
        super().handle_exit(sig, frame)


async def _manage(options: Options, pools: dict[str, WorkerPool], server: Server, listener: socket.socket) -> None:
    """Starts the workers, then loads every new export."""
    reload_requested = asyncio.Event()
    if hasattr(signal, "SIGHUP"):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload_requested.set)
    try:
        for pool in pools.values():
            await pool.start()
    except WorkerStartError as error:
        server.should_exit = True
        raise UserError(str(error)) from None
    host, port = listener.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    classifiers = pools["classify"]
    info = classifiers.model_info
    service_manager.notify("READY=1")
    classifiers.log(f"{info['name']} on {address}, {classifiers.count} workers, {info['engine']}")
    await asyncio.gather(_watch(options, classifiers, reload_requested), service_manager.keep_alive())


async def _watch(options: Options, pool: WorkerPool, reload_requested: asyncio.Event) -> None:
    """Starts new workers whenever the folder holds another export, or on SIGHUP."""
    failed_digest, attempts = "", 0
    while True:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(reload_requested.wait(), options.watch_seconds or None)
            failed_digest = ""
        reload_requested.clear()
        digest = _digest(options)
        attempts = attempts if digest == failed_digest else 0
        if digest == pool.model_info["digest"]:
            pool.monitor.is_reload_failing.set(0)
            continue
        if not digest or attempts >= MAX_ATTEMPTS:
            continue
        try:
            await pool.start()
            pool.monitor.reloads.inc()
            pool.monitor.is_reload_failing.set(0)
            pool.log(f"{pool.model_info['name']}: now serving the new export, {pool.model_info['engine']}")
        except WorkerStartError as error:
            failed_digest, attempts = digest, attempts + 1
            pool.monitor.failed_reloads.inc()
            pool.monitor.is_reload_failing.set(1)
            pool.log(f"{error}; still serving the old export")


def _digest(options: Options) -> str:
    try:
        return file_digest(options.folder / DESCRIPTION)
    except OSError:
        return ""
