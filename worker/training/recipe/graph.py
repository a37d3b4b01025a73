"""A Keras model's graph as the Python calls that build it: for any family whose layers are Keras' own."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np


class NoRecipe(Exception):
    """There is no script that would train this model again; the message says why, in words for a person."""


@dataclass(frozen=True, slots=True)
class Call:
    """A layer of the model: its variable's name in the script, the layer, and the code of its arguments."""

    name: str
    layer: Any
    arguments: str


def calls(model: Any) -> tuple[str, list[Call]]:
    """The name of the model's input, and its layers in an order in which each comes after what it takes.

    Raises:
        NoRecipe: a part of the graph is no layer of Keras', or is called more than once.
    """
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise NoRecipe(f"The model has {len(model.inputs)} inputs and {len(model.outputs)} outputs, not one of each.")
    names: dict[int, str] = {id(model.inputs[0]): "raw"}
    found: list[Call] = []
    own = {id(node) for nodes in model._nodes_by_depth.values() for node in nodes}
    for operation in _operations(model):
        if type(operation) is keras.layers.InputLayer:
            continue
        _check_known(operation)
        # A layer may have been called elsewhere too, such as while it was made: what matters is what leads here.
        nodes = [node for node in operation._inbound_nodes if id(node) in own]
        if len(nodes) != 1 or len(nodes[0].output_tensors) != 1:
            raise NoRecipe(f"The layer {operation.name} is called {len(nodes)} times, not once with one result.")
        arguments = nodes[0].arguments
        code = [_code(value, names) for value in arguments.args]
        code += [f"{key}={_code(value, names)}" for key, value in arguments.kwargs.items() if value is not None]
        name = f"x{len(found) + 1}"
        names[id(nodes[0].output_tensors[0])] = name
        found.append(Call(name, operation, ", ".join(code)))
    if not found or names.get(id(model.outputs[0])) != found[-1].name:
        raise NoRecipe("The model's output is not what its last layer gives.")
    return "raw", found


def _operations(model: Any) -> list[Any]:
    """The operations of the model, inputs first."""
    return [
        operation
        for depth in sorted(model._operations_by_depth, reverse=True)
        for operation in model._operations_by_depth[depth]
    ]


def _check_known(operation: Any) -> None:
    kind = type(operation)
    if getattr(keras.layers, kind.__name__, None) is not kind:
        raise NoRecipe(f"{operation.name} is a {kind.__name__}, which is no layer of keras.layers.")


def constructor(layer: Any, **changes: str) -> str:
    """The code that makes `layer`: its configuration, without what is the default anyway.

    `changes` are arguments given as code, None to leave one out.

    Raises:
        NoRecipe: the configuration has something that has no plain spelling.
    """
    config = layer.get_config()
    parameters = _parameters(type(layer))
    parts = []
    for key, value in config.items():
        if key in changes or key in {"name", "trainable", "dtype"} or key not in parameters:
            continue
        if not _is_default(parameters[key], value):
            parts.append(f"{key}={_spelled(value, layer)}")
    parts += [f"{key}={code}" for key, code in changes.items() if code]
    return f"keras.layers.{type(layer).__name__}({', '.join(parts)})"


def _parameters(kind: type) -> Mapping[str, inspect.Parameter]:
    """The parameters of a class' constructor and of its bases', which get the rest by `**kwargs`."""
    found: dict[str, inspect.Parameter] = {}
    for base in reversed(kind.__mro__):
        if "__init__" in vars(base) and base is not object:
            found |= inspect.signature(base.__init__).parameters  # type: ignore[misc]
    return found


