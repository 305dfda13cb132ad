"""Serves an exported model over HTTP: batches, a bounded queue, worker processes, and a page to try it on."""

from serving import options
from system import cli


def main() -> None:
    """Command line of serve.py."""
    parser = cli.parser(__doc__)
    options.add_arguments(parser)
    chosen = options.read(parser.parse_intermixed_args())
    # The server process never computes, so there is no machine to prepare; its workers prepare their own.
    from serving import server

    server.run(chosen)


if __name__ == "__main__":
    cli.command(main)
