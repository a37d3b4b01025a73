"""Lists of layers that can't be built, and versions that nobody has."""

from __future__ import annotations

from typing import Any

from tests.integration.bad_input import DefinitionCase
from tests.integration.bad_input.studies import MLP, among, flt, mlp, whole

AT = ["model", "layers"]
DENSE = {"layer": "Dense", "units": 8}
POOL = {"layer": "MaxPooling2D"}


def listed(*layers: Any, **hyperparameters: Any) -> dict[str, Any]:
    """A study of digits with these layers."""
    model = {"family": "keras-layers", "layers": list(layers)}
    return MLP | {"model": model, "hyperparameters": hyperparameters}


def on(data: str, *layers: Any, **model: Any) -> dict[str, Any]:
    return listed(*layers) | {
        "dataset": {"name": data},
        "model": {"family": "keras-layers", "layers": list(layers)} | model,
    }


def named(name: Any) -> dict[str, Any]:
    return {"hyperparameter": name}


def nested(depth: int) -> dict[str, Any]:
    return {"layers": [nested(depth - 1) if depth else DENSE]}


DEFINITIONS: list[DefinitionCase] = [
    ("no layers", mlp(model={"family": "keras-layers"}), AT),
    ("an empty list of layers", listed(), AT),
    ("layers of another family", mlp(model={"family": "mlp", "layers": [DENSE]}), AT),
    ("an input of another family", mlp(model={"family": "mlp", "input": "vector"}), ["model", "input"]),
    ("text for layers", mlp(model={"family": "keras-layers", "layers": "Dense"}), AT),
    ("too many entries", listed(*[DENSE] * 257), AT),
    ("too many layers", listed({"layers": [DENSE] * 5, "repeat": 64}), AT),
    ("too many layers in a corner", listed({"layers": [DENSE] * 5, "repeat": named("n")}, n=whole(1, 64)), AT),
    ("an unknown version", mlp(model={"family": "mlp", "version": "0"}), ["model", "version"]),
    ("a number for a version", mlp(model={"family": "mlp", "version": 1}), ["model", "version"]),
    ("an unknown input", on("digits", DENSE, input="video"), ["model", "input"]),
    ("images from vectors", on("wine", DENSE, input="image"), ["dataset", "name"]),
    ("an unknown layer", listed({"layer": "Lambda"}), [*AT, 0, "layer"]),
    ("a custom layer", listed({"layer": "package>Custom"}), [*AT, 0, "layer"]),
    ("a layer's configuration", listed({"class_name": "Dense", "config": {}}), [*AT, 0]),
    ("a layer and a group", listed({"layer": "Flatten", "layers": [DENSE]}), [*AT, 0]),
    ("text for a layer", listed("Dense"), [*AT, 0]),
    ("a list for a layer's name", listed({"layer": ["Dense"]}), [*AT, 0, "layer"]),
    ("an empty group", listed({"layers": []}), [*AT, 0, "layers"]),
    ("a group with options", listed({"layers": [DENSE], "units": 3}), [*AT, 0, "units"]),
    ("groups too deep", listed(nested(9)), [*AT, 0, *["layers", 0] * 8, "layers"]),
    ("an unknown option", listed(DENSE | {"kernel_regularizer": "l2"}), [*AT, 0, "kernel_regularizer"]),
    ("no units", listed({"layer": "Dense"}), [*AT, 0, "units"]),
    ("no units in a group", listed({"layers": [DENSE, {"layer": "Dense"}]}), [*AT, 0, "layers", 1, "units"]),
    ("units of 0", listed({"layer": "Dense", "units": 0}), [*AT, 0, "units"]),
    ("half a unit", listed({"layer": "Dense", "units": 1.5}), [*AT, 0, "units"]),
    ("true for units", listed({"layer": "Dense", "units": True}), [*AT, 0, "units"]),
    ("null for units", listed({"layer": "Dense", "units": None}), [*AT, 0, "units"]),
    ("text for units", listed({"layer": "Dense", "units": "8"}), [*AT, 0, "units"]),
    ("units for a pair", listed({"layer": "Dense", "units": [8, 8]}), [*AT, 0, "units"]),
    ("an unknown activation of a layer", listed(DENSE | {"activation": "step"}), [*AT, 0, "activation"]),
    ("a rate of 1", listed({"layer": "Dropout", "rate": 1.0}), [*AT, 0, "rate"]),
    ("a kernel of three", listed({"layer": "Conv2D", "filters": 2, "kernel_size": [1, 1, 1]}), [*AT, 0, "kernel_size"]),
    (
        "a kernel of nothing",
        listed({"layer": "Conv2D", "filters": 2, "kernel_size": [1, 0]}),
        [*AT, 0, "kernel_size", 1],
    ),
    ("a number for a shape", listed({"layer": "Reshape", "target_shape": 64}), [*AT, 0, "target_shape"]),
    ("a shape of unknown size", listed({"layer": "Reshape", "target_shape": [-1]}), [*AT, 0, "target_shape", 0]),
    ("a shape to search", listed({"layer": "Reshape", "target_shape": named("s")}, s=8), [*AT, 0, "target_shape"]),
    ("both ways of nothing", listed({"layer": "Bidirectional"}), [*AT, 0, "of"]),
    ("both ways of dense", listed({"layer": "Bidirectional", "of": DENSE}), [*AT, 0, "of", "layer"]),
    ("text both ways", listed({"layer": "Bidirectional", "of": "LSTM"}), [*AT, 0, "of"]),
    ("a negative repeat", listed(DENSE | {"repeat": -1}), [*AT, 0, "repeat"]),
    ("a list for a repeat", listed(DENSE | {"repeat": [1]}), [*AT, 0, "repeat"]),
    ("a list for a condition", listed(DENSE | {"when": [True]}), [*AT, 0, "when"]),
    ("a condition without values", listed(DENSE | {"when": {"deep": []}}, deep=True), [*AT, 0, "when", "deep"]),
    ("a condition on null", listed(DENSE | {"when": {"deep": [None]}}, deep=True), [*AT, 0, "when", "deep"]),
    ("a condition on this and that", listed(DENSE | {"when": {"deep": [1, "a"]}}, deep=1), [*AT, 0, "when", "deep"]),
    (
        "a condition that never holds",
        listed({"layer": "Dense", "units": named("n")}, DENSE | {"when": {"n": ["a"]}}, n=8),
        [*AT, 1, "when", "n", 0],
    ),
    ("a hyperparameter without a name", listed({"layer": "Dense", "units": {}}), [*AT, 0, "units"]),
    ("a hyperparameter of number", listed({"layer": "Dense", "units": named(3)}), [*AT, 0, "units"]),
    ("a hyperparameter with a blank", listed({"layer": "Dense", "units": named("a b")}), [*AT, 0, "units"]),
    ("a hyperparameter with a long name", listed({"layer": "Dense", "units": named("a" * 64)}), [*AT, 0, "units"]),
    ("a hyperparameter with more", listed({"layer": "Dense", "units": named("a") | {"b": 1}}), [*AT, 0, "units"]),
    ("a hyperparameter without a value", listed({"layer": "Dense", "units": named("n")}), [*AT, 0, "units"]),
    ("a condition without a value", listed(DENSE | {"when": {"deep": [True]}}), [*AT, 0, "when", "deep"]),
    ("an optimizer's name", listed({"layer": "Dropout", "rate": named("momentum")}), [*AT, 0, "rate"]),
    (
        "uses that exclude each other",
        listed({"layer": "Dense", "units": named("n")}, {"layer": "Activation", "activation": named("n")}, n=8),
        [*AT, 1, "activation"],
    ),
    ("a fixed unit too few", listed({"layer": "Dense", "units": named("n")}, n=0), ["hyperparameters", "n"]),
    ("a range too wide", listed({"layer": "Dropout", "rate": named("r")}, r=flt()), ["hyperparameters", "r", "high"]),
    (
        "a float search of a layer's units",
        listed({"layer": "Dense", "units": named("n")}, n=flt(1.0, 8.0)),
        ["hyperparameters", "n", "type"],
    ),
    (
        "an unknown choice of a layer's",
        listed({"layer": "Activation", "activation": named("a")}, a=among("relu", "step")),
        ["hyperparameters", "a", "choices", 1],
    ),
    ("a hyperparameter that no layer has", listed(DENSE, width=8), ["hyperparameters", "width"]),
    ("dropout without a layer", listed(DENSE, dropout=0.1), ["hyperparameters", "dropout"]),
    ("a convolution of vectors", on("wine", {"layer": "Conv2D", "filters": 2, "kernel_size": 1}), [*AT, 0]),
    ("pooling to nothing", listed(*[POOL] * 4), [*AT, 3]),
    ("pooling to nothing everywhere", listed(POOL | {"repeat": named("n")}, n=whole(4, 9)), [*AT, 0]),
    ("a shape of another size", listed({"layer": "Reshape", "target_shape": [5, 5]}), [*AT, 0]),
    (
        "strides and dilation",
        listed({"layer": "Conv2D", "filters": 2, "kernel_size": 2, "strides": 2, "dilation_rate": 2}),
        [*AT, 0],
    ),
    ("unequal strides", listed({"layer": "DepthwiseConv2D", "kernel_size": 2, "strides": [1, 2]}), [*AT, 0]),
    ("a list of billions", listed({"layer": "Flatten"}, {"layer": "Dense", "units": 65_536, "repeat": 2}), AT),
    (
        "billions in a corner",
        listed({"layer": "Flatten"}, {"layer": "Dense", "units": named("n"), "repeat": 2}, n=whole(8, 65_536)),
        AT,
    ),
    (
        "samples of billions",
        listed({"layer": "Flatten"}, {"layer": "RepeatVector", "n": 4096}, {"layer": "Dense", "units": 32_768}),
        AT,
    ),
]
DEFINITIONS.append(("layers on recordings", on("spoken-digits", DENSE), ["dataset", "name"]))
DEFINITIONS.append(("layers that take recordings", on("spoken-digits", DENSE, input="audio"), ["model", "input"]))
