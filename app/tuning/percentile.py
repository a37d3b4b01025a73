"""Optuna's percentile pruner at a cost that doesn't grow with the number of finished trials."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

from optuna.pruners import PercentilePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial


class StepValues:
    """The values that COMPLETE trials reported, by step: sorted, NaN counted apart."""

    def __init__(self) -> None:
        self.trials = 0
        self._sorted: dict[int, list[float]] = {}
        self._nan: dict[int, int] = {}

    def add(self, trial: FrozenTrial) -> None:
        """Count a trial that has become COMPLETE."""
        self.trials += 1
        for step, value in trial.intermediate_values.items():
            if math.isnan(value):
                self._nan[step] = self._nan.get(step, 0) + 1
            else:
                bisect.insort(self._sorted.setdefault(step, []), value)

    def at(self, step: int) -> tuple[Sequence[float], int]:
        """The values at `step` without NaN, ascending, and how many there are with NaN."""
        values = self._sorted.get(step, [])
        return values, len(values) + self._nan.get(step, 0)


def percentile(ascending: Sequence[float], share: float) -> float:
    """The percentile `share` in 0..100 of sorted values, interpolated as `numpy.percentile` does by default."""
    position = share / 100 * (len(ascending) - 1)
    below = math.floor(position)
    low, high = ascending[below], ascending[min(below + 1, len(ascending) - 1)]
    weight = position - below
    return low + (high - low) * weight if weight < 0.5 else high - (high - low) * (1 - weight)


class StepwisePercentilePruner(PercentilePruner):
    """Prunes as Optuna's `PercentilePruner` does, from values that the view of the study keeps sorted by step."""

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the best value of `trial` so far is among the worst at its last step. Raises nothing."""
        finished = getattr(study._storage, "step_values", None)
        if not isinstance(finished, StepValues):
            return super().prune(study, trial)
        step = trial.last_step
        if step is None or finished.trials == 0 or finished.trials < self._n_startup_trials:
            return False
        if step < self._n_warmup_steps or not self._checks(step, trial):
            return False
        maximize = study.direction == StudyDirection.MAXIMIZE
        reported = [value for value in trial.intermediate_values.values() if not math.isnan(value)]
        if not reported:
            return True
        values, count = finished.at(step)
        if count < self._n_min_trials or not values:
            return False
        threshold = percentile(values, 100 - self._percentile if maximize else self._percentile)
        return max(reported) < threshold if maximize else min(reported) > threshold

    def _checks(self, step: int, trial: FrozenTrial) -> bool:
        """Whether `step` is the trial's first one in its interval of checks."""
        if self._interval_steps == 1:
            return True
        first = (step - self._n_warmup_steps) // self._interval_steps * self._interval_steps + self._n_warmup_steps
        return not any(first <= other < step for other in trial.intermediate_values)
