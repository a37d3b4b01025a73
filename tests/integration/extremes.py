"""Studies at the ends of what may be searched and told: what importances, plots and reports must bear."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Trials = list[dict[str, Any]]

X = {"type": "float", "low": -1.0, "high": 1.0}
ONE = [{"metric": "loss"}]
TWO = [{"metric": "loss"}, {"metric": "gain", "direction": "maximize"}]
THREE = [*TWO, {"metric": "size"}]
MARKUP = '<b>x</b><br><a href="http://evil.example">y</a> &lt; $\\alpha$ %{meta.study} "q"'
ODD_TEXTS = [MARKUP, "y" * 254 + "1", "y" * 254 + "2", "2026-01-01", "1e5", "\u202e\U0001f600", "a\nb\tc"]


@dataclass(frozen=True)
class Case:
    """A study's space and trials; `drawn` are the parts that must show something, for others a reason is enough."""

    name: str
    space: Mapping[str, Any]
    trials: Trials
    objectives: Sequence[Mapping[str, Any]] = field(default_factory=lambda: list(ONE))
    drawn: frozenset[str] = frozenset()

    def definition(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "model": {"family": "external"},
            "hyperparameters": dict(self.space),
            "objectives": list(self.objectives),
            "budget": {"trials": 100_000},
        }


def told(points: Sequence[Mapping[str, Any]], values: Sequence[float | Sequence[float]], **changes: Any) -> Trials:
    """COMPLETE trials at these points with these values."""
    return [
        {"sampled": dict(point), "values": list(value) if isinstance(value, Sequence) else [value], **changes}
        for point, value in zip(points, values, strict=True)
    ]


def spread(count: int, **ranges: Callable[[random.Random], Any]) -> list[dict[str, Any]]:
    """Points whose coordinates are drawn by these functions."""
    chance = random.Random(0)
    return [{name: draw(chance) for name, draw in ranges.items()} for _ in range(count)]


def logarithmic(low: float, high: float) -> Callable[[random.Random], float]:
    return lambda chance: min(max(math.exp(chance.uniform(math.log(low), math.log(high))), low), high)


def rising(count: int) -> list[float]:
    return [float(i) for i in range(count)]


VALUES_OF_ALL_SIZES = [
    1e308,
    -1e308,
    1.7976931348623157e308,
    -1.7976931348623157e308,
    0.0,
    -0.0,
    5e-324,
    1e-310,
    1.0,
    2.0,
]
EVERY = frozenset({"history", "edf", "slice", "parallel", "timeline"})


