"""Serves an exported model over HTTP: batches, a bounded queue, worker processes, and a page to try it on."""

from pathlib import Path

from serving import options
from system import cli
from system.errors import UserError


def main() -> None:
    """Command line of serve.py."""
    parser = cli.parser(__doc__)
    options.add_arguments(parser)
    chosen = options.read(parser.parse_intermixed_args())
    if chosen.shadow:
        refuse_other_classes(chosen.folder, chosen.shadow)
    # The server process never computes, so there is no machine to prepare; its workers prepare their own.
    from serving import server

    server.run(chosen)


def refuse_other_classes(folder: Path, shadow: Path) -> None:
    """Refuses two exported models that cannot be compared.

    Raises:
        UserError: One cannot be read, or their classes differ.
    """
    # Loads numpy, which the server process has no other use for.
    from inference import description

    names, others = description.read(folder).class_names, description.read(shadow).class_names
    if names != others:
        raise UserError(
            f"{shadow}: its classes, in their order, are not those of {folder}; give --shadow a model of the same"
        )


if __name__ == "__main__":
    cli.command(main)
