"""Definitions that cost most to check, each within the limits on what is sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

MOST_BYTES = 500_000
Definition = dict[str, Any]


def definition(**changes: Any) -> Definition:
    """One for outside programs, which may search what they like."""
    made: Definition = {
        "name": "worst",
        "model": {"family": "external"},
        "objectives": [{"metric": "loss"}],
        "budget": {"trials": 10},
    }
    return made | changes


def layered(layers: list[Any], hyperparameters: Definition, **changes: Any) -> Definition:
    """One of Keras layers on the digits."""
    model = {"family": "keras-layers", "input": "vector", "layers": layers}
    trained = {"dataset": {"name": "digits"}, "objectives": [{"metric": "val_loss"}]}
    return definition(model=model, hyperparameters=hyperparameters, **trained) | changes


def choices(count: int, first: int = 1, **more: Any) -> Definition:
    return {"type": "categorical", "choices": list(range(first, first + count)), **more}


def dense(name: str) -> Definition:
    return {"layer": "Dense", "units": {"hyperparameter": name}}


def many_choices_of_many_axes() -> Definition:
    names = [f"u{i}" for i in range(80)]
    layers = [dense(names[i % 80]) for i in range(250)]
    return layered(layers, {name: choices(1_000) for name in names})


def a_long_list_with_two_hundred_axes() -> Definition:
    names = [f"u{i}" for i in range(200)]
    return layered(
        [dense(names[i % 200]) for i in range(255)], {n: {"type": "int", "low": 1, "high": 8} for n in names}
    )


def layers_with_many_conditions() -> Definition:
    names = [f"k{i}" for i in range(100)]
    layer = {"layer": "Dropout", "rate": 0.1, "when": {name: [0, 1] for name in names}}
    return layered([layer] * 200, {name: choices(2, 0) for name in names})


def layers_with_long_conditions() -> Definition:
    layer = {"layer": "Dense", "units": 8, "when": {"k": list(range(1_000))}}
    return layered([layer] * 90, {"k": choices(1_000, 0)})


def repeated_groups_that_are_left_out() -> Definition:
    absent = {"layer": "Dropout", "rate": 0.1, "when": {f"k{i}": [1] for i in range(150)}}
    group = {"layers": [absent] * 60 + [dense("u")], "repeat": 64}
    return layered([group], {**{f"k{i}": choices(2, 0) for i in range(150)}, "u": choices(300)})


def groups_in_groups() -> Definition:
    inner: list[Any] = [{"layer": "Dropout", "rate": 0.1, "when": {"k": [7]}}] * 200 + [dense("u")]
    for _ in range(7):
        inner = [{"layers": inner, "repeat": 2}]
    return layered(inner, {"k": choices(500, 0), "u": choices(500)})


def conditions_of_every_hyperparameter() -> Definition:
    parents = {f"p{i}": choices(60) for i in range(10)}
    when = {parent: list(range(1, 60)) for parent in parents}
    children = {f"c{i}": {"type": "float", "low": 0.0, "high": 1.0, "when": when} for i in range(180)}
    return definition(hyperparameters={**parents, **children})


def a_chain_of_conditions() -> Definition:
    names = [f"n{200 - i:03d}" for i in range(200)]
    chain = {n: choices(100, when={before: list(range(1, 100))}) for n, before in zip(names[1:], names, strict=False)}
    return definition(hyperparameters={names[0]: choices(100), **chain}, execution={"duplicates": "resample"})


def combinations_that_never_come() -> Definition:
    """Some 8,000 combinations of parents, and 180 hyperparameters that are looked at with each, in vain."""
    parents = {f"a{i:02d}": choices(2) for i in range(12)}
    either = {"x": choices(2, when={"a00": [1]}), "y": choices(1, when={"a00": [2]})}
    both = {f"a{i:02d}": [1, 2] for i in range(12)} | {"x": [1], "y": [1]}
    hanging = {f"z{i:03d}": choices(2, when=both) for i in range(180)}
    return definition(hyperparameters={**parents, **either, **hanging}, execution={"duplicates": "resample"})


def combinations_without_end() -> Definition:
    space = {f"p{i}": {"type": "int", "low": 0, "high": 2**50, "when": {"a": [1]}} for i in range(190)}
    return definition(hyperparameters={"a": choices(2), **space}, execution={"duplicates": "resample"})


def large_fixed_values() -> Definition:
    return definition(hyperparameters={f"fixed{i}": "f" * 250 for i in range(999)} | {"x": choices(1_000)})


def values_that_are_all_wrong() -> Definition:
    made = many_choices_of_many_axes()
    for parameter in made["hyperparameters"].values():
        parameter["choices"] = [-number for number in parameter["choices"]]
    return made


def names_that_nobody_knows() -> Definition:
    """Each is told beside all names that are known."""
    layers = [dense("n" * 50 + f"{i}") for i in range(255)]
    return layered(layers, {"m" * 100 + f"{i}": 1 for i in range(1_000)})


def heads_and_widths() -> Definition:
    space = {"heads": {"type": "int", "low": 1, "high": 16}, "width": {"type": "int", "low": 16, "high": 512}}
    data = {"dataset": {"name": "docstrings"}, "objectives": [{"metric": "val_loss"}]}
    return definition(model={"family": "text-transformer"}, hyperparameters=space, **data)


WORST: dict[str, Callable[[], Definition]] = {
    made.__name__: made
    for made in (
        many_choices_of_many_axes, a_long_list_with_two_hundred_axes, layers_with_many_conditions,
        layers_with_long_conditions, repeated_groups_that_are_left_out, groups_in_groups,
        conditions_of_every_hyperparameter, a_chain_of_conditions, combinations_that_never_come,
        combinations_without_end, large_fixed_values, values_that_are_all_wrong, names_that_nobody_knows,
        heads_and_widths,
    )
}  # fmt: skip


def size_of(made: Definition) -> int:
    """Its bytes as JSON, as small as that gets."""
    return len(json.dumps(made, separators=(",", ":")))
