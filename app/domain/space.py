"""The search space: parameters that are searched, and the conditions under which they are drawn."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, FailFast, Field, StrictBool, StrictInt, StrictStr, model_validator
from pydantic_core import PydanticCustomError

from app.domain.families import Scalar

FiniteFloat = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Value = StrictBool | StrictInt | FiniteFloat | StrictStr
# The first bad value of a list is told, not all: each would be told in the words of four types.
Conditions = dict[str, Annotated[list[Value], FailFast(), Field(min_length=1)]]


def _refusal(field: str, message: str) -> PydanticCustomError:
    """An error about one field of a parameter: its path goes on to that field."""
    return PydanticCustomError("range", "{message}", {"message": message, "field": field})


def same_value(a: Scalar, b: Scalar) -> bool:
    """Whether two values are the same; True is not 1."""
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def distinct(value: Scalar) -> tuple[Scalar, bool]:
    """What equal values have in common, as a key of sets: True is not 1."""
    return value, isinstance(value, bool)


class _Parameter(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    when: Conditions = Field(default={}, description="Drawn only where each named parent has one of the listed values.")

    @cached_property
    def conditions(self) -> dict[str, frozenset[tuple[Scalar, bool]]]:
        """By parent the values under which it is drawn, as `distinct` tells them apart."""
        return {parent: frozenset(map(distinct, values)) for parent, values in self.when.items()}


class Float(_Parameter):
    """A number from `low` to `high`, both included, on a linear, stepped or logarithmic scale."""

    type: Literal["float"] = "float"
    low: FiniteFloat
    high: FiniteFloat
    step: FiniteFloat | None = None
    log: StrictBool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_range(self.low, self.high, self.step, self.log)
        return self

    def contains(self, value: Scalar) -> bool:
        """Whether `value` may come out of this parameter."""
        if isinstance(value, bool | str) or not self.low <= value <= self.high:
            return False
        steps = 0.0 if self.step is None else (value - self.low) / self.step
        return abs(steps - round(steps)) <= 1e-8 * max(1.0, steps)


class Int(_Parameter):
    """A whole number from `low` to `high`, both included, on a linear, stepped or logarithmic scale."""

    type: Literal["int"] = "int"
    low: StrictInt
    high: StrictInt
    step: StrictInt = 1
    log: StrictBool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if max(abs(self.low), abs(self.high)) > 2**53:
            field = "low" if abs(self.low) > abs(self.high) else "high"
            raise _refusal(
                field, f"Expected bounds between -2**53 and 2**53. Received: low={self.low}, high={self.high}"
            )
        if self.log and self.low < 1:
            raise _refusal("low", f"Expected low >= 1 with log. Received: low={self.low}")
        _check_range(self.low, self.high, self.step, self.log, step_default=1)
        return self

    def contains(self, value: Scalar) -> bool:
        """Whether `value` may come out of this parameter."""
        if isinstance(value, bool | str) or not float(value).is_integer():
            return False
        return self.low <= value <= self.high and (int(value) - self.low) % self.step == 0


class Categorical(_Parameter):
    """One of `choices`. Their order means nothing to a sampler unless they are `ordered`: then neighbours are alike."""

    type: Literal["categorical"] = "categorical"
    choices: Annotated[list[Value], FailFast(), Field(min_length=1, max_length=1000)]
    ordered: StrictBool = Field(
        default=False, description="Searched as the index of the choice, in the order listed, instead of as a label."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        seen = set()
        for choice in self.choices:
            if (choice, isinstance(choice, bool)) in seen:
                raise _refusal("choices", f"Expected choices that differ. Received {choice!r} twice")
            seen.add((choice, isinstance(choice, bool)))
        return self

    @cached_property
    def places(self) -> dict[tuple[Scalar, bool], int]:
        """The place of each choice, as `distinct` tells them apart."""
        return {distinct(choice): place for place, choice in enumerate(self.choices)}

    def contains(self, value: Scalar) -> bool:
        """Whether `value` is one of the choices."""
        return distinct(value) in self.places

    def index(self, value: Scalar) -> int:
        """The place of `value` among the choices.

        Raises:
            ValueError: it is none of them.
        """
        place = self.places.get(distinct(value))
        if place is None:
            raise ValueError(f"Expected one of {', '.join(map(repr, self.choices))}. Received: {value!r}")
        return place


Parameter = Annotated[Float | Int | Categorical, Field(discriminator="type")]


def _check_range(low: float, high: float, step: float | None, log: bool, step_default: float | None = None) -> None:
    if low >= high:
        raise _refusal("low", f"Expected low < high. Received: low={low!r}, high={high!r}")
    if not math.isfinite(high - low):
        raise _refusal("high", f"Expected a finite width high - low. Received: low={low!r}, high={high!r}")
    if log and low <= 0:
        raise _refusal("low", f"Expected low > 0 with log. Received: low={low!r}")
    if step is None or step == step_default:
        return
    if log:
        raise _refusal("step", f"Expected no step with log. Received: step={step!r}")
    if step <= 0:
        raise _refusal("step", f"Expected step > 0. Received: step={step!r}")
    steps = (high - low) / step
    if not math.isfinite(steps) or abs(steps - round(steps)) > 1e-8 * max(1.0, steps) or round(steps) < 1:
        raise _refusal("step", f"Expected a step that divides high - low = {high - low!r}. Received: step={step!r}")


class SpaceError(ValueError):
    """A space whose conditions don't hold together; `loc` is the path below `hyperparameters`."""

    def __init__(self, loc: tuple[str, ...], message: str) -> None:
        super().__init__(message)
        self.loc = loc


