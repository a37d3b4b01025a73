"""Whether a definition's hyperparameters, fixed and searched, are those that its family allows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from app.domain.effort import MOST_ERRORS
from app.domain.families import DIMENSIONS, FUNCTION, Family, Hyperparameter, Scalar
from app.domain.size import largest
from app.domain.space import (
    Categorical,
    Float,
    Int,
    SpaceError,
    distinct,
    is_active,
    resolution_order,
    same_value,
)
from app.domain.study import StudyDefinition
from app.errors import FieldError

HYPERPARAMETERS = "hyperparameters"
SCHEDULE_PARAMETERS = {
    "decay_rate": ("exponential", "step", "inverse_time"),
    "decay_epochs": ("exponential", "step", "inverse_time"),
    "final_fraction": ("cosine", "polynomial"),
    "power": ("polynomial",),
}
"""The learning-rate schedules that read each of their hyperparameters."""
OPTIMIZER_PARAMETERS = {"momentum": ("sgd", "rmsprop"), "nesterov": ("sgd",)}
"""The optimizers that read each of their hyperparameters."""
MOST_NAMED = 100
"""Names that a message lists."""


def check_hyperparameters(given: StudyDefinition, filled: StudyDefinition, family: Family) -> list[FieldError]:
    """Everything wrong with the hyperparameters that were `given`; `filled` has the family's defaults too."""
    single = (e for name, value in given.hyperparameters.items() for e in _check_one(family, name, value))
    errors = list(islice(single, MOST_ERRORS))
    if family is FUNCTION:
        errors += _check_coordinates(filled)
    errors += _check_warmup(filled)
    known = {n: p for n, p in filled.searched.items() if family.declared(n) is not None}
    try:
        resolution_order(known, filled.fixed)
    except SpaceError as error:
        errors.append(FieldError((HYPERPARAMETERS, *error.loc), str(error)))
    return errors


def _check_one(family: Family, name: str, value: Float | Int | Categorical | Scalar) -> Iterator[FieldError]:
    declared = family.declared(name)
    if declared is None:
        known = [h.name for h in family.hyperparameters] + (["x0, x1, …"] if family is FUNCTION else [])
        yield FieldError((HYPERPARAMETERS, name), f"Expected one of {_listed(known)}. Received: {name!r}")
        return
    if not isinstance(value, Float | Int | Categorical):
        problem = declared.problem(value)
        if problem is not None:
            yield FieldError((HYPERPARAMETERS, name), problem)
        return
    if isinstance(value, Categorical):
        for i, choice in enumerate(value.choices):
            problem = declared.problem(choice)
            if problem is not None:
                yield FieldError((HYPERPARAMETERS, name, "choices", i), problem)
        return
    if declared.kind != "any":
        yield from _check_range(declared, name, value)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_NAMED]) + (", …" if len(names) > MOST_NAMED else "")


def _check_range(declared: Hyperparameter, name: str, value: Float | Int) -> Iterator[FieldError]:
    if declared.kind in {"categorical", "bool"}:
        yield FieldError(
            (HYPERPARAMETERS, name, "type"), f"Expected a categorical search of {name}. Received: {value.type!r}"
        )
        return
    if declared.kind == "int" and isinstance(value, Float):
        yield FieldError(
            (HYPERPARAMETERS, name, "type"),
            f"Expected an int or categorical search of {name}, a whole number. Received: 'float'",
        )
        return
    for bound, number in (("low", value.low), ("high", value.high)):
        problem = declared.problem(number)
        if problem is not None:
            yield FieldError((HYPERPARAMETERS, name, bound), problem)


def _check_warmup(definition: StudyDefinition) -> Iterator[FieldError]:
    warmup, epochs = definition.hyperparameters.get("warmup_epochs"), definition.training.epochs
    if warmup is None or isinstance(warmup, str) or largest(warmup) < epochs:
        return
    loc: tuple[str, ...] = (HYPERPARAMETERS, "warmup_epochs")
    if isinstance(warmup, Float | Int):
        loc = (*loc, "high")
    elif isinstance(warmup, Categorical):
        loc = (*loc, "choices")
    yield FieldError(loc, f"Expected fewer than training.epochs = {epochs}. Received: {largest(warmup):g}")