def _spaces() -> list[Case]:
    """Ranges, steps and choices."""
    unit: Callable[[random.Random], float] = lambda chance: chance.random()  # noqa: E731
    spaces: list[tuple[str, dict[str, Any], list[dict[str, Any]]]] = [
        (
            "huge-range",
            {"x": {"type": "float", "low": 0.0, "high": 1e300}, "y": {"type": "float", "low": 0.0, "high": 1.0}},
            spread(30, x=lambda c: c.uniform(0.0, 1e300), y=unit),
        ),
        (
            "widest-range",
            {"x": {"type": "float", "low": -8e307, "high": 8e307}, "y": X},
            spread(30, x=lambda c: c.uniform(-1.0, 1.0) * 8e307, y=unit),
        ),
        (
            "tiny-log",
            {
                "eps": {"type": "float", "low": 1e-320, "high": 1e-300, "log": True},
                "lr": {"type": "float", "low": 0.001, "high": 0.0010000000001, "log": True},
            },
            spread(30, eps=logarithmic(1e-320, 1e-300), lr=lambda c: c.uniform(0.001, 0.0010000000001)),
        ),
        (
            "whole-log",
            {"x": {"type": "float", "low": 5e-324, "high": 1.7e308, "log": True}, "y": X},
            spread(30, x=logarithmic(5e-324, 1.7e308), y=unit),
        ),
        (
            "subnormal",
            {
                "x": {"type": "float", "low": 0.0, "high": 1e-321},
                "y": {"type": "float", "low": 1.0, "high": 1.0000000000000002},
            },
            spread(
                30, x=lambda c: c.choice([0.0, 5e-324, 1e-323, 1e-321]), y=lambda c: c.choice([1.0, 1.0000000000000002])
            ),
        ),
        (
            "big-integers",
            {
                "k": {"type": "int", "low": -(2**53), "high": 2**53},
                "n": {"type": "int", "low": 1, "high": 2**53, "log": True},
                "seed": {"type": "categorical", "choices": [2**63 - 1, 2**63 - 2, 1 - 2**63, 2**53 + 1, 2**53]},
            },
            spread(
                30,
                k=lambda c: c.randint(-(2**53), 2**53),
                n=lambda c: int(logarithmic(1, 2**53)(c)),
                seed=lambda c: c.choice([2**63 - 1, 2**63 - 2, 1 - 2**63, 2**53 + 1, 2**53]),
            ),
        ),
        (
            "steps",
            {
                "x": {"type": "float", "low": 0.1, "high": 0.5, "step": 0.1},
                "n": {"type": "int", "low": 0, "high": 100, "step": 25},
                "m": {"type": "int", "low": 0, "high": 2**52, "step": 2**51},
            },
            spread(
                30,
                x=lambda c: c.choice([0.1, 0.2, 0.30000000000000004, 0.4, 0.5]),
                n=lambda c: c.randrange(0, 101, 25),
                m=lambda c: c.choice([0, 2**51, 2**52]),
            ),
        ),
        (
            "mixed-choices",
            {"p": {"type": "categorical", "choices": [True, "1", 1.5, "true", False, "None", ""]}, "q": X},
            spread(30, p=lambda c: c.choice([True, "1", 1.5, "true", False, "None", ""]), q=unit),
        ),
        (
            "one-and-true",
            {"p": {"type": "categorical", "choices": [True, 1, "1", 0, False]}, "q": X},
            spread(30, p=lambda c: c.choice([True, 1, "1", 0, False]), q=unit),
        ),
        (
            "ordered",
            {"p": {"type": "categorical", "choices": [1e-300, 1, 1e300], "ordered": True}, "q": X},
            spread(30, p=lambda c: c.choice([1e-300, 1, 1e300]), q=unit),
        ),
        (
            "negative-zero",
            {
                "x": {"type": "categorical", "choices": [0.0, 1.0]},
                "y": {"type": "float", "low": -0.5, "high": 0.5, "step": 0.25},
            },
            spread(30, x=lambda c: c.choice([-0.0, 0.0, 1.0]), y=lambda c: c.choice([-0.5, -0.0, 0.0, 0.5])),
        ),
        (
            "names",
            {
                "value": X, "number": X, "state": X, "values.loss": X, "a" * 128: X, "a" * 127 + "b": X,
                "choice": {"type": "categorical", "choices": ODD_TEXTS},
            },
            spread(
                30, value=unit, number=unit, state=unit, choice=lambda c: c.choice(ODD_TEXTS),
                **{"values.loss": unit, "a" * 128: unit, "a" * 127 + "b": unit},
            ),
        ),
        (
            "hundreds",
            {f"x{i}": X for i in range(200)},
            [{f"x{i}": random.Random(i * 1000 + j).uniform(-1, 1) for i in range(200)} for j in range(40)],
        ),
        (
            "many-choices",
            {f"c{i}": {"type": "categorical", "choices": list(range(1000))} for i in range(4)},
            spread(40, **{f"c{i}": lambda c: c.randrange(1000) for i in range(4)}),
        ),
    ]  # fmt: skip
    return [Case(name, space, told(points, rising(len(points))), drawn=EVERY) for name, space, points in spaces]


