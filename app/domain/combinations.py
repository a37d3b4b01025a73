"""All that can be drawn from a finite search space, conditions included."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from app.domain.families import Scalar
from app.domain.space import Categorical, Float, Int, is_active, resolution_order
from app.domain.study import StudyDefinition

MOST_COUNTED = 10_000
"""A space with more combinations than this is taken for endless: drawing finds new ones."""


def combinations(definition: StudyDefinition) -> Iterator[dict[str, Scalar]]:
    """Every combination of searched values, parents before children; nothing where a parameter is continuous."""
    searched = definition.searched
    if any(isinstance(parameter, Float) and parameter.step is None for parameter in searched.values()):
        return
    order = resolution_order(searched, definition.fixed)
    yield from _completed(searched, order, dict(definition.fixed))


def combination_count(definition: StudyDefinition) -> int | None:
    """How many combinations there are; None where they are endless, or more than `MOST_COUNTED`."""
    count = sum(1 for _ in islice(combinations(definition), MOST_COUNTED + 1))
    return count if 0 < count <= MOST_COUNTED else None


def _completed(
    searched: dict[str, Float | Int | Categorical], order: list[str], values: dict[str, Scalar], at: int = 0
) -> Iterator[dict[str, Scalar]]:
    """The ways to draw what is left of `order` beside `values`, which is restored after each."""
    if at == len(order):
        yield {name: values[name] for name in order if name in values}
        return
    name = order[at]
    parameter = searched[name]
    if not is_active(parameter, values):
        yield from _completed(searched, order, values, at + 1)
        return
    for value in _values(parameter):
        values[name] = value
        yield from _completed(searched, order, values, at + 1)
        del values[name]


def _values(parameter: Float | Int | Categorical) -> Iterator[Scalar]:
    if isinstance(parameter, Categorical):
        yield from parameter.choices
    elif isinstance(parameter, Int):
        yield from range(parameter.low, parameter.high + 1, parameter.step)
    else:
        step = parameter.step or parameter.high - parameter.low
        for i in range(round((parameter.high - parameter.low) / step) + 1):
            yield min(parameter.low + i * step, parameter.high)
