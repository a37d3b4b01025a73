"""Pruning by non-domination: stops trials whose values many finished ones beat in every objective.

Optuna's pruners know one objective. Here a trial's values at an epoch, one for each objective, are compared with those
that finished trials had at the same epoch. One *dominates* it where it is no worse in any objective and better in one.
A trial on the front of its epoch is dominated by none, and is never stopped; the further behind the front it is, the
more dominate it, whatever the units of the objectives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from optuna.study import StudyDirection

Losses = NDArray[np.float64]
FIRST_ROWS = 16
"""Rows of a step's first array; it doubles when it is full."""


class _Step:
    """The losses that finished trials had at one step: float64 [trials, objectives], with room for more."""

    def __init__(self, objectives: int) -> None:
        self._rows: Losses = np.empty((FIRST_ROWS, objectives))
        self._count = 0

    def add(self, losses: Sequence[float]) -> None:
        if self._count == len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        self._rows[self._count] = losses
        self._count += 1

    @property
    def losses(self) -> Losses:
        return self._rows[: self._count]


class FrontPruner:
    """Stops a trial that more than a share of the finished ones dominate at its epoch.

    Args:
        directions: of the objectives, in order.
        n_startup_trials: COMPLETE trials before which none is stopped.
        n_warmup_steps: epochs before which no trial is stopped.
        interval_steps: epochs between two checks of a trial.
        n_min_trials: COMPLETE trials with values at the epoch.
        dominated_share: in 0..1.
    """

    def __init__(
        self,
        directions: Sequence[StudyDirection],
        *,
        n_startup_trials: int,
        n_warmup_steps: int,
        interval_steps: int,
        n_min_trials: int,
        dominated_share: float,
    ) -> None:
        self._signs = tuple(-1.0 if d == StudyDirection.MAXIMIZE else 1.0 for d in directions)
        self._n_startup_trials = n_startup_trials
        self._n_warmup_steps = n_warmup_steps
        self._interval_steps = interval_steps
        self._n_min_trials = n_min_trials
        self._dominated_share = dominated_share
        self._steps: dict[int, _Step] = {}
        self._trials = 0

    def add(self, curve: dict[int, tuple[float, ...]]) -> None:
        """Take in a feasible trial that has become COMPLETE: its objectives' values by epoch."""
        self._trials += 1
        for step, values in curve.items():
            self._steps.setdefault(step, _Step(len(self._signs))).add(self._losses(values))

    def prune(self, step: int, values: Sequence[float]) -> bool:
        """Whether a trial with these values at `step` falls behind. NaN is as bad as can be."""
        if self._trials < self._n_startup_trials or step < self._n_warmup_steps:
            return False
        if (step - self._n_warmup_steps) % self._interval_steps:
            return False
        finished = self._steps.get(step)
        if finished is None or len(finished.losses) < self._n_min_trials:
            return False
        mine = np.array(self._losses(values))
        others = finished.losses
        dominating = (others <= mine).all(axis=1) & (others < mine).any(axis=1)
        return bool(dominating.mean() > self._dominated_share)

    def _losses(self, values: Sequence[float]) -> tuple[float, ...]:
        return tuple(
            math.inf if math.isnan(value) else sign * value for sign, value in zip(self._signs, values, strict=True)
        )
