"""How much computing a request may cause: counted in steps, so that what is refused is refused on every machine.

A step is about a value, a condition or a layer that is looked at, in a few microseconds at most. Whoever computes in
proportion to what was sent spends them as it goes. A meter also tells work that nobody waits for any more to end.
"""

from __future__ import annotations

import math

from app.errors import FieldError, TooExpensive

MOST_STEPS = 1_000_000
"""Of one definition and all that is checked with it: a second or two at worst."""
MOST_ERRORS = 200
"""Problems of one kind that are looked for: an answer tells fewer, and each may be told in many words."""

Loc = tuple[str | int, ...]


class Abandoned(Exception):
    """Whoever wanted the result has left."""


class Meter:
    """The steps that one request may still take. It is spent on one thread; `abandon` may come from any other."""

    def __init__(self, steps: float = MOST_STEPS) -> None:
        self._allowed = steps
        self._spent = 0
        self._is_abandoned = False

    @property
    def spent(self) -> int:
        """The steps so far."""
        return self._spent

    def spend(self, steps: int, loc: Loc = ()) -> None:
        """Count what is about to be done for the place `loc` of a definition.

        Raises:
            TooExpensive: it is more than is allowed in all.
            Abandoned: nobody waits for the result.
        """
        if self._is_abandoned:
            raise Abandoned
        self._spent += steps
        if self._spent > self._allowed:
            message = (
                f"Expected a definition that is checked in {self._allowed:,} steps. Received one that is too expensive "
                "to check: it needs fewer layers, conditions or choices"
            )
            raise TooExpensive(f"{'.'.join(map(str, loc))}: {message}", errors=[FieldError(loc, message)])

    def abandon(self) -> None:
        """Let the work end at its next step."""
        self._is_abandoned = True


def unmetered() -> Meter:
    """A meter for work that no request causes: a worker's, on a definition that was accepted."""
    return Meter(math.inf)
