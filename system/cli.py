"""Command lines: settings as KEY=VALUE, errors as one line and an exit status."""

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
    """Creates an argument parser with a `--config` option; settings are added by each command as `KEY=VALUE`."""
    result = argparse.ArgumentParser(
        description=description,
        epilog="Any setting of config.yaml can be given as KEY=VALUE, for example image_shape=[3,96,96].",
    )
    result.add_argument("--config", metavar="FILE", help="YAML file with the settings that differ from config.yaml")
    return result


def parse_overrides(arguments: Iterable[str]) -> dict[str, Any]:
    """Parses `key=value` arguments, values in YAML, into nested settings.

    Raises:
        UserError: An argument has no `=`, or its value is not YAML.
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
                raise UserError(f"{argument}: {group} already has a value; set it once")
        node[last] = value
    return changes


def split_overrides(arguments: Iterable[str]) -> tuple[list[str], list[str]]:
    """Separates `key=value` arguments from file names; the name of an existing file is never a setting.

    Returns:
        The overrides and the other arguments, each in the order given.
    """
    overrides: list[str] = []
    rest: list[str] = []
    for argument in arguments:
        is_setting = re.match(r"[A-Za-z_][\w.]*=", argument) and not os.path.lexists(argument)
        (overrides if is_setting else rest).append(argument)
    return overrides, rest


def command(main: Callable[[], int | None]) -> None:
    """Runs a command and exits: a UserError is printed as one line on stderr, with exit status 1.

    Args:
        main: The command; returns the exit status (None: 0).
    """
    # Paddle warns on import that ccache is missing (nothing here compiles C++), and at every batch norm and every
    # compiled convolution about behaviour that is as intended.
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
        # The reader of our output has exited (`| head`), which is no error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