def _check_coordinates(definition: StudyDefinition) -> Iterator[FieldError]:
    """The coordinates of closed-form functions: x0, x1, … without a gap, as many as each possible function takes."""
    given = {n for n in definition.hyperparameters if n[:1] == "x" and n[1:].isdigit()}
    expected = [f"x{i}" for i in range(len(given))]
    missing = [n for n in expected if n not in given]
    if not given or missing:
        yield FieldError(
            (HYPERPARAMETERS, missing[0] if missing else "x0"),
            f"Expected coordinates x0, x1, … without a gap. Received: {_listed(sorted(given)) or 'none'}",
        )
        return
    searched = definition.searched
    for function in _choices(definition.hyperparameters.get("function")):
        dimensions = DIMENSIONS.get(str(function))
        if dimensions is None:
            continue
        present = [n for n in expected if _is_drawn(searched.get(n), str(function))]
        if present != [f"x{i}" for i in range(dimensions)]:
            yield FieldError(
                (HYPERPARAMETERS, "function"),
                f"Expected the coordinates x0 to x{dimensions - 1} for {function}. "
                f"Received: {_listed(present) or 'none'}",
            )


def _choices(value: Float | Int | Categorical | Scalar | None) -> list[Scalar]:
    if isinstance(value, Categorical):
        return list(value.choices)
    return [] if value is None or isinstance(value, Float | Int) else [value]


def _is_drawn(parameter: Float | Int | Categorical | None, function: str) -> bool:
    """Whether every trial of `function` has the coordinate: its only condition may be on the function."""
    return parameter is None or is_active(parameter, {"function": function})


def unused_hyperparameters(given: StudyDefinition, family: Family) -> Iterator[str]:
    """Warnings about hyperparameters that were given another value than their default and that no trial reads."""
    for selector, readers in (("lr_schedule", SCHEDULE_PARAMETERS), ("optimizer", OPTIMIZER_PARAMETERS)):
        defaults = family.defaults()
        possible = _choices(given.hyperparameters.get(selector, defaults.get(selector)))
        for name, read_by in readers.items():
            if name not in given.hyperparameters or given.hyperparameters[name] == defaults.get(name):
                continue
            if not any(choice in read_by for choice in possible):
                yield f"{name} is given, but no trial reads it: {selector} is never {' or '.join(read_by)}."


def check_enqueued(
    definition: StudyDefinition, values: Mapping[str, Scalar]
) -> tuple[dict[str, Scalar], list[FieldError]]:
    """The values of an enqueued trial in their declared types, and everything wrong with them.

    Each must be one that the study may draw; what is left out is drawn by the sampler.
    """
    searched, fixed = definition.searched, definition.fixed
    known = _listed(sorted(searched)) or "none"
    errors: list[FieldError] = []
    accepted: dict[str, Scalar] = {}
    for name, value in values.items():
        loc = (HYPERPARAMETERS, name)
        if name in fixed:
            if not same_value(fixed[name], value):
                errors.append(FieldError(loc, f"Expected {fixed[name]!r}, which the study fixes. Received: {value!r}"))
        elif name not in searched:
            errors.append(FieldError(loc, f"Expected one of {known}. Received: {name!r}"))
        elif not searched[name].contains(value):
            errors.append(FieldError(loc, f"Expected {in_words(searched[name])}. Received: {value!r}"))
        else:
            accepted[name] = _as_drawn(searched[name], value)
        if len(errors) == MOST_ERRORS:
            return accepted, errors
    if not errors:
        errors += _inactive(definition, accepted)
    return accepted, errors


def in_words(parameter: Float | Int | Categorical) -> str:
    """The values of a searched parameter, in words."""
    if isinstance(parameter, Categorical):
        return f"one of {_listed([repr(choice) for choice in parameter.choices])}"
    kind = "a whole number" if isinstance(parameter, Int) else "a number"
    step = f" in steps of {parameter.step:g}" if parameter.step not in (None, 1) else ""
    return f"{kind} from {parameter.low:g} to {parameter.high:g}{step}"


def _as_drawn(parameter: Float | Int | Categorical, value: Scalar) -> Scalar:
    if isinstance(parameter, Categorical):
        return parameter.choices[parameter.index(value)]
    return float(value) if isinstance(parameter, Float) else int(value)


def _inactive(definition: StudyDefinition, values: Mapping[str, Scalar]) -> Iterator[FieldError]:
    """Values of parameters that can't be drawn beside the other values; a parent left out may still take any."""
    known, searched = {**definition.fixed, **values}, definition.searched
    for name in values:
        for parent, allowed in searched[name].conditions.items():
            if parent in known and distinct(known[parent]) not in allowed:
                words = _listed([repr(value) for value in searched[name].when[parent]])
                yield FieldError(
                    (HYPERPARAMETERS, name),
                    f"Expected no value while {parent} is {known[parent]!r}: it is drawn only where {parent} is one of "
                    f"{words}.",
                )
