"""Conditions of the search space, over spaces that Hypothesis makes up."""

from __future__ import annotations

import random
from itertools import islice
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from app.domain.combinations import MOST_COUNTED, combination_count, combinations
from app.domain.effort import Meter
from app.domain.objective import pareto_front
from app.domain.space import (
    Categorical,
    Float,
    Int,
    Parameter,
    axis_size,
    axis_value,
    is_active,
    resolution_order,
)
from app.domain.study import Budget, ModelSpec, Objective, StudyDefinition
from app.tuning.distributions import distribution
from app.tuning.insight import best_trials
from tests.support.effort import searching

Searched = dict[str, Float | Int | Categorical]


@st.composite
def spaces(draw: st.DrawFn) -> Searched:
    """Categorical parameters of which some hang on others that come before them in some hidden order."""
    names = draw(st.permutations([f"p{i}" for i in range(draw(st.integers(1, 8)))]))
    space: Searched = {}
    for position, name in enumerate(names):
        parents = draw(st.lists(st.sampled_from(names[:position]), unique=True, max_size=2)) if position else []
        when: dict[str, Any] = {parent: [draw(st.sampled_from(["a", "b"]))] for parent in parents}
        space[name] = Categorical(choices=["a", "b", "c"], when=when)
    return space


@given(spaces(), st.randoms(use_true_random=False))
def test_parents_come_first_and_the_order_of_keys_means_nothing(space: Searched, shuffle: random.Random) -> None:
    order = resolution_order(space, {})
    assert sorted(order) == sorted(space)
    assert all(order.index(parent) < order.index(name) for name in space for parent in space[name].when)
    names = list(space)
    shuffle.shuffle(names)
    assert resolution_order({name: space[name] for name in names}, {}) == order


@given(spaces(), st.randoms(use_true_random=False))
def test_a_child_is_active_only_beside_active_parents(space: Searched, draws: random.Random) -> None:
    values: dict[str, Any] = {}
    for name in resolution_order(space, {}):
        if is_active(space[name], values):
            values[name] = draws.choice("abc")
    for name in values:
        assert all(values[parent] in allowed for parent, allowed in space[name].when.items())


@given(st.integers(-50, 50), st.integers(1, 20), st.integers(1, 30))
def test_grid_values_lie_in_the_distribution(low: int, steps: int, step: int) -> None:
    adapter: TypeAdapter[Float | Int | Categorical] = TypeAdapter(Parameter)
    for kind, unit in (("int", 1), ("float", 0.25)):
        parameter = adapter.validate_python(
            {"type": kind, "low": low * unit, "high": (low + steps * step) * unit, "step": step * unit}
        )
        assert axis_size(parameter) == steps + 1
        for index in range(steps + 1):
            value = axis_value(parameter, index)
            assert parameter.contains(value)
            assert distribution(parameter)._contains(distribution(parameter).to_internal_repr(value))


@searching(30)
@given(spaces())
def test_combinations_are_counted_without_making_all_of_them(space: Searched) -> None:
    definition = StudyDefinition(
        name="counted",
        model=ModelSpec(family="external"),
        hyperparameters={**space, "free": Categorical(choices=[1, 2])},
        objectives=[Objective(metric="loss")],
        budget=Budget(trials=1),
    )
    every = [tuple(sorted(values.items())) for values in islice(combinations(definition), MOST_COUNTED + 1)]
    assert len(set(every)) == len(every)
    meter = Meter()
    assert combination_count(definition, meter) == (len(every) if len(every) <= MOST_COUNTED else None)


class Done:
    """A finished trial with values."""

    def __init__(self, *values: float, state: str = "COMPLETE", feasible: bool | None = True) -> None:
        self.values, self.state, self.feasible = values, state, feasible


def test_the_pareto_front_keeps_feasible_complete_trials_that_nothing_dominates() -> None:
    trials = [
        Done(1.0, 5.0),
        Done(2.0, 9.0),
        Done(2.0, 4.0),
        Done(0.0, 99.0, feasible=False),
        Done(0.0, 99.0, state="PRUNED", feasible=None),
        Done(float("nan"), 100.0),
        Done(2.0, 9.0),
    ]
    assert best_trials(trials, ["minimize", "maximize"]) == [trials[0], trials[1], trials[6]]
    assert best_trials(trials, ["maximize", "minimize"]) == [trials[2]]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)), max_size=30))
def test_a_front_is_what_no_other_point_dominates(points: list[tuple[float, ...]]) -> None:
    def dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
        return a != b and all(x <= y for x, y in zip(a, b, strict=True))

    assert pareto_front(points) == sorted({p for p in points if not any(dominates(q, p) for q in points)})
