"""How a model family is declared: its hyperparameters, their ranges and defaults, runtime or structural.

A *structural* hyperparameter changes shapes or the graph: another value needs another compiled program. A *runtime* one
is a tensor of a compiled program. The builders of the families live in the worker.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Literal

from app.domain.direction import Direction, maximizes

Scalar = bool | int | float | str
Kind = Literal["float", "int", "categorical", "bool", "any"]
Task = Literal["classification", "regression"]
InputKind = Literal["vector", "image", "text", "audio", "none"]

ACTIVATIONS = ("relu", "tanh", "sigmoid", "elu", "gelu", "swish")
OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop")
SCHEDULES = ("constant", "exponential", "step", "cosine", "polynomial", "inverse_time")

MAX_TEXT = 255
"""Characters of a hyperparameter of the kind "any"."""


@dataclass(frozen=True, slots=True)
class Hyperparameter:
    """One hyperparameter that a family declares. Bounds are inclusive; `default` None means that it must be given.

    A categorical without `choices` may have any text for a value.
    """

    name: str
    kind: Kind
    default: Scalar | None
    description: str
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[Scalar, ...] = ()
    structural: bool = False

    def problem(self, value: object) -> str | None:
        """Why `value` is not allowed, in words, or None where it is."""
        if self.kind == "any":
            return self._problem_of_any(value)
        if self.kind == "categorical":
            if isinstance(value, str) and (value in self.choices or not self.choices):
                return None
            return f"Expected one of {', '.join(map(str, self.choices))}. Received: {value!r}"
        if self.kind == "bool":
            return None if isinstance(value, bool) else f"Expected true or false. Received: {value!r}"
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"Expected {'a whole number' if self.kind == 'int' else 'a number'}. Received: {value!r}"
        if self.kind == "int" and isinstance(value, float) and not value.is_integer():
            return f"Expected a whole number. Received: {value!r}"
        if not self.low <= value <= self.high:  # NaN is not, either
            return f"Expected a number from {self.low:g} to {self.high:g}. Received: {value!r}"
        return None

    def _problem_of_any(self, value: object) -> str | None:
        if isinstance(value, str) and len(value) > MAX_TEXT:
            return f"Expected at most {MAX_TEXT} characters. Received: {len(value)}"
        if isinstance(value, bool | str | int) or (isinstance(value, float) and math.isfinite(value)):
            return None
        return f"Expected a finite number, text, true or false. Received: {value!r}"


@dataclass(frozen=True, slots=True)
class FamilyMetric:
    """A metric of a family's own, reported by epoch as `name` and `val_name`."""

    name: str
    direction: Direction
    description: str = ""


@dataclass(frozen=True)
class Family:
    """A model family: its name and version, what it trains on, and its declared hyperparameters.

    `stack_members` is how many trials of one signature train together at most, `first_members` how many do before their
    program has been measured, `stackable` whether they can at all.
    `metrics` are those that it reports beside the task's. `from_layers` says that a definition's list of layers
    declares more hyperparameters: see `Families.of`.
    `pattern` declares any number of hyperparameters whose names match it (`x0`, `x1`, … of `function`).
    `trained_here` is False where outside programs train, and report whatever metrics they like.
    """

    name: str
    version: str
    description: str
    hyperparameters: tuple[Hyperparameter, ...]
    needs_dataset: bool = True
    tasks: tuple[Task, ...] = ("classification", "regression")
    input_kind: InputKind = "vector"
    stackable: bool = True
    stack_members: int = 1
    first_members: int = 1
    trained_here: bool = True
    pattern: Hyperparameter | None = None
    metrics: tuple[FamilyMetric, ...] = ()
    from_layers: bool = False
    by_name: dict[str, Hyperparameter] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {h.name: h for h in self.hyperparameters})

    @property
    def gains(self) -> tuple[str, ...]:
        """The names of its own metrics of which more is better, in training and in validation."""
        return tuple(n for m in self.metrics if maximizes(m.direction) for n in (m.name, f"val_{m.name}"))

    def declared(self, name: str) -> Hyperparameter | None:
        """The declaration of the hyperparameter `name`, or None where the family has none of that name."""
        if name in self.by_name:
            return self.by_name[name]
        if self.pattern is not None and re.fullmatch(self.pattern.name, name):
            return self.pattern
        return None

    def defaults(self) -> dict[str, Scalar]:
        """The default of every declared hyperparameter that has one."""
        return {h.name: h.default for h in self.hyperparameters if h.default is not None}


def float_parameter(name: str, default: float, low: float, high: float, text: str) -> Hyperparameter:
    """A runtime number from `low` to `high`."""
    return Hyperparameter(name, "float", default, text, low=low, high=high)


def int_parameter(
    name: str, default: int, low: int, high: int, text: str, *, structural: bool = True
) -> Hyperparameter:
    """A whole number from `low` to `high`."""
    return Hyperparameter(name, "int", default, text, low=low, high=high, structural=structural)


def choice(name: str, default: str, choices: tuple[str, ...], text: str, *, structural: bool) -> Hyperparameter:
    """One of `choices`."""
    return Hyperparameter(name, "categorical", default, text, choices=choices, structural=structural)


def flag(name: str, text: str) -> Hyperparameter:
    """Something structural that is off by default."""
    return Hyperparameter(name, "bool", False, text, structural=True)
