"""Shows questionable images on a local page, one after another, and writes what a person decides: corrections.tsv."""

import argparse
import getpass

import config
from system import cli
from system.windows import quoted


def command_line() -> argparse.ArgumentParser:
    """Creates the argument parser."""
    parser = cli.parser(__doc__)
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings that override config.yaml")
    parser.add_argument("--reports", metavar="FILE", help="label reports of users (serve.py --relabel-file)")
    parser.add_argument(
        "--from", metavar="FOLDER", action="append", dest="folders",
        help="take suspects.tsv, similar.tsv and unlike.tsv from here; several times for several folders "
        "(the newest explore-NAME and the evaluated runs below output_dir)",
    )  # fmt: skip
    parser.add_argument("--port", type=int, default=8010, metavar="N", help="port; 0: any free one (%(default)s)")
    parser.add_argument("--who", metavar="NAME", help="name to write beside each decision (that of the login)")
    parser.add_argument("--no-browser", action="store_true", help="print the address only")
    return parser


def main() -> None:
    """Command line of review.py."""
    parser = command_line()
    arguments = parser.parse_intermixed_args()
    overrides, rest = cli.split_overrides(arguments.settings)
    if rest:
        parser.error(f"{rest[0]}: write settings as KEY=VALUE")
    if not 0 <= arguments.port <= 65535:
        parser.error(f"argument --port: {arguments.port} is not 0 to 65535")
    settings = config.load(arguments.config, overrides)
    # Nothing is computed, so there is no machine to prepare; --help needs no server.
    from reviewing import server

    chosen = server.Options(
        reports=arguments.reports,
        folders=arguments.folders or (),
        port=arguments.port,
        # As it is read again from a table.
        who=" ".join((_login() if arguments.who is None else arguments.who).split()),
        browser=not arguments.no_browser,
        next_command=quoted(
            ["python", "annotate.py", *(["--config", arguments.config] if arguments.config else []), *overrides]
        ),
    )
    server.run(settings, chosen)


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in containers
        return ""


if __name__ == "__main__":
    cli.command(main)
