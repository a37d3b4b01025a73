"""The hyperparameters that a list of layers declares by using them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from app.domain.families.declaration import Hyperparameter, Kind, Scalar
from app.domain.layers.reading import REPEAT, Loc, Node, Placeholder
from app.errors import FieldError

Use = tuple[Loc, Hyperparameter]
"""Where a hyperparameter is used, and what it may be there."""


def declared_by(
    nodes: Sequence[Node], fallbacks: Mapping[str, Scalar] | None = None
) -> tuple[dict[str, Hyperparameter], list[FieldError]]:
    """By name the hyperparameters of a list, and uses that don't go together.

    One that is used several times takes what all of its uses take, and is structural where any of them is. One that
    `when` alone names takes any value of the kind of those. `fallbacks` are the defaults of those that not every trial
    draws.
    """
    found: dict[str, Hyperparameter] = {}
    errors: list[FieldError] = []
    for loc, use in _uses(nodes):
        known = found.get(use.name)
        if known is None:
            found[use.name] = use
            continue
        both = _both(known, use)
        if both is None:
            errors.append(
                FieldError(loc, f"Expected uses of {use.name!r} that have values in common. Received uses that don't.")
            )
        else:
            found[use.name] = both
    for loc, name, values in _conditions(nodes):
        kind = _kind_of(values)
        if name not in found:
            if kind is None:
                errors.append(FieldError(loc, f"Expected values of one kind. Received: {list(values)!r}"))
                continue
            found[name] = Hyperparameter(name, kind, None, "Which layers there are.", structural=True)
        declared = found[name]
        for i, value in enumerate(values):
            problem = declared.problem(value)
            if problem is not None:
                errors.append(FieldError((*loc, i), problem))
        if not declared.structural:
            found[name] = replace(declared, structural=True)
    for name, value in (fallbacks or {}).items():
        if name in found:
            found[name] = replace(found[name], default=value)
    return found, errors


def places_of(nodes: Sequence[Node]) -> dict[str, Loc]:
    """By name the first place where each hyperparameter is used."""
    places: dict[str, Loc] = {}
    for loc, use in _uses(nodes):
        places.setdefault(use.name, loc)
    for loc, name, _ in _conditions(nodes):
        places.setdefault(name, loc)
    return places


def _uses(nodes: Sequence[Node]) -> Iterator[Use]:
    for node in nodes:
        if isinstance(node.repeat, Placeholder) and REPEAT.hyperparameter is not None:
            yield (
                (*node.loc, "repeat"),
                replace(REPEAT.hyperparameter, name=node.repeat.name, description="How often layers are repeated."),
            )
        yield from _options(node)
        yield from _uses(node.nodes)


def _options(node: Node) -> Iterator[Use]:
    if node.kind is None:
        return
    for option in node.kind.options:
        value: Any = node.options.get(option.name)
        declared = option.hyperparameter
        if isinstance(value, Placeholder) and declared is not None:
            text = f"{option.name} of {node.kind.name}."
            yield (*node.loc, option.name), replace(declared, name=value.name, description=text)
    if node.inner is not None:
        yield from _options(node.inner)


def _conditions(nodes: Sequence[Node]) -> Iterator[tuple[Loc, str, tuple[Scalar, ...]]]:
    for node in nodes:
        for name, values in node.when.items():
            yield (*node.loc, "when", name), name, values
        yield from _conditions(node.nodes)


def _both(one: Hyperparameter, other: Hyperparameter) -> Hyperparameter | None:
    """What both uses take; None where that is nothing."""
    low, high = max(one.low, other.low), min(one.high, other.high)
    choices = tuple(choice for choice in one.choices if choice in other.choices)
    numeric = {"int", "float"}
    if one.kind != other.kind and not {one.kind, other.kind} <= numeric:
        return None
    kind: Kind = "int" if "int" in (one.kind, other.kind) else one.kind
    if (kind in numeric and low > high) or (kind == "categorical" and not choices):
        return None
    structural = one.structural or other.structural
    return replace(one, kind=kind, low=low, high=high, choices=choices, structural=structural)


def _kind_of(values: Sequence[Scalar]) -> Kind | None:
    if all(isinstance(v, bool) for v in values):
        return "bool"
    if all(isinstance(v, str) for v in values):
        return "categorical"
    if any(isinstance(v, bool | str) for v in values):
        return None
    return "int" if all(float(v).is_integer() for v in values) else "float"
