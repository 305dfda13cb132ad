"""Server lifecycle: reads the tables, serves the page to this machine, says at the end what was decided."""

import contextlib
import signal
import socket
import threading
import webbrowser
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from reviewing import queues, reports
from reviewing.access import Access
from reviewing.app import build
from reviewing.catalog import Catalog
from reviewing.decisions import Decisions
from reviewing.rendering import Renderer
from reviewing.session import Session
from reviewing.sources import find_folders
from system.errors import UserError
from system.settings import Settings
from system.windows import claim_port

HOST = "127.0.0.1"
TITLES = {
    queues.SUSPECTS: "suspected label errors",
    queues.CONFLICTS: "copies with different labels",
    queues.LEAKS: "copies in two splits",
    queues.COPIES: "near-copies",
    queues.SIMILAR: "similar images",
    queues.UNLIKE: "images unlike any other",
    queues.REJECTS: "images that could be converted",
    queues.REPORTS: "reports of users",
}
LEFT_OUT = {
    queues.GONE: "whose image is in no list any more",
    queues.RELABELLED: "whose image has another label by now",
    reports.UNMATCHED: "reported by users of an image that is in no list",
    reports.AGREES: "reported by users with the class that the image has",
}


@dataclass(frozen=True)
class Options:
    """Options of review.py.

    Attributes:
        reports: File of serve.py --relabel-file; None: none.
        folders: Folders to take tables from; empty: those of output_dir.
        port: To listen on; 0: any free one.
        who: Name of the person.
        browser: Whether to open the page in the browser.
        next_command: What applies the decisions.
    """

    reports: str | None
    folders: Sequence[str]
    port: int
    who: str
    browser: bool
    next_command: str


def run(settings: Settings, options: Options) -> None:
    """Serves the page until Ctrl-C.

    Raises:
        UserError: A table cannot be read, there is nothing to review, or the port is taken.
    """
    session = prepare(settings, options)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        claim_port(listener)
        try:
            listener.bind((HOST, options.port))
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"{HOST}:{options.port}: cannot listen there ({reason}); use another --port") from None
        renderer = Renderer(settings.max_pixels, settings.color_profile == "convert")
        access = Access(
            build(session, renderer), listener.getsockname()[1],
            lambda address: print(f"for another browser: {address}", flush=True),
        )  # fmt: skip
        print(f"review: {access.address} (Ctrl-C ends)", flush=True)
        if options.browser:
            # Some browsers return only when they are closed.
            threading.Thread(target=webbrowser.open, args=(access.address,), daemon=True).start()
        listener.listen()
        _Server(
            uvicorn.Config(
                access, lifespan="off", ws="none", log_level="warning", access_log=False, server_header=False,
                timeout_graceful_shutdown=2,
            )
        ).run([listener])  # fmt: skip
    print(f"decided: {session.decisions.summary()}; next: {options.next_command}")


def prepare(settings: Settings, options: Options) -> Session:
    """Reads all tables and decisions, and prints what is left to decide.

    Raises:
        UserError: A table cannot be read, or there is nothing to review.
    """
    catalog = Catalog(settings)
    found = queues.build(catalog, find_folders(Path(settings.output_dir), options.folders))
    if options.reports:
        found.items += reports.read(Path(options.reports), catalog, found.left_out)
    session = Session(catalog, found, Decisions(catalog, options.who))
    decided = len(session.decisions.active)
    if not found.items and not decided:
        raise UserError(
            f"{catalog.lists}: there is nothing to review; run `python explore.py` or `python evaluate.py "
            "--train-suspects` first, or name a folder of theirs with --from"
        )
    print(f"{catalog.data_dir}: {len(catalog.listed):,} images, {len(catalog.class_names):,} classes")
    for name, (left, total) in session.left().items():
        print(f"{TITLES[name]}: {left:,} of {total:,} left")
    print(f"decided: {decided:,} ({session.decisions.file})")
    for reason, count in found.left_out.items():
        if count:
            print(f"left out: {count:,} {LEFT_OUT[reason]}")
    if catalog.outside:
        print(f"left out: {catalog.outside:,} images that lie outside {catalog.data_dir}")
    if found.foreign:
        print(f"left out: {', '.join(found.foreign)}, for none of their images is listed")
    return session


class _Server(uvicorn.Server):
    """uvicorn that ends by Ctrl-C and SIGTERM without raising them again."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handles both while the server runs."""
        before = {one: signal.signal(one, self.handle_exit) for one in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
