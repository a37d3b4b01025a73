"""Pruning by non-domination: what it stops, against a count of dominating trials done by hand."""

from __future__ import annotations

import math
import random

import pytest
from optuna.study import StudyDirection

from app.tuning.pareto import FrontPruner

LOW, HIGH = StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE


def pruner(*directions: StudyDirection, **options: float) -> FrontPruner:
    given = {"n_startup_trials": 0, "n_warmup_steps": 0, "interval_steps": 1, "n_min_trials": 1}
    return FrontPruner(directions, **({**given, "dominated_share": 0.25} | options))  # type: ignore[arg-type]


def dominates(one: tuple[float, ...], other: tuple[float, ...], directions: tuple[StudyDirection, ...]) -> bool:
    pairs = [(a, b) if d is LOW else (b, a) for a, b, d in zip(one, other, directions, strict=True)]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


@pytest.mark.parametrize("directions", [(LOW, LOW), (LOW, HIGH), (HIGH, LOW, HIGH)])
def test_a_trial_is_stopped_where_more_than_the_share_dominate_it(directions: tuple[StudyDirection, ...]) -> None:
    draws = random.Random(len(directions))
    ours = pruner(*directions)
    seen: list[tuple[float, ...]] = []
    stopped = 0
    for _ in range(200):
        values = tuple(float(draws.randint(0, 9)) for _ in directions)
        if seen:
            share = sum(dominates(other, values, directions) for other in seen) / len(seen)
            assert ours.prune(0, values) == (share > 0.25)
            stopped += share > 0.25
        seen.append(values)
        ours.add({0: values})
    assert 20 < stopped < 180


def test_a_trial_on_the_front_is_never_stopped() -> None:
    ours = pruner(LOW, HIGH, dominated_share=0.0)
    for i in range(20):
        ours.add({0: (float(i), float(i))})
    assert not ours.prune(0, (-1.0, -5.0))
    assert not ours.prune(0, (3.0, 3.0))
    assert ours.prune(0, (3.0, 2.5))


def test_it_waits_as_its_options_say() -> None:
    ours = pruner(LOW, LOW, n_startup_trials=2, n_warmup_steps=1, interval_steps=2, n_min_trials=2)
    bad = (9.0, 9.0)
    ours.add(dict.fromkeys(range(6), (0.0, 0.0)))
    assert not ours.prune(1, bad)
    ours.add(dict.fromkeys(range(4), (1.0, 1.0)))
    assert [ours.prune(step, bad) for step in range(7)] == [False, True, False, True, False, False, False]


def test_what_is_no_number_is_the_worst() -> None:
    ours = pruner(HIGH, LOW)
    ours.add({0: (0.0, 0.0)})
    assert ours.prune(0, (math.nan, 0.0))
    assert not ours.prune(0, (math.nan, -1.0))
    ours.add({1: (math.nan, math.nan)})
    assert not ours.prune(1, (math.nan, math.nan))
