"""Which trials a figure shows where it can't show all of them: a page must open in bounded time at any size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

from optuna.trial import FrozenTrial, TrialState

from app.tuning.trials import CONSTRAINT_PREFIX

T = TypeVar("T")


def evenly(items: Sequence[T], most: int) -> list[T]:
    """Up to `most` of the items, evenly over all of them, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    if most == 1:
        return [items[-1]]
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def with_steps(trials: Sequence[FrozenTrial], most: int, *, maximize: bool) -> list[FrozenTrial]:
    """Trials evenly, and all that were the best so far when they came: the line of the best stays exact.

    `trials` are COMPLETE ones of one objective, by number.
    """
    steps, best = [], -math.inf
    for trial in trials:
        value = trial.values[0] * (1 if maximize else -1)
        if value > best and is_feasible(trial):
            best = value
            steps.append(trial)
    return _union(steps, evenly(trials, most))


def is_feasible(trial: FrozenTrial) -> bool:
    """Whether the trial keeps all constraints (Optuna: positive is broken)."""
    attributes = trial.system_attrs.items()
    return not any(key.startswith(CONSTRAINT_PREFIX) and amount > 0 for key, amount in attributes)


def curves(trials: Sequence[FrozenTrial], most: int, *, maximize: bool) -> list[FrozenTrial]:
    """Trials with reports: the better half of `most`, and as many evenly over the others."""
    reported = [trial for trial in trials if trial.intermediate_values]
    if len(reported) <= most:
        return reported
    complete = [trial for trial in reported if trial.state == TrialState.COMPLETE]
    ranked = sorted(complete, key=lambda trial: trial.values[0] * (-1 if maximize else 1))
    best = ranked[: most // 2]
    chosen = {trial.number for trial in best}
    return _union(best, evenly([trial for trial in reported if trial.number not in chosen], most - len(best)))


def _union(one: Sequence[FrozenTrial], other: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    by_number = {trial.number: trial for trial in [*one, *other]}
    return [by_number[number] for number in sorted(by_number)]
