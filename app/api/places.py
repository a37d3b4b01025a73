"""How many streams are open in this process: in all, and for each caller."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import TooManyRequests

RETRY_AFTER_S = 5


class StreamPlaces:
    """Places for open streams. All methods belong to one event loop."""

    def __init__(self, total: int, of_one: int) -> None:
        self._total = total
        self._of_one = of_one
        self._taken: Counter[str] = Counter()
        self._count = 0

    @property
    def taken(self) -> int:
        """Places that are taken now."""
        return self._count

    @contextmanager
    def held(self, who: str | None) -> Iterator[None]:
        """A place for the length of the block; None for `who` counts among all alone.

        Raises:
            TooManyRequests: there is none.
        """
        if self._count >= self._total:
            raise TooManyRequests(
                f"Expected at most {self._total:,} open streams of this process. Received one more.",
                retry_after_s=RETRY_AFTER_S,
            )
        if who is not None and self._taken[who] >= self._of_one:
            raise TooManyRequests(
                f"Expected at most {self._of_one:,} open streams of one caller. Received one more: close another, or "
                "follow all studies at once with GET /v1/events.",
                retry_after_s=RETRY_AFTER_S,
            )
        self._count += 1
        if who is not None:
            self._taken[who] += 1
        try:
            yield
        finally:
            self._count -= 1
            if who is not None:
                self._taken[who] -= 1
                if not self._taken[who]:
                    del self._taken[who]
