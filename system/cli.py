"""Command lines: settings as KEY=VALUE, and errors as one line with an exit status."""

import argparse
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import yaml

from system.errors import UserError


def parser(description: str) -> argparse.ArgumentParser:
    """Makes a command line that takes settings as `key=value` and a `--config` file."""
    made = argparse.ArgumentParser(
        description=description,
        epilog="Any setting of config.yaml can be given as KEY=VALUE, for example image_shape=[3,96,96].",
    )
    made.add_argument("--config", metavar="FILE", help="YAML file with the settings that differ from config.yaml")
    return made


def parse_overrides(arguments: Iterable[str]) -> dict[str, Any]:
    """Turns `key=value` arguments, values in YAML, into nested settings.

    Raises:
        UserError: An argument has no `=` or its value is no YAML.
    """
    changes: dict[str, Any] = {}
    for argument in arguments:
        key, separator, text = argument.partition("=")
        if not separator:
            raise UserError(f"{argument}: this is not a setting; write KEY=VALUE")
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError):
            raise UserError(f"{argument}: the value cannot be read; quote it, or write lists as [3,64,64]") from None
        node = changes
        *groups, last = key.lower().split(".")
        for group in groups:
            node = node.setdefault(group, {})
            if not isinstance(node, dict):
                raise UserError(
                    f"{argument}: {group} was given one value before; set single settings or none of its group"
                )
        node[last] = value
    return changes


def split_overrides(arguments: Iterable[str]) -> tuple[list[str], list[str]]:
    """Tells `key=value` arguments from file names; an existing file wins.

    Returns:
        The overrides and the rest, each in the order given.
    """
    overrides, rest = [], []
    for argument in arguments:
        is_setting = re.match(r"[A-Za-z_][\w.]*=", argument) and not os.path.lexists(argument)
        (overrides if is_setting else rest).append(argument)
    return overrides, rest


def command(main: Callable[[], int | None]) -> None:
    """Runs a command: a UserError becomes one line on stderr and exit status 1.

    Args:
        main: The command; what it returns is the exit status (None: 0).
    """
    # Paddle complains on import that the compiler cache it would like is absent (nothing here compiles), and tells at
    # every batch norm of every step, and of every convolution it compiles, that it works as it should.
    warnings.filterwarnings("ignore", message="No ccache found")
    warnings.filterwarnings("ignore", message="When training, we now always track")
    warnings.filterwarnings("ignore", message="Value do not have 'place' interface")
    try:
        sys.exit(main() or 0)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): nothing is wrong, nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
