"""Reading a list of layers: what it says, everything wrong with it, and the layers of one trial.

An entry is a layer, `{"layer": "Dense", "units": 64}`, or a group of entries, `{"layers": […], "repeat": 2}`. Each
option may be a hyperparameter, `{"hyperparameter": "units"}`. Each entry may have a `repeat`, a whole number or a
hyperparameter, and a `when`: it is there only in trials whose hyperparameters have one of the values.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.domain.effort import Meter, unmetered
from app.domain.families.declaration import Hyperparameter, Scalar
from app.domain.layers.table import LAYERS, RECURRENT, LayerKind, Option
from app.errors import FieldError

Loc = tuple[str | int, ...]

MOST_LAYERS = 256
"""Layers of one trial's model."""
DEEPEST = 8
"""Groups within groups."""
MOST_ENTRIES = 1_024
"""Entries of all lists together."""
MOST_STEPS = 16 * MOST_LAYERS
"""Entries that are looked at for one trial's model, those included that it leaves out."""
MOST_REPEATS = 64
REPEAT = Option("repeat", "int", 1, 0, MOST_REPEATS)
"""How often an entry comes; 0 leaves it out."""
LONGEST_NAME = 63


@dataclass(frozen=True, slots=True)
class Placeholder:
    """A hyperparameter in the place of a value."""

    name: str


