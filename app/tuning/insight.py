"""Which of a study's trials are the best with several objectives. Plain Python: no Optuna, no SQL."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Protocol, TypeVar

Direction = Literal["minimize", "maximize"]


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
        if not any(map(math.isnan, loss := _losses(trial.values, directions)))
    ]
    front = set(pareto_front([loss for loss, _ in candidates]))
    return [trial for loss, trial in candidates if loss in front]


def pareto_front(losses: Sequence[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """The distinct points that no other one dominates, ascending; smaller is better in every place.

    Points are visited in lexicographic order: a point can be dominated by earlier ones alone, by those no worse in all
    places but the first (Kung et al., 1975). Of those the best in these places are kept: with two objectives one.
    """
    front: list[tuple[float, ...]] = []
    lowest: list[tuple[float, ...]] = []
    for point in sorted(set(losses)):
        rest = point[1:]
        if not any(_no_worse(low, rest) for low in lowest):
            front.append(point)
            lowest = [*(low for low in lowest if not _no_worse(rest, low)), rest]
    return front


def _no_worse(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True))


def _losses(values: Sequence[float], directions: Sequence[Direction]) -> tuple[float, ...]:
    return tuple(-v if d == "maximize" else v for v, d in zip(values, directions, strict=True))
