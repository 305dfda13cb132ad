"""Errors that the user can fix."""

from collections.abc import Sequence


class UserError(Exception):
    """An error that the user can fix: printed as one line, `WHERE: what is wrong; what to do`, without a traceback."""


def problems(where: str, what: Sequence[str], remedy: str) -> UserError:
    """Collects problems of one kind into one error: the first ten, and how many more there are."""
    shown = "; ".join(what[:10])
    more = f"; and {len(what) - 10} more" if len(what) > 10 else ""
    return UserError(f"{where}: {shown}{more}; {remedy}")
