"""What a worker knows to be tried, and what is left to try: for studies that draw duplicates anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import Row

from app.domain.combinations import MOST_COUNTED, combination_count, combinations
from app.domain.families import Scalar
from app.domain.identity import identity
from app.domain.json import loads
from app.domain.study import StudyDefinition
from app.domain.trial import BLAMELESS_REASONS

REDRAWS = 10
"""How often a trial is drawn anew that was sampled like another one."""


class Tried:
    """The identities of a study's trials as far as a worker has seen them: started, finished, or pooled here.

    Trials that were lost or cancelled are as good as untried.
    """

    def __init__(self, definition: StudyDefinition) -> None:
        self._definition = definition
        self._is_finite = combination_count(definition) is not None
        self._finished: set[str] = set()
        self._held: dict[int, str] = {}
        self._elsewhere: dict[int, str] = {}

    def take(self, row: Row[Any]) -> None:
        """Take in a finished trial."""
        if row.sampled is not None and row.reason not in BLAMELESS_REASONS:
            self._finished.add(identity(loads(row.sampled)))

    def see_running(self, rows: Sequence[Row[Any]]) -> None:
        """Take in which trials run now."""
        known = self._elsewhere
        self._elsewhere = {
            row.id: known.get(row.id) or identity(loads(row.sampled)) for row in rows if row.sampled is not None
        }

    def hold(self, trial_id: int, sampled: Mapping[str, Scalar]) -> None:
        """Note what a trial of this worker drew."""
        self._held[trial_id] = identity(sampled)

    def forget(self, trial_id: int) -> None:
        """Forget a trial that was given back, or that comes back as a finished one."""
        self._held.pop(trial_id, None)

    def has(self, trial_id: int, found: str) -> bool:
        """Whether another trial than this one has the identity."""
        if found in self._finished:
            return True
        return any(
            other == found
            for known in (self._held, self._elsewhere)
            for other_id, other in known.items()
            if other_id != trial_id
        )

    def left(self, trial_id: int, choose: int) -> dict[str, Scalar] | None:
        """Of a finite space one of the combinations that are left, by the number `choose`; None where there is none."""
        if not self._is_finite:
            return None
        every = islice(combinations(self._definition), MOST_COUNTED)
        left = [values for values in every if not self.has(trial_id, identity(values))]
        return left[choose % len(left)] if left else None
