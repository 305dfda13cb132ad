"""Errors that the user can fix."""

from collections.abc import Sequence


class UserError(Exception):
    """An error that the user can fix: printed as one line, `WHERE: what is wrong; what to do`, without a traceback."""


def shorten(text: str, length: int = 200) -> str:
    """Cuts a text that an error quotes, in the middle, to about `length` characters."""
    half = length // 2
    return text if len(text) <= length else f"{text[:half]}...{text[-half:]} ({len(text)} characters)"


def problems(where: str, what: Sequence[str], remedy: str) -> UserError:
    """Collects problems of one kind into one error: the first ten, and how many more there are."""
    shown = "; ".join(map(shorten, what[:10]))
    more = f"; and {len(what) - 10} more" if len(what) > 10 else ""
    return UserError(f"{where}: {shown}{more}; {remedy}")
