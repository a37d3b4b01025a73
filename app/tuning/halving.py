"""Optuna's successive halving and Hyperband at a cost that doesn't grow with the number of finished trials.

They decide as Optuna's do (Li et al., "Massively parallel hyperparameter tuning", 2018, and "Hyperband", 2016); the
values of finished trials at each rung come sorted from the view of the study instead of out of a walk over all trials
at each report.
"""

from __future__ import annotations

import binascii
import bisect
import math
from collections.abc import Iterable
from typing import Any, Protocol

from optuna.pruners import BasePruner, HyperbandPruner, PatientPruner, SuccessiveHalvingPruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from app.tuning.trials import RUNG_PREFIX


class Brackets(Protocol):
    """Tells in which bracket a trial competes."""

    def bracket(self, number: int) -> int:
        """The bracket of the trial `number`, from 0."""


class RungValues:
    """The values that finished trials had at their rungs, ascending, by bracket and rung."""

    def __init__(self, brackets: Brackets) -> None:
        self.brackets = brackets
        self._ascending: dict[tuple[int, str], list[float]] = {}

    def add(self, trial: FrozenTrial) -> None:
        """Take in a trial that has finished."""
        for key, value in trial.system_attrs.items():
            if key.startswith(RUNG_PREFIX):
                bisect.insort(self._ascending.setdefault((self.brackets.bracket(trial.number), key), []), value)

    def competing(self, bracket: int, rung: str, running: Iterable[FrozenTrial], value: float) -> list[float]:
        """All values at a rung with those of running trials and one more `value`, ascending."""
        values = list(self._ascending.get((bracket, rung), ()))
        for trial in running:
            if rung in trial.system_attrs and self.brackets.bracket(trial.number) == bracket:
                bisect.insort(values, trial.system_attrs[rung])
        bisect.insort(values, value)
        return values


class SuccessiveHalving(SuccessiveHalvingPruner):
    """Optuna's `SuccessiveHalvingPruner` with the rungs of the view."""

    def bracket(self, number: int) -> int:  # noqa: ARG002 - all trials compete with one another
        return 0

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether `trial` stays behind at a rung that it has reached."""
        rungs = rungs_of(study)
        if rungs is None or self._min_resource is None:
            return super().prune(study, trial)
        return _stays_behind(
            study,
            trial,
            rungs,
            bracket=0,
            first_step=self._min_resource * self._reduction_factor**self._min_early_stopping_rate,
            reduction_factor=self._reduction_factor,
            bootstrap_count=self._bootstrap_count,
        )


class Hyperband(HyperbandPruner):
    """Optuna's `HyperbandPruner` with the rungs of the view.

    Args:
        study_name: by which, with their numbers, trials are spread over the brackets.
        max_resource: epochs of a trial that runs to its end.
    """

    def __init__(self, study_name: str, *, min_resource: int, max_resource: int, **options: Any) -> None:
        super().__init__(min_resource, max_resource, **options)
        self._study_name = study_name
        self._n_brackets = math.floor(math.log(max_resource / min_resource, self._reduction_factor)) + 1
        self._shares = [self._calculate_trial_allocation_budget(i) for i in range(self._n_brackets)]

    def bracket(self, number: int) -> int:
        place = binascii.crc32(f"{self._study_name}_{number}".encode()) % sum(self._shares)
        for bracket, share in enumerate(self._shares):
            place -= share
            if place < 0:
                return bracket
        raise AssertionError("a remainder is below the sum of the shares")

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether `trial` stays behind at a rung of its bracket that it has reached."""
        rungs = rungs_of(study)
        if rungs is None:
            return super().prune(study, trial)
        bracket = self.bracket(trial.number)
        return _stays_behind(
            study,
            trial,
            rungs,
            bracket=bracket,
            first_step=self._min_resource * self._reduction_factor**bracket,
            reduction_factor=self._reduction_factor,
            bootstrap_count=self._bootstrap_count,
        )


def brackets_of(pruner: BasePruner | None) -> Brackets | None:
    """The halving pruner that a study's pruner is or asks, or None."""
    while isinstance(pruner, PatientPruner):
        pruner = pruner._wrapped_pruner
    return pruner if isinstance(pruner, SuccessiveHalving | Hyperband) else None


def rungs_of(study: Study) -> RungValues | None:
    """The rungs that the study's storage keeps, if it does."""
    rungs = getattr(study._storage, "rung_values", None)
    return rungs if isinstance(rungs, RungValues) else None


def _stays_behind(
    study: Study,
    trial: FrozenTrial,
    rungs: RungValues,
    *,
    bracket: int,
    first_step: int,
    reduction_factor: int,
    bootstrap_count: int,
) -> bool:
    step = trial.last_step
    if step is None:
        return False
    value = trial.intermediate_values[step]
    rung = 0
    while f"{RUNG_PREFIX}{rung}" in trial.system_attrs:
        rung += 1
    while step >= first_step * reduction_factor**rung:
        if math.isnan(value):
            return True
        key = f"{RUNG_PREFIX}{rung}"
        running = [other for other in study._storage.held.values() if other.number != trial.number]  # type: ignore[attr-defined]
        ascending = rungs.competing(bracket, key, running, value)
        study._storage.set_trial_system_attr(trial._trial_id, key, value)
        if len(ascending) <= bootstrap_count:
            return True
        # Nothing is resumed later: of the first few trials the best one goes on.
        promoted = max(len(ascending) // reduction_factor, 1)
        if study.direction == StudyDirection.MAXIMIZE:
            if value < ascending[-promoted]:
                return True
        elif value > ascending[promoted - 1]:
            return True
        rung += 1
    return False