def resolution_order(parameters: dict[str, Float | Int | Categorical], fixed: dict[str, Scalar]) -> list[str]:
    """The names of the searched parameters, parents before children, then by name.

    Raises:
        SpaceError: a parent that is unknown, lists a value it can't have, or a circle.
    """
    allowed: dict[str, set[tuple[Scalar, bool]]] = {}
    for name, parameter in parameters.items():
        for parent, values in parameter.when.items():
            if parent not in parameters and parent not in fixed:
                known = ", ".join(sorted([*parameters, *fixed])) or "none"
                raise SpaceError((name, "when", parent), f"Expected a parent among: {known}. Received: {parent!r}")
            if parent not in allowed:
                allowed[parent] = _listed(parameters.get(parent), fixed.get(parent))
            for value in values:
                above = parameters.get(parent)
                listed = distinct(value) in allowed[parent]
                if not listed and (above is None or isinstance(above, Categorical) or not above.contains(value)):
                    raise SpaceError((name, "when", parent), f"{parent!r} never has the value {value!r}")
    return _parents_first(parameters, fixed)


def _parents_first(parameters: dict[str, Float | Int | Categorical], fixed: dict[str, Scalar]) -> list[str]:
    """Of those whose parents have all come, always the first by name (Kahn 1962)."""
    children: dict[str, list[str]] = {}
    missing: dict[str, int] = {}
    for name, parameter in parameters.items():
        above = [parent for parent in parameter.when if parent not in fixed]
        missing[name] = len(above)
        for parent in above:
            children.setdefault(parent, []).append(name)
    ready = [name for name, count in missing.items() if count == 0]
    heapq.heapify(ready)
    order: list[str] = []
    while ready:
        name = heapq.heappop(ready)
        order.append(name)
        for child in children.get(name, ()):
            missing[child] -= 1
            if missing[child] == 0:
                heapq.heappush(ready, child)
    left = sorted(parameters.keys() - set(order))
    if left:
        raise SpaceError(
            (left[0], "when"), f"Expected conditions without a circle. Received one among: {', '.join(left)}"
        )
    return order


def _listed(parent: Float | Int | Categorical | None, fixed: Scalar | None) -> set[tuple[Scalar, bool]]:
    """The values of a parent that can be listed, as `distinct` tells them apart."""
    if isinstance(parent, Categorical):
        return set(parent.places)
    return {distinct(fixed)} if parent is None and fixed is not None else set()


def is_active(parameter: Float | Int | Categorical, values: Mapping[str, Scalar]) -> bool:
    """Whether the conditions of `parameter` hold under `values`; a parent that was not drawn has none."""
    return all(
        parent in values and distinct(values[parent]) in allowed for parent, allowed in parameter.conditions.items()
    )


def axis_size(parameter: Float | Int | Categorical) -> int:
    """How many values the parameter can take on a grid: every step of a range, logarithmic or not, or every choice."""
    if isinstance(parameter, Categorical):
        return len(parameter.choices)
    if isinstance(parameter, Int):
        return (parameter.high - parameter.low) // parameter.step + 1
    if parameter.step is None:
        raise ValueError(f"Expected a parameter with a step. Received: {parameter!r}")
    return round((parameter.high - parameter.low) / parameter.step) + 1


def axis_value(parameter: Float | Int | Categorical, index: int) -> Scalar:
    """The value at `index` in 0..axis_size-1."""
    if isinstance(parameter, Categorical):
        return parameter.choices[index]
    if isinstance(parameter, Int):
        return parameter.low + index * parameter.step
    return min(parameter.low + index * (parameter.step or 0.0), parameter.high)
