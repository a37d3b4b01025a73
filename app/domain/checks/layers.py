"""Whether a definition's list of layers can be built, and how large its largest model is: before any worker sees it."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from app.domain.datasets import Dataset
from app.domain.effort import Meter
from app.domain.families.catalogue import RESERVED
from app.domain.families.declaration import Scalar
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
OUTLINING_STEPS = 200_000
"""No more of them are begun beyond this: large lists are outlined at fewer corners. Half a second."""
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


def size_problems(definition: StudyDefinition, dataset: Dataset, max_parameters: int, meter: Meter) -> list[FieldError]:
    """What is wrong with the sizes of the models in the space; `definition` is without other problems."""
    nodes = read(definition.model.layers or ()).nodes
    shape = (dataset.features,) if definition.model.input == "vector" else dataset.shape
    try:
        found = extremes(nodes, definition.hyperparameters, shape, dataset.outputs, meter)
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
    meter: Meter,
) -> Extremes:
    """The extremes of the models at the corners of the space: `CORNERS` of them at most, of large lists fewer.

    Raises:
        TooMany: a model has more layers than are allowed.
        TooExpensive: the first of them takes more steps than the `meter` allows.
    """
    names = set(places_of(nodes))
    parents = {
        parent for p in hyperparameters.values() if isinstance(p, Float | Int | Categorical) for parent in p.when
    }
    parameters = {name: p for name, p in hyperparameters.items() if name in names or name in parents}
    each = len(parameters) + sum(len(p.when) for p in parameters.values() if isinstance(p, Float | Int | Categorical))
    outlines: list[Outline] = []
    impossible: Impossible | None = None
    before = meter.spent
    for values in itertools.islice(_corners(parameters), CORNERS):
        meter.spend(each, LAYERS)
        try:
            layers = expanded(nodes, values, meter)
            meter.spend(len(layers), LAYERS)
            outlines.append(outlined(layers, shape, outputs))
        except Impossible as error:
            impossible = impossible or error
        if meter.spent - before > OUTLINING_STEPS:
            break
    if not outlines:
        return Extremes(0, 0, impossible)
    return Extremes(max(o.parameters for o in outlines), max(o.activations + o.within for o in outlines), None)


def _corners(parameters: Mapping[str, Float | Int | Categorical | Scalar]) -> Iterator[dict[str, Scalar]]:
    """Hyperparameters at their ends and choices: all combinations where they are few, else the telling ones first."""
    axes = {name: _ends(parameter) for name, parameter in parameters.items()}
    conditional = {n: p for n, p in parameters.items() if isinstance(p, Float | Int | Categorical) and p.when}
    if math.prod(map(len, axes.values())) <= CORNERS:
        combinations: Iterator[tuple[Scalar, ...]] = itertools.product(*axes.values())
    else:
        combinations = _some(list(axes.values()))
    for values in combinations:
        corner = dict(zip(axes, values, strict=True))
        for name, parameter in conditional.items():
            if not is_active(parameter, corner):
                corner[name] = first_value(parameter)
        yield corner


def _some(axes: list[list[Scalar]]) -> Iterator[tuple[Scalar, ...]]:
    """The last of every axis, the first of every axis, then in turns another of one axis beside the last of all.

    Half of `CORNERS` at most are of these; what follows, without end, is drawn at random.
    """
    last = tuple(axis[-1] for axis in axes)
    yield last
    yield tuple(axis[0] for axis in axes)
    yield from itertools.islice(_others(axes, last), CORNERS // 2)
    draw = random.Random(0)
    while True:
        yield tuple(draw.choice(axis) for axis in axes)


def _others(axes: list[list[Scalar]], last: tuple[Scalar, ...]) -> Iterator[tuple[Scalar, ...]]:
    """Every axis' first beside the last of all others, then every axis' second, and so on."""
    for place in range(max(map(len, axes)) - 1):
        for i, axis in enumerate(axes):
            if place < len(axis) - 1:
                yield (*last[:i], axis[place], *last[i + 1 :])


def _ends(parameter: Float | Int | Categorical | Scalar) -> list[Scalar]:
    if isinstance(parameter, Categorical):
        numeric = all(isinstance(c, int | float) for c in parameter.choices)
        return sorted(parameter.choices, key=float) if numeric else list(parameter.choices)
    return [parameter.low, parameter.high] if isinstance(parameter, Float | Int) else [parameter]
