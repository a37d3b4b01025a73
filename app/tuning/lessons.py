"""What a sampler learns from finished trials, failures included.

Out of memory, non-finite and refused trials say something about their hyperparameters: they are shown as COMPLETE with
a broken constraint and the worst value so far. (Optuna's TPE ignores FAIL: told nothing, 50 of 60 asks landed in a
region that always failed, 26 where it was told by constraint.) LOST and CANCELLED say nothing and are hidden.

A genetic algorithm is shown no failures: they end sooner than other trials and would fill its generations (seen: 33 of
40 asks in the failing half).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Row

from app.domain.trial import BLAMELESS_REASONS, INFEASIBLE_REASONS
from app.domain.warm_start import EarlierTrial
from app.tuning.bound import BoundStorage
from app.tuning.trials import CONSTRAINT_PREFIX, Space, earlier_trial, managed_trial

FAILED_KEY = f"{CONSTRAINT_PREFIX}failed"


class Lessons:
    """Takes finished trials into a bound storage, in the order in which they finished.

    Args:
        required: parameters without which a sampler can't learn from a trial.
        failures: whether the sampler is shown failures.
    """

    def __init__(
        self,
        storage: BoundStorage,
        space: Space,
        directions: Sequence[StudyDirection],
        *,
        required: frozenset[str],
        failures: bool,
    ) -> None:
        self._storage = storage
        self._space = space
        self._directions = directions
        self._required = required
        self._failures = failures
        self._failed: list[FrozenTrial] = []
        self._complete: list[FrozenTrial] = []
        self._worst: list[float] | None = None
        self._constraint_keys: list[str] = []

    def take(self, row: Row[Any]) -> FrozenTrial | None:
        """Take in a finished trial; what happened in it, or None where it says nothing."""
        if row.reason in BLAMELESS_REASONS:
            return None
        trial = managed_trial(row, self._space)
        unknown = trial.state == TrialState.COMPLETE and (
            trial.values is None or any(math.isnan(value) for value in trial.values)
        )
        if unknown:
            trial.state, trial.values = TrialState.FAIL, None
        self._storage.add_finished(trial)
        if not self._required <= trial.params.keys():
            return trial
        if unknown or row.reason in INFEASIBLE_REASONS:
            if self._failures:
                self._take_failure(trial)
        else:
            self._storage.add_lesson(trial)
            if trial.state == TrialState.COMPLETE:
                self._take_complete(trial)
        return trial

    def take_earlier(self, trials: Sequence[EarlierTrial], generation_key: str | None) -> None:
        """Take in trials of earlier studies, before any of this one: their numbers, and ids, are below 0.

        `generation_key` is the attribute by which a genetic algorithm knows its generations: they are of the first.
        """
        for place, earlier in enumerate(trials):
            trial = earlier_trial(earlier, place - len(trials), self._space)
            if any(math.isnan(value) for value in earlier.values) or not self._required <= trial.params.keys():
                continue
            if generation_key is not None:
                trial.system_attrs[generation_key] = 0
            self._storage.add_lesson(trial)
            self._take_complete(trial)

    def _take_complete(self, trial: FrozenTrial) -> None:
        self._complete.append(trial)
        keys = [key for key in trial.system_attrs if key.startswith(CONSTRAINT_PREFIX)]
        worst = self._worse(trial.values)
        if self._failed:
            trial.system_attrs[FAILED_KEY] = 0.0
        if worst == self._worst and (not keys or self._constraint_keys):
            return
        self._worst, self._constraint_keys = worst, self._constraint_keys or keys
        for failed in self._failed:
            self._describe(failed)

    def _take_failure(self, trial: FrozenTrial) -> None:
        if not self._failed:
            # Some samplers want the same constraints of all trials.
            for complete in self._complete:
                complete.system_attrs[FAILED_KEY] = 0.0
        lesson = copy.copy(trial)
        lesson.state = TrialState.COMPLETE
        lesson.intermediate_values = {}
        lesson._system_attrs = dict(trial.system_attrs)
        self._failed.append(lesson)
        self._describe(lesson)
        self._storage.add_lesson(lesson)

    def _describe(self, lesson: FrozenTrial) -> None:
        lesson.values = self._worst or [0.0] * len(self._directions)
        for key in self._constraint_keys:
            lesson.system_attrs[key] = 0.0
        lesson.system_attrs[FAILED_KEY] = 1.0

    def _worse(self, values: Sequence[float]) -> list[float]:
        """The worst finite value of each objective so far, `values` included."""
        before = self._worst or [math.nan] * len(values)
        worst = []
        for old, new, direction in zip(before, values, self._directions, strict=True):
            if not math.isfinite(new):
                worst.append(old)
            elif math.isnan(old):
                worst.append(new)
            else:
                worst.append(min(old, new) if direction == StudyDirection.MAXIMIZE else max(old, new))
        return worst if not any(map(math.isnan, worst)) else self._worst or []
