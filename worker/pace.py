"""How many trials of a study a worker keeps in flight: in training, sampled and reserved together.

Enough that the trainer never waits for a sampler; no more, since a trial that was sampled early knows less of the
others, and one that waits here could run elsewhere.
"""

from __future__ import annotations

import time
from collections import deque

from app.domain.population import population_of
from app.domain.study import StudyDefinition
from app.tuning.samplers import sampler_learns

AHEAD_S = 2.0
"""What waits is what trains within this time."""
MOST_AHEAD = 3
"""Widths of a stack that wait at most: trials of several signatures, of which each fills a stack."""
BUDGET_SHARE = 4
"""A sampler that learns from trials has at most this part of the study's trials in flight (1 / BUDGET_SHARE)."""
LEAST_IN_FLIGHT = 4
MOST_LEARNING = 64
"""Bounds of that part; each worker may have the least."""
WINDOW_S = 10.0
"""Over how long the pace of a study is measured."""


class Pace:
    """How fast a study's trials end in this worker."""

    def __init__(self) -> None:
        self._ends: deque[tuple[float, int]] = deque()
        self._since = time.monotonic()

    def note(self, ended: int) -> None:
        """Count trials that ended."""
        self._ends.append((time.monotonic(), ended))

    def per_second(self) -> float | None:
        """Trials a second of late; None before the first ended."""
        now = time.monotonic()
        while self._ends and now - self._ends[0][0] > WINDOW_S:
            self._since = self._ends.popleft()[0]
        if not self._ends:
            return None
        return sum(ended for _, ended in self._ends) / max(now - self._since, 1e-3)


def in_flight(definition: StudyDefinition, width: int, per_second: float | None, elsewhere: int = 0) -> int:
    """How many trials of a study to keep in flight, where `width` train together and so many end a second.

    `elsewhere` are those that other workers have in flight: a learning sampler's part is shared with them.
    """
    ahead = width if per_second is None else min(MOST_AHEAD * width, max(1, round(per_second * AHEAD_S)))
    wanted = width + ahead
    if population_of(definition) is not None:
        # A generation is all that there is: what would wait here trains elsewhere.
        wanted = width
    elif sampler_learns(definition):
        trials = definition.budget.trials
        bound = MOST_LEARNING if trials is None else min(MOST_LEARNING, trials // BUDGET_SHARE)
        wanted = min(wanted, max(LEAST_IN_FLIGHT, bound - elsewhere))
    return wanted if definition.max_parallel is None else min(wanted, definition.max_parallel)
