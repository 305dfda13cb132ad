"""Options of the server: every one with its default, range and help, in one place."""

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import config
from inference.names import DESCRIPTION
from system import cli
from system.errors import UserError

TOKEN_VARIABLE = "SERVE_TOKEN"


def _option(default: Any, low: float, high: float, meaning: str) -> Any:
    return field(default=default, metadata={"low": low, "high": high, "help": meaning})


@dataclass(frozen=True)
class Options:
    """Options of serve.py; those with a range become numbers on its command line.

    Attributes:
        token: What every request needs; "": nothing.
        metrics_token: What /metrics takes beside it; "": /metrics needs none; None: that of every request.
    """

    folder: Path
    config_file: str | None = None
    overrides: tuple[str, ...] = ()
    run: Path | None = None
    shadow: Path | None = None
    relabel_file: Path | None = None
    access_log: str = ""
    token: str = ""
    metrics_token: str | None = None
    host: str = "127.0.0.1"
    allowed_host: tuple[str, ...] = ()
    port: int = _option(8000, 0, 65535, "port to listen on; 0: any free port")
    workers: int = _option(0, 0, 256, "worker processes; 0: one per core, at most 8, or one on a GPU")
    max_batch: int = _option(16, 1, 1024, "largest batch, in images")
    max_wait_ms: float = _option(2.0, 0, 1000, "how long an image waits for others that are arriving")
    queue_size: int = _option(256, 1, 100_000, "images that may wait; requests beyond it are refused with 503")
    deadline_seconds: float = _option(10.0, 0.1, 3600, "a request not completed by then is refused with 503")
    upload_seconds: float = _option(30.0, 0.1, 3600, "a body not received by then is refused with 408")
    hang_seconds: float = _option(120.0, 1, 3600, "a worker that spends longer on one batch is replaced")
    ready_workers: float = _option(0.0, 0, 1, "share of the workers that /readyz requires; 0: one of them")
    watch_seconds: float = _option(2.0, 0, 3600, "how often to check for a new export; 0: on SIGHUP only")
    max_body_mb: float = _option(32.0, 0.001, 2048, "largest request body")
    max_upload_mb: float = _option(512.0, 0.001, 65536, "request bodies held in memory, all requests together")
    max_files: int = _option(64, 1, 10_000, "images per request, at most")
    max_connections: int = _option(2000, 1, 100_000, "connections at a time; further ones are closed")
    max_pixels: int = _option(50_000_000, 1, 10**9, "largest width x height of an image")

    @property
    def body_bytes(self) -> int:
        """Largest body, in bytes."""
        return int(self.max_body_mb * 2**20)

    @property
    def upload_bytes(self) -> int:
        """Largest sum of the bodies held, in bytes; one body always fits."""
        return max(self.body_bytes, int(self.max_upload_mb * 2**20))


def option_name(name: str) -> str:
    """The command-line option of a field."""
    return f"--{name.replace('_', '-')}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options to a command line."""
    parser.add_argument(
        "arguments", nargs="*", metavar="FOLDER|KEY=VALUE", help="the exported model (the newest one), and settings"
    )
    parser.add_argument("--run", metavar="FOLDER", help="the run it was exported from; enables /gradcam")
    parser.add_argument("--shadow", metavar="FOLDER", help="exported model that sees the same images, to be compared")
    parser.add_argument("--relabel-file", metavar="FILE", help="file that /relabel appends to; enables /relabel")
    parser.add_argument(
        "--access-log", metavar="FILE", default="", help="file for one line of JSON per request; -: standard output"
    )
    parser.add_argument(
        "--metrics-token",
        metavar="FILE|none",
        help=f"file with a token for /metrics beside {TOKEN_VARIABLE}; none: no token",
    )
    parser.add_argument("--host", default=Options.host, help="address to listen on (%(default)s: this machine only)")
    parser.add_argument(
        "--allowed-host", metavar="NAME", action="append",
        help="name that browsers may reach this server by, beside its address; several times for several",
    )  # fmt: skip
    for one in fields(Options):
        if one.metadata:
            parser.add_argument(
                option_name(one.name), type=type(one.default), default=one.default, metavar="N",
                help=one.metadata["help"] + " (%(default)s)",
            )  # fmt: skip


def read(arguments: argparse.Namespace) -> Options:
    """Checks a command line.

    Raises:
        UserError: An option is out of range, or a folder does not exist.
    """
    overrides, folders = cli.split_overrides(arguments.arguments)
    if len(folders) > 1:
        raise UserError(f"{folders[1]}: one folder is served at a time; start another serve.py on another --port")
    numbers = _numbers(arguments)
    folder = Path(folders[0]) if folders else newest_export(Path(config.load(arguments.config, overrides).export_dir))
    if not (folder / DESCRIPTION).is_file():
        raise UserError(f"{folder}: no {DESCRIPTION} there; name a folder that export.py made")
    if arguments.run and not Path(arguments.run).is_dir():
        raise UserError(f"{arguments.run}: no such folder; name a run that train.py made, or leave out --run")
    if arguments.shadow and not (Path(arguments.shadow) / DESCRIPTION).is_file():
        raise UserError(f"{arguments.shadow}: no {DESCRIPTION} there; give --shadow a folder that export.py made")
    return Options(
        folder=folder,
        config_file=arguments.config,
        overrides=tuple(overrides),
        run=Path(arguments.run) if arguments.run else None,
        shadow=Path(arguments.shadow) if arguments.shadow else None,
        relabel_file=Path(arguments.relabel_file) if arguments.relabel_file else None,
        access_log=arguments.access_log,
        token=token(),
        metrics_token=_metrics_token(arguments.metrics_token),
        allowed_host=tuple(arguments.allowed_host or ()),
        host=arguments.host,
        **numbers,
    )


def _metrics_token(given: str | None) -> str | None:
    """The token of a file; "" for `none`, None where /metrics needs the token of every path."""
    if given is None or given == "none":
        return None if given is None else ""
    try:
        token = Path(given).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UserError(f"{given}: cannot be read ({reason}); give --metrics-token a file, or none") from None
    if not token:
        raise UserError(f"{given}: no token there; write one, or give --metrics-token none")
    return token


def token() -> str:
    """The token of the environment; "": there is none."""
    # Files and secrets end with a line end that nobody sees.
    return os.environ.get(TOKEN_VARIABLE, "").strip()


def _numbers(arguments: argparse.Namespace) -> dict[str, Any]:
    numbers = {one.name: getattr(arguments, one.name) for one in fields(Options) if one.metadata}
    check_range(numbers)
    return numbers


def check_range(numbers: Mapping[str, Any]) -> None:
    """Checks options by name; those left out have their defaults.

    Raises:
        UserError: One is out of range.
    """
    for one in fields(Options):
        low, high = one.metadata.get("low"), one.metadata.get("high")
        if one.name in numbers and not low <= numbers[one.name] <= high:
            raise UserError(f"{option_name(one.name)} {numbers[one.name]}: out of range; give {low} to {high}")
    max_files = numbers.get("max_files", Options.max_files)
    if max_files > numbers.get("queue_size", Options.queue_size):
        raise UserError(f"--max-files {max_files}: more than --queue-size; make the queue larger")


def newest_export(export_dir: Path) -> Path:
    """Finds the folder that export.py wrote last.

    Raises:
        UserError: There is none.
    """
    found = [file for file in export_dir.glob(f"*/{DESCRIPTION}") if not file.parent.name.startswith(".")]
    if not found:
        raise UserError(f"{export_dir}: no exported model there; run `python export.py`, or name a folder")
    return max(found, key=lambda file: file.stat().st_mtime).parent
