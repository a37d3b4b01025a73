"""Which of a study's trials are the best with several objectives. Plain Python: no Optuna, no SQL."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, TypeVar

from app.domain.direction import Direction, losses
from app.domain.objective import pareto_front


class Finished(Protocol):
    """What is asked of a trial: its state, whether it keeps all constraints, and its objectives' values."""

    @property
    def state(self) -> str: ...
    @property
    def feasible(self) -> bool | None: ...
    @property
    def values(self) -> Sequence[float] | None: ...


F = TypeVar("F", bound=Finished)


def best_trials(trials: Sequence[F], directions: Sequence[Direction]) -> list[F]:
    """The Pareto front: the feasible COMPLETE trials that no other one dominates, in the order given.

    With one objective these are the trials that share the best value. Trials with NaN among their values are left out.
    """
    candidates = [
        (loss, trial)
        for trial in trials
        if trial.state == "COMPLETE" and trial.feasible is not False and trial.values is not None
        if not any(map(math.isnan, loss := losses(trial.values, directions)))
    ]
    front = set(pareto_front([loss for loss, _ in candidates]))
    return [trial for loss, trial in candidates if loss in front]