def _conditional() -> list[Case]:
    choice = {"type": "categorical", "choices": ["a", "b"]}
    space = {"kind": choice, "x": X | {"when": {"kind": ["a"]}}, "y": X | {"when": {"kind": ["b"]}}}
    chance = random.Random(0)
    points: list[dict[str, Any]] = [
        {"kind": "a", "x": chance.uniform(-1, 1)} if i % 2 else {"kind": "b", "y": chance.uniform(-1, 1)}
        for i in range(30)
    ]
    only_a = [{"kind": "a", "x": chance.uniform(-1, 1)} for _ in range(30)]
    return [
        Case("conditional", space, told(points, rising(30)), drawn=EVERY),
        Case("never-drawn", space, told(only_a, rising(30)), drawn=EVERY),
        Case(
            "undeclared", {"x": X}, told([{"x": 5.0 + i} for i in range(30)], rising(30)), drawn=frozenset({"history"})
        ),
    ]


def _values() -> list[Case]:
    """Values of objectives, and how trials end."""
    space = {"x": X, "y": X}
    points = spread(30, x=lambda c: c.uniform(-1, 1), y=lambda c: c.uniform(-1, 1))
    cycled = [VALUES_OF_ALL_SIZES[i % len(VALUES_OF_ALL_SIZES)] for i in range(30)]
    broken = [math.nan if i % 3 == 0 else math.inf if i % 3 == 1 else -math.inf for i in range(30)]
    some = [math.inf if i % 5 == 0 else float(i) for i in range(30)]
    close = [1.0 + i * 2.220446049250313e-16 for i in range(30)]
    failed = [{"sampled": p, "state": "FAIL", "reason": "EXCEPTION", "error": ("E", MARKUP)} for p in points]
    pruned = [{"sampled": p, "state": "PRUNED", "curve": [1e308, -1e308, "NaN"]} for p in points]
    curved = told(points, cycled)
    for i, trial in enumerate(curved):
        trial["curve"] = [(cycled[i], "Infinity", "NaN")[k % 3] for k in range(5)]
    return [
        Case("none", space, []),
        Case("one", space, told(points[:1], [1.0]), drawn=EVERY),
        Case("one-huge", space, told(points[:1], [1.7e308]), drawn=EVERY),
        Case("two", space, told(points[:2], [1.0, 2.0]), drawn=EVERY | {"contour"}),
        Case("equal", space, told(points, [0.25] * 30), drawn=EVERY | {"contour"}),
        Case("equal-huge", space, told(points, [-1.7e308] * 30), drawn=EVERY | {"contour"}),
        Case("same-point", space, told([points[0]] * 30, rising(30)), drawn=EVERY | {"contour"}),
        Case("all-sizes", space, told(points, cycled), drawn=EVERY | {"contour"}),
        Case("subnormal-values", space, told(points, [i * 5e-324 for i in range(30)]), drawn=EVERY | {"contour"}),
        Case("close-values", space, told(points, close), drawn=EVERY | {"contour"}),
        Case("no-finite-value", space, told(points, broken), drawn=frozenset({"timeline"})),
        Case("some-infinite", space, told(points, some), drawn=EVERY | {"contour"}),
        Case("curves", space, curved, drawn=EVERY | {"intermediate"}),
        Case("all-failed", space, failed, drawn=frozenset({"timeline"})),
        Case("all-pruned", space, pruned, drawn=frozenset({"timeline", "intermediate"})),
        Case("all-infeasible", space, told(points, rising(30), violations=[1.0]), drawn=EVERY | {"contour"}),
        Case("nothing-searched", {"x": 0.5}, told([{}] * 30, rising(30)), drawn=frozenset({"history"})),
        Case(
            "one-choice",
            {"x": {"type": "categorical", "choices": ["a"]}},
            told([{"x": "a"}] * 30, rising(30)),
            drawn=EVERY,
        ),
        Case("several", space, told(points, list(zip(cycled, reversed(cycled), strict=True))), TWO, EVERY | {"pareto"}),
        Case(
            "three",
            space,
            told(points, [(float(i), -float(i), 1e308 * (i % 3 - 1)) for i in range(30)]),
            THREE,
            frozenset({"pareto"}),
        ),
        Case(
            "no-front",
            space,
            told(points, [(float(i), math.inf if i == 3 else 1.0) for i in range(30)], violations=["Infinity"]),
            TWO,
            frozenset({"pareto"}),
        ),
        Case("several-none", space, [], TWO),
    ]


CASES = [*_spaces(), *_conditional(), *_values()]
