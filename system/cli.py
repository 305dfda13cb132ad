"""Command lines: settings as KEY=VALUE, errors as one line and an exit status."""

import argparse
import io
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable
from typing import Any

import yaml

from system.errors import UserError, shorten
from system.yaml_files import parse_yaml


def parser(description: str) -> argparse.ArgumentParser:
    """Creates an argument parser with a `--config` option; settings are added by each command as `KEY=VALUE`."""
    result = _Parser(
        description=description,
        epilog="Any setting of config.yaml can be given as KEY=VALUE, for example image_shape=[3,96,96].",
    )
    result.add_argument(
        "-c", "--config", metavar="FILE", help="YAML file with the settings that differ from config.yaml"
    )
    result.add_argument("-o", metavar="KEY=VALUE", dest="option", help="a setting, as PaddleX and PaddleClas write it")
    return result


class _Parser(argparse.ArgumentParser):
    """Takes `-o KEY=VALUE` for KEY=VALUE."""

    def parse_intermixed_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses as argparse does."""
        given = list(sys.argv[1:] if args is None else args)
        for index, argument in enumerate(given):
            if argument == "-o" and (index + 1 == len(given) or "=" not in given[index + 1]):
                self.error("argument -o: write -o KEY=VALUE")
        return super().parse_intermixed_args([one for one in given if one != "-o"], namespace)


def parse_overrides(arguments: Iterable[str], texts: Collection[str] = ()) -> dict[str, Any]:
    """Parses `key=value` arguments, values in YAML, into nested settings.

    Args:
        texts: Settings whose value is a text, such as a path or a pattern: it is taken as it stands, unless it is
            quoted, or one of YAML's words for nothing, yes and no.

    Raises:
        UserError: An argument has no `=`, or its value is not YAML.
    """
    changes: dict[str, Any] = {}
    for argument in arguments:
        key, separator, text = argument.partition("=")
        if not separator:
            raise UserError(f"{shorten(argument)}: this is not a setting; write KEY=VALUE")
        value = _value(argument, text, key.lower() in texts)
        node = changes
        *groups, last = key.lower().split(".")
        for group in groups:
            node = node.setdefault(group, {})
            if not isinstance(node, dict):
                raise UserError(f"{shorten(argument)}: {shorten(group)} already has a value; set it once")
        node[last] = value
    return changes


def _value(argument: str, text: str, is_text: bool) -> Any:
    is_quoted = text[:1] in ("'", '"')
    try:
        value = parse_yaml(text)
    except (yaml.YAMLError, ValueError):
        if is_text and not is_quoted:
            return text
        raise UserError(
            f"{shorten(argument)}: the value cannot be read; quote it, or write lists as [3,64,64]"
        ) from None
    # In YAML ` #` begins a comment, `[` a list, and 007 is 7.
    return text if is_text and not is_quoted and value is not None and not isinstance(value, bool) else value


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


def check_figure(parser: argparse.ArgumentParser, file: str) -> None:
    """Refuses a figure that could not be written in the end.

    Raises:
        UserError: Its folder does not exist.
    """
    if not file.lower().endswith(".png"):
        parser.error(f"{file}: figures are drawn into a file ending in .png")
    if not os.path.isdir(os.path.dirname(file) or "."):
        raise UserError(f"{file}: its folder does not exist; make it or name another")


class _Output(io.TextIOWrapper):
    """Standard output: what its encoding lacks is printed escaped; that it cannot be written is a UserError."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise _unwritable(error) from None

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise _unwritable(error) from None


def _unwritable(error: OSError) -> Exception:
    if isinstance(error, BrokenPipeError):
        return error
    return UserError(f"stdout: cannot be written ({error.strerror}); free some space or send it elsewhere")


def _open_output() -> None:
    """Replaces Python's stdout; that of a test, and none at all, stay."""
    old = sys.stdout
    if old is not sys.__stdout__ or not isinstance(old, io.TextIOWrapper):
        return
    old.flush()
    sys.stdout = _Output(
        open(old.fileno(), "wb", closefd=False),  # noqa: SIM115 - open until the process ends
        encoding=old.encoding,
        errors="backslashreplace",
        line_buffering=old.line_buffering,
        write_through=old.write_through,
    )


def command(main: Callable[[], int | None]) -> None:
    """Runs a command and exits: a UserError is printed as one line on stderr, with exit status 1.

    Args:
        main: The command; returns the exit status (None: 0).
    """
    _open_output()
    status = _run(main)
    try:
        if sys.stdout:
            sys.stdout.flush()
    except (UserError, BrokenPipeError) as error:
        status = status or report(error)
        # What is left in the buffer is written when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def _run(main: Callable[[], int | None]) -> int | str:
    try:
        return main() or 0
    except (UserError, KeyboardInterrupt, BrokenPipeError) as error:
        return report(error)
    except SystemExit as end:
        return end.code or 0


def report(error: BaseException) -> int:
    """Prints the line of an error that ends a command, and returns its exit status."""
    if isinstance(error, BrokenPipeError):
        # The reader of our output has exited (`| head`), which is no error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    if isinstance(error, KeyboardInterrupt):
        print(str(error) or "stopped by Ctrl-C", file=sys.stderr)
        return 130
    line = str(error).replace("\r", "\\r").replace("\n", "\\n")
    print(line, file=sys.stderr)
    return 1
