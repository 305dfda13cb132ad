"""Progress bars on stderr, shown on a terminal only."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def bar(total: int, unit: str) -> tqdm:
    """Creates a progress bar."""
    return tqdm(total=total, unit=f" {unit}", disable=None, leave=False, dynamic_ncols=True, smoothing=0.1)


def over_batches(batches: Sequence[list[T]], unit: str) -> Iterator[list[T]]:
    """Yields batches and shows a progress bar that counts their items."""
    with bar(sum(map(len, batches)), unit) as shown:
        for batch in batches:
            yield batch
            shown.update(len(batch))
