"""The bench of sampling quality: how it runs trials in flight, and how it corrects p-values."""

from __future__ import annotations

import pytest

from bench.analytic import search
from bench.quality import compare, holm, is_met, overall


class Bowl:
    """A problem whose regret is the distance from 0."""

    def regret(self, point: list[float]) -> float:
        return abs(point[0])


class Counter:
    """A searcher that proposes 9, 8, 7, … and notes what happens."""

    def __init__(self) -> None:
        self.asked = 0
        self.told: list[int] = []
        self.most = 0

    def ask(self, count: int) -> list[int]:
        self.asked += count
        self.most = max(self.most, self.asked - len(self.told))
        return list(range(self.asked - count, self.asked))

    def point(self, asked: int) -> list[float]:
        return [float(9 - asked)]

    def tell(self, asked: int, value: float) -> None:
        assert value == abs(9 - asked)
        self.told.append(asked)


@pytest.mark.parametrize(("in_flight", "together"), [(1, 1), (4, 1), (4, 4), (40, 1)])
def test_trials_finish_in_order_with_no_more_in_flight_than_said(in_flight: int, together: int) -> None:
    searcher = Counter()
    curve = search(Bowl(), searcher, 12, in_flight, together)  # type: ignore[arg-type]
    assert searcher.told == list(range(12))
    assert searcher.most == min(in_flight, 12)
    assert curve == [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0, 0.0, 0.0]


def test_holms_correction() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@pytest.mark.parametrize(("factor", "met"), [(0.5, True), (1.05, True), (2.0, False)])
def test_the_goal_is_missed_where_regret_is_clearly_beyond_the_margin(factor: float, met: bool) -> None:
    from bench.analytic import FUNCTIONS
    from bench.quality import OURS, RANDOM, THEIRS, Curves

    curves: Curves = {
        way: {f: {seed: [9.0, scale * (seed + 1 + 0.01 * f)] for seed in range(20)} for f in FUNCTIONS}
        for way, scale in ((OURS, factor), (THEIRS, 1.0), (RANDOM, 5.0))
    }
    found = compare(curves, OURS, THEIRS)
    assert overall(found) == pytest.approx((factor, factor))
    assert is_met(found) is met
