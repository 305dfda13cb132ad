"""What a command says when the user can mend it; apart from the settings, so that a decoding process starts at once."""

from collections.abc import Sequence


class UserError(Exception):
    """Something the user can mend: shown as one line, without a traceback."""


def problems(where: str, what: Sequence[str], remedy: str) -> UserError:
    """Builds one error from problems of one kind: the first ten and how many more there are."""
    shown = "; ".join(what[:10])
    more = f"; and {len(what) - 10} more" if len(what) > 10 else ""
    return UserError(f"{where}: {shown}{more}; {remedy}")