def _is_default(parameter: inspect.Parameter, value: Any) -> bool:
    default = parameter.default
    if default is inspect.Parameter.empty:
        return False
    if isinstance(value, dict) and "class_name" in value and isinstance(default, str):
        get: Callable[[str], Any] = {
            "initializer": keras.initializers.get,
            "regularizer": keras.regularizers.get,
            "constraint": keras.constraints.get,
        }.get(parameter.name.rpartition("_")[2], keras.activations.get)
        return _same_object(value, keras.saving.serialize_keras_object(get(default)))
    if default is None and isinstance(value, str) and value in {"linear", keras.config.image_data_format()}:
        return True
    plain = list(value) if isinstance(value, tuple) else value
    standard = list(default) if isinstance(default, tuple) else default
    if isinstance(plain, list) and isinstance(standard, int) and not isinstance(standard, bool):
        return all(item == standard for item in plain)
    return bool(plain == standard) and type(plain) is type(standard)


def _same_object(one: Mapping[str, Any], other: Any) -> bool:
    if not isinstance(other, dict):
        return False

    def settings(what: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in what["config"].items() if key != "seed"}

    return one["class_name"] == other["class_name"] and settings(one) == settings(other)


def _spelled(value: Any, layer: Any) -> str:
    """A value of a configuration as code."""
    if value is None or isinstance(value, bool | int | str):
        return repr(value)
    if isinstance(value, float):
        return repr(float(value)) if math.isfinite(value) else f"float({str(value)!r})"
    if isinstance(value, list | tuple):
        inner = ", ".join(_spelled(item, layer) for item in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' if len(value) == 1 else ''})"
    if isinstance(value, dict) and "class_name" in value:
        return _object(value, layer)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_spelled(item, layer)}" for key, item in value.items()) + "}"
    where = getattr(layer, "name", type(layer).__name__)
    raise NoRecipe(f"{where} has a {type(value).__name__} in its configuration.")


def _object(value: Mapping[str, Any], layer: Any) -> str:
    """One of Keras' initializers, regularizers, constraints or policies."""
    module, name, config = str(value.get("module")), str(value["class_name"]), value.get("config") or {}
    if name == "DTypePolicy":
        return repr(config["name"])
    public = getattr(keras, module.removeprefix("keras."), None) if module.count(".") == 1 else None
    if value.get("registered_name") not in {None, name} or getattr(public, name, None) is None:
        raise NoRecipe(f"The layer {layer.name} has a {name}, which is not Keras' own.")
    given = {key: item for key, item in config.items() if not (key == "seed" and item is None)}
    inner = ", ".join(f"{key}={_spelled(item, layer)}" for key, item in given.items())
    return f"{module}.{name}({inner})"


def seeded_code(initializer: Any, shape: tuple[int, ...]) -> str | None:
    """The code of a seeded initializer; None where what it makes is the same whenever a layer makes it.

    Raises:
        NoRecipe: a script can't draw the same numbers, of this `shape`.
    """
    if not hasattr(initializer, "seed"):
        first, second = (np.asarray(initializer(shape, dtype="float32")) for _ in range(2))
        if not np.array_equal(first, second):
            raise NoRecipe(f"A weight starts from numbers that {_name(initializer)} draws without a seed.")
        return None
    name = type(initializer).__name__
    if getattr(keras.initializers, name, None) is not type(initializer):
        raise NoRecipe(f"A weight starts from what {_name(initializer)} draws, which is no initializer of Keras'.")
    config = {key: value for key, value in initializer.get_config().items() if value is not None and key != "seed"}
    given = {**config, "seed": initializer.seed}
    return (
        f"keras.initializers.{name}({', '.join(f'{key}={_spelled(item, initializer)}' for key, item in given.items())})"
    )


def _name(initializer: Any) -> str:
    return str(getattr(initializer, "__name__", type(initializer).__name__))


def _code(value: Any, names: Mapping[int, str]) -> str:
    """An argument of a layer's call as code."""
    if id(value) in names:
        return names[id(value)]
    if isinstance(value, list | tuple):
        inner = ", ".join(_code(item, names) for item in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner},)"
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    raise NoRecipe(f"A layer is called with a {type(value).__name__}, which has no plain spelling.")