Value = Scalar | Placeholder | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """An entry: a layer of a `kind`, or a group of `nodes`. `inner` is the layer that another one runs both ways."""

    loc: Loc
    kind: LayerKind | None
    options: Mapping[str, Value] = field(default_factory=dict)
    inner: Node | None = None
    nodes: tuple[Node, ...] = ()
    repeat: int | Placeholder = 1
    when: Mapping[str, tuple[Scalar, ...]] = field(default_factory=dict)
    _conditions: Mapping[str, frozenset[tuple[Scalar, bool]]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Looked up for each model of a space, and each time that the entry is repeated.
        conditions = {name: frozenset((v, isinstance(v, bool)) for v in values) for name, values in self.when.items()}
        object.__setattr__(self, "_conditions", conditions)

    def is_there(self, values: Mapping[str, Any]) -> bool:
        """Whether a trial with these hyperparameters has the entry; True is not 1."""
        return all(
            (values[name], isinstance(values[name], bool)) in allowed for name, allowed in self._conditions.items()
        )


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of one trial's model: every option with its value."""

    loc: Loc
    kind: LayerKind
    options: Mapping[str, Any]
    inner: Layer | None = None


@dataclass(slots=True)
class Reading:
    """What was read, and everything wrong with it."""

    nodes: tuple[Node, ...] = ()
    errors: list[FieldError] = field(default_factory=list)
    entries: int = 0

    def refuse(self, loc: Loc, message: str) -> None:
        """Note a problem."""
        self.errors.append(FieldError(loc, message))


def read(layers: Sequence[Any], loc: Loc = ("model", "layers")) -> Reading:
    """The entries of a list, and all problems of it with their places."""
    reading = Reading()
    reading.nodes = tuple(_entries(layers, loc, reading, 0))
    return reading


def expanded(nodes: Sequence[Node], values: Mapping[str, Any], meter: Meter | None = None) -> list[Layer]:
    """The layers of a trial with these hyperparameters, in order. `meter` counts the entries and their conditions.

    Raises:
        KeyError: a hyperparameter has no value.
        TooMany: there are more than `MOST_LAYERS`, or more than `MOST_STEPS` to look at.
    """
    found: list[Layer] = []
    _expand(nodes, values, found, itertools.count(1), meter or unmetered())
    return found


class TooMany(Exception):
    """A trial's model has more layers than `MOST_LAYERS`, or its list takes more than `MOST_STEPS` to be read."""


def _expand(
    nodes: Sequence[Node], values: Mapping[str, Any], found: list[Layer], steps: Iterator[int], meter: Meter
) -> None:
    for node in nodes:
        if next(steps) > MOST_STEPS:
            raise TooMany(f"Expected at most {MOST_STEPS:,} entries, each as often as it comes. Received more")
        meter.spend(1 + len(node.when), node.loc)
        if not node.is_there(values):
            continue
        times = values[node.repeat.name] if isinstance(node.repeat, Placeholder) else node.repeat
        for _ in range(int(times)):
            if node.kind is None:
                before = len(found)
                _expand(node.nodes, values, found, steps, meter)
                if len(found) == before:
                    break  # a group that gives nothing gives nothing again
            else:
                found.append(_layer(node, node.kind, values))
            if len(found) > MOST_LAYERS:
                raise TooMany(f"Expected at most {MOST_LAYERS} layers in a model. Received more")


def _layer(node: Node, kind: LayerKind, values: Mapping[str, Any]) -> Layer:
    options: dict[str, Any] = {option.name: option.default for option in kind.options if option.kind != "layer"}
    for name, value in node.options.items():
        options[name] = values[value.name] if isinstance(value, Placeholder) else value
    for option in kind.options:
        chosen = options.get(option.name)
        if option.kind == "pair" and chosen is not None:
            options[option.name] = chosen if isinstance(chosen, tuple) else (int(chosen), int(chosen))
        elif option.kind == "int" and chosen is not None:
            options[option.name] = int(chosen)
    inner = node.inner
    return Layer(
        node.loc, kind, options, None if inner is None or inner.kind is None else _layer(inner, inner.kind, values)
    )


def _entries(layers: Sequence[Any], loc: Loc, reading: Reading, depth: int) -> Iterator[Node]:
    if len(layers) > MOST_LAYERS:
        reading.refuse(loc, f"Expected at most {MOST_LAYERS} entries. Received: {len(layers)}")
        return
    reading.entries += len(layers)
    if reading.entries > MOST_ENTRIES:
        reading.refuse(loc, f"Expected at most {MOST_ENTRIES:,} entries in all lists together. Received more")
        return
    for i, entry in enumerate(layers):
        node = _entry(entry, (*loc, i), reading, depth)
        if node is not None:
            yield node


def _entry(entry: Any, loc: Loc, reading: Reading, depth: int) -> Node | None:
    if not isinstance(entry, Mapping) or ("layer" in entry) == ("layers" in entry):
        reading.refuse(loc, 'Expected an object with "layer", or one with "layers". Received: ' + _shown(entry))
        return None
    rest = dict(entry)
    repeat = _repeat(rest.pop("repeat", 1), (*loc, "repeat"), reading)
    when = _when(rest.pop("when", {}), (*loc, "when"), reading)
    if "layers" in entry:
        inner = rest.pop("layers")
        for name in rest:
            reading.refuse((*loc, name), f"Expected one of layers, repeat, when. Received: {name!r}")
        if not isinstance(inner, list) or not inner:
            reading.refuse((*loc, "layers"), f"Expected a list of at least one layer. Received: {_shown(inner)}")
            return None
        if depth >= DEEPEST:
            reading.refuse((*loc, "layers"), f"Expected groups at most {DEEPEST} deep. Received deeper ones")
            return None
        return Node(
            loc, None, nodes=tuple(_entries(inner, (*loc, "layers"), reading, depth + 1)), repeat=repeat, when=when
        )
    node = _named(rest, loc, reading, LAYERS)
    if node is None:
        return None
    return Node(loc, node.kind, node.options, node.inner, (), repeat, when)


def _named(rest: Mapping[str, Any], loc: Loc, reading: Reading, known: Mapping[str, LayerKind]) -> Node | None:
    """A layer by its name, with its options."""
    name = rest.get("layer")
    kind = known.get(name) if isinstance(name, str) else None
    if kind is None:
        reading.refuse((*loc, "layer"), f"Expected one of {', '.join(known)}. Received: {_shown(name)}")
        return None
    options: dict[str, Value] = {}
    inner = None
    for key, given in rest.items():
        option = kind.option(key)
        if key == "layer":
            continue
        if option is None:
            names = ", ".join(o.name for o in kind.options) or "no options"
            reading.refuse((*loc, key), f"Expected of {kind.name}: {names}. Received: {key!r}")
        elif option.kind == "layer":
            if not isinstance(given, Mapping):
                reading.refuse((*loc, key), f"Expected a layer. Received: {_shown(given)}")
            else:
                inner = _named(given, (*loc, key), reading, {n: LAYERS[n] for n in RECURRENT})
        else:
            value = _value(option, given, (*loc, key), reading)
            if value is not None:
                options[key] = value
    for option in kind.options:
        if option.default is None and not option.may_be_left_out and option.name not in rest:
            reading.refuse((*loc, option.name), f"Expected {option.name} for {kind.name}. Received: none")
    return Node(loc, kind, options, inner)


def _value(option: Option, given: Any, loc: Loc, reading: Reading) -> Value | None:
    if isinstance(given, Mapping):
        placeholder = _placeholder(given, loc, reading)
        if placeholder is not None and option.hyperparameter is None:
            reading.refuse(loc, f"Expected a fixed value: {option.name} can't be a hyperparameter.")
            return None
        return placeholder
    if isinstance(given, list):
        return _sizes(option, given, loc, reading)
    declared = option.hyperparameter
    if declared is None:
        reading.refuse(loc, f"Expected a list of whole numbers. Received: {_shown(given)}")
        return None
    problem = declared.problem(given) if isinstance(given, bool | int | float | str) else f"Received: {_shown(given)}"
    if problem is not None:
        reading.refuse(loc, problem)
        return None
    value: Scalar = int(given) if declared.kind == "int" else given
    return value


def _sizes(option: Option, given: list[Any], loc: Loc, reading: Reading) -> tuple[int, ...] | None:
    wanted = "two whole numbers" if option.kind == "pair" else "1 to 5 whole numbers"
    fits = option.kind in {"pair", "sizes"} and (len(given) == 2 if option.kind == "pair" else 1 <= len(given) <= 5)
    if not fits:
        message = f"Expected {wanted}" if option.kind in {"pair", "sizes"} else "Expected one value"
        reading.refuse(loc, f"{message}. Received: {_shown(given)}")
        return None
    size = Hyperparameter(option.name, "int", None, "", low=option.low, high=option.high)
    sizes = []
    for i, each in enumerate(given):
        problem = size.problem(each) if isinstance(each, bool | int | float | str) else f"Received: {_shown(each)}"
        if problem is not None:
            reading.refuse((*loc, i), problem)
            return None
        sizes.append(int(each))
    return tuple(sizes)


def _placeholder(given: Mapping[str, Any], loc: Loc, reading: Reading) -> Placeholder | None:
    name = given.get("hyperparameter")
    if set(given) != {"hyperparameter"} or not isinstance(name, str) or not name.isidentifier() or not name.isascii():
        reading.refuse(loc, f'Expected a value or {{"hyperparameter": name}}. Received: {_shown(dict(given))}')
        return None
    if len(name) > LONGEST_NAME:
        reading.refuse(loc, f"Expected a name of at most {LONGEST_NAME} characters. Received: {len(name)}")
        return None
    return Placeholder(name)


def _repeat(given: Any, loc: Loc, reading: Reading) -> int | Placeholder:
    value = _value(REPEAT, given, loc, reading)
    return value if isinstance(value, Placeholder) else 1 if value is None else int(value)  # type: ignore[arg-type]


def _when(given: Any, loc: Loc, reading: Reading) -> dict[str, tuple[Scalar, ...]]:
    if not isinstance(given, Mapping):
        reading.refuse(loc, f"Expected hyperparameters with lists of values. Received: {_shown(given)}")
        return {}
    found: dict[str, tuple[Scalar, ...]] = {}
    for name, values in given.items():
        if (
            not isinstance(values, list)
            or not values
            or not all(isinstance(v, bool | int | float | str) for v in values)
        ):
            reading.refuse((*loc, name), f"Expected a list of at least one value. Received: {_shown(values)}")
        elif _placeholder({"hyperparameter": name}, (*loc, name), reading) is not None:
            found[name] = tuple(values)
    return found


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}…"
