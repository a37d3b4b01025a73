"""Which trials a figure shows where it can't show all of them: a page must open in bounded time at any size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from app.tuning.snapshot import SeenTrial, Valued

T = TypeVar("T")


def evenly(items: Sequence[T], most: int) -> list[T]:
    """Up to `most` of the items, evenly over all of them, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    if most == 1:
        return [items[-1]]
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def with_steps(trials: Sequence[Valued], most: int, *, maximize: bool) -> list[Valued]:
    """Up to `most` trials evenly, and up to `most` of those that were the best so far when they came.

    Where these are no more than that, which is so unless nearly every trial improves, the line of the best stays exact;
    the best of all is always there. `trials` are by number.
    """
    steps, best = [], -math.inf
    for trial, value in trials:
        better = value if maximize else -value
        if better > best and trial.feasible:
            best = better
            steps.append((trial, value))
    return _union(evenly(steps, most), evenly(trials, most))


def curves(trials: Sequence[SeenTrial], ranked: Sequence[Valued], most: int) -> list[SeenTrial]:
    """Of trials with reports the better half of `most`, by what is `ranked` from the best on, and others evenly."""
    if len(trials) <= most:
        return list(trials)
    best = [trial for trial, _ in ranked if trial.reported][: most // 2]
    chosen = {trial.number for trial in best}
    others = evenly([trial for trial in trials if trial.number not in chosen], most - len(best))
    return sorted([*best, *others], key=lambda trial: trial.number)


def _union(one: Sequence[Valued], other: Sequence[Valued]) -> list[Valued]:
    by_number = {trial.number: (trial, value) for trial, value in [*one, *other]}
    return [by_number[number] for number in sorted(by_number)]
