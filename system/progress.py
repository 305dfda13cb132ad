"""Progress bars on stderr, shown on a terminal and in a notebook."""

import sys
from collections.abc import Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def is_shown() -> bool:
    """Returns whether stderr is a terminal, or a notebook's, which is none but draws bars too."""
    return sys.stderr is not None and (sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel"))


def bar(total: int, unit: str, title: str | None = None, done: int = 0) -> tqdm:
    """Creates a progress bar, which is removed when it is closed.

    Args:
        unit: What is counted, in the plural.
        title: Words before the bar.
        done: How many are done already.
    """
    hidden = not (total and is_shown())
    return tqdm(
        total=total, unit=f" {unit}", desc=title, initial=done, disable=hidden, leave=False, dynamic_ncols=True,
        smoothing=0.1,
    )  # fmt: skip


def over_batches(batches: Sequence[list[T]], unit: str) -> Iterator[list[T]]:
    """Yields batches and shows a progress bar that counts their items."""
    with bar(sum(map(len, batches)), unit) as shown:
        for batch in batches:
            yield batch
            shown.update(len(batch))
