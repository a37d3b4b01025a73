"""Whether a definition's list of layers can be built, and how large its largest model is: before any worker sees it."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from app.domain.datasets import Dataset
from app.domain.families.declaration import Scalar
from app.domain.families.layered import RESERVED
from app.domain.layers import Impossible, Outline, declared_by, expanded, outlined, read
from app.domain.layers.placeholders import places_of
from app.domain.layers.reading import Node, TooMany
from app.domain.registry import first_value
from app.domain.space import Categorical, Float, Int, is_active
from app.domain.study import StudyDefinition
from app.errors import FieldError

LAYERS = ("model", "layers")
CORNERS = 512
"""Models of a space that are outlined at most."""
LARGEST_SAMPLE = 100_000_000
"""Numbers that the layers may keep for one sample."""


def layer_problems(definition: StudyDefinition, *, from_layers: bool) -> list[FieldError]:
    """Everything wrong with the list itself, and with the hyperparameters that it names."""
    model = definition.model
    if not from_layers:
        given = (("layers", model.layers), ("input", model.input))
        return [
            FieldError(("model", name), f"Expected no {name}: {model.family} builds its own model.")
            for name, value in given
            if value is not None
        ]
    if not model.layers:
        return [FieldError(LAYERS, f"Expected a list of at least one layer for {model.family}. Received: none")]
    reading = read(model.layers)
    declared, errors = declared_by(reading.nodes)
    errors = [*reading.errors, *errors]
    for name, place in places_of(reading.nodes).items():
        if name in RESERVED:
            errors.append(FieldError(place, f"Expected another name: {name!r} says how weights are optimised."))
        elif name not in definition.hyperparameters and name in declared:
            errors.append(FieldError(place, f"Expected hyperparameters to have {name!r}. Received none of that name"))
    return errors


@dataclass(frozen=True, slots=True)
class Extremes:
    """The largest of the models that were outlined, and an impossibility of all of them where there is one."""

    parameters: int
    activations: int
    impossible: Impossible | None


def size_problems(definition: StudyDefinition, dataset: Dataset, max_parameters: int) -> list[FieldError]:
    """What is wrong with the sizes of the models in the space; `definition` is without other problems."""
    nodes = read(definition.model.layers or ()).nodes
    shape = (dataset.features,) if definition.model.input == "vector" else dataset.shape
    try:
        found = extremes(nodes, definition.hyperparameters, shape, dataset.outputs)
    except TooMany as error:
        return [FieldError(LAYERS, str(error))]
    if found.impossible is not None:
        return [FieldError(found.impossible.loc, str(found.impossible))]
    if found.parameters > max_parameters:
        return [
            FieldError(
                LAYERS,
                f"Expected at most {max_parameters:,} parameters in the largest model of the space, this service's "
                f"limit. Received: about {found.parameters:,}",
            )
        ]
    if found.activations > LARGEST_SAMPLE:
        return [
            FieldError(
                LAYERS,
                f"Expected layers that keep at most {LARGEST_SAMPLE:,} numbers for a sample. "
                f"Received: about {found.activations:,}",
            )
        ]
    return []


def extremes(
    nodes: tuple[Node, ...],
    hyperparameters: Mapping[str, Float | Int | Categorical | Scalar],
    shape: tuple[int, ...],
    outputs: int,
) -> Extremes:
    """The extremes of the models at the corners of the space, `CORNERS` of them where there are more.

    Raises:
        TooMany: a model has more layers than are allowed.
    """
    names = set(places_of(nodes))
    outlines: list[Outline] = []
    impossible: Impossible | None = None
    for values in _corners({n: p for n, p in hyperparameters.items() if n in names or _is_parent(n, hyperparameters)}):
        try:
            outlines.append(outlined(expanded(nodes, values), shape, outputs))
        except Impossible as error:
            impossible = impossible or error
    if not outlines:
        return Extremes(0, 0, impossible)
    return Extremes(max(o.parameters for o in outlines), max(o.activations for o in outlines), None)


def _is_parent(name: str, hyperparameters: Mapping[str, Float | Int | Categorical | Scalar]) -> bool:
    return any(isinstance(p, Float | Int | Categorical) and name in p.when for p in hyperparameters.values())


def _corners(parameters: Mapping[str, Float | Int | Categorical | Scalar]) -> Iterator[dict[str, Scalar]]:
    """Hyperparameters at their ends and choices, in all combinations or many: the largest of each is among them."""
    axes = {name: _ends(parameter) for name, parameter in parameters.items()}
    if math.prod(map(len, axes.values())) <= CORNERS:
        combinations: Iterator[tuple[Scalar, ...]] = itertools.product(*axes.values())
    else:
        combinations = _some(list(axes.values()))
    for values in combinations:
        corner = dict(zip(axes, values, strict=True))
        for name, parameter in parameters.items():
            if isinstance(parameter, Float | Int | Categorical) and not is_active(parameter, corner):
                corner[name] = first_value(parameter)
        yield corner


def _some(axes: list[list[Scalar]]) -> Iterator[tuple[Scalar, ...]]:
    """The last of every axis, the first of every axis, each axis' others beside the last of all; then at random."""
    last = tuple(axis[-1] for axis in axes)
    yield last
    yield tuple(axis[0] for axis in axes)
    for i, axis in enumerate(axes):
        for value in axis[:-1]:
            yield (*last[:i], value, *last[i + 1 :])
    draw = random.Random(0)
    for _ in range(CORNERS):
        yield tuple(draw.choice(axis) for axis in axes)


def _ends(parameter: Float | Int | Categorical | Scalar) -> list[Scalar]:
    if isinstance(parameter, Categorical):
        numeric = all(isinstance(c, int | float) for c in parameter.choices)
        return sorted(parameter.choices, key=float) if numeric else list(parameter.choices)
    return [parameter.low, parameter.high] if isinstance(parameter, Float | Int) else [parameter]
