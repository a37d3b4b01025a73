"""All that can be drawn from a finite search space, conditions included."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from app.domain.effort import Meter, unmetered
from app.domain.families import Scalar
from app.domain.space import Categorical, Float, Int, axis_size, axis_value, is_active, resolution_order
from app.domain.study import StudyDefinition

MOST_COUNTED = 10_000
"""A space with more combinations than this is taken for endless: drawing finds new ones."""


def combinations(definition: StudyDefinition) -> Iterator[dict[str, Scalar]]:
    """Every combination of searched values, parents before children; nothing where a parameter is continuous."""
    searched = definition.searched
    if any(isinstance(parameter, Float) and parameter.step is None for parameter in searched.values()):
        return
    order = resolution_order(searched, definition.fixed)
    values = dict(definition.fixed)
    for _ in _completed(searched, order, values):
        yield {name: values[name] for name in order if name in values}


def combination_count(definition: StudyDefinition, meter: Meter | None = None) -> int | None:
    """How many combinations there are; None where they are endless, or more than `MOST_COUNTED`.

    Parents are gone through value by value; what hangs on them, and what hangs on nothing, multiplies.

    Raises:
        TooExpensive: it takes more steps than the `meter` allows.
    """
    meter = meter or unmetered()
    searched = definition.searched
    if any(isinstance(parameter, Float) and parameter.step is None for parameter in searched.values()):
        return None
    parents = {parent for parameter in searched.values() for parent in parameter.when}
    sizes = {name: axis_size(parameter) for name, parameter in searched.items()}
    free = prod(sizes[name] for name, p in searched.items() if name not in parents and not p.when)
    hanging = [(p, sizes[name]) for name, p in searched.items() if name not in parents and p.when and sizes[name] > 1]
    each = 1 + sum(1 + len(parameter.when) for parameter, _ in hanging)
    order = [name for name in resolution_order(searched, definition.fixed) if name in parents]
    count = 0
    values = dict(definition.fixed)
    for _ in _completed(searched, order, values):
        meter.spend(each + len(order), ("hyperparameters",))
        count += free * prod(size for parameter, size in hanging if is_active(parameter, values))
        if count > MOST_COUNTED:
            return None
    return count


def _completed(
    searched: dict[str, Float | Int | Categorical], order: list[str], values: dict[str, Scalar], at: int = 0
) -> Iterator[None]:
    """Each way to draw what is left of `order`, in `values`, which is restored after the last."""
    if at == len(order):
        yield
        return
    name = order[at]
    parameter = searched[name]
    if not is_active(parameter, values):
        yield from _completed(searched, order, values, at + 1)
        return
    for index in range(axis_size(parameter)):
        values[name] = axis_value(parameter, index)
        yield from _completed(searched, order, values, at + 1)
        del values[name]
