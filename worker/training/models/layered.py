"""A definition's list of layers as a Keras model: each layer by its name, from a table, never from a configuration."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import keras

from app.domain.families import Scalar
from app.domain.layers import Impossible, Layer, expanded, outlined, read
from app.domain.layers.reading import TooMany
from app.domain.layers.table import LAYERS
from worker.trainer.trainable import Refused

Shape = tuple[int, ...]
CONSTRUCTORS: dict[str, Any] = {name: getattr(keras.layers, name) for name in LAYERS}
"""Keras' layers by the names of the allow-list."""


@lru_cache(maxsize=256)
def builder_of(layers: str) -> Callable[[Mapping[str, Scalar], Shape, int], Any]:
    """The builder of the models of a list of layers, JSON text that the service has checked."""
    nodes = read(json.loads(layers)).nodes

    def build(hyperparameters: Mapping[str, Scalar], shape: Shape, outputs: int) -> Any:
        """The model, an output layer after the others.

        Raises:
            Refused: the layers don't fit one another, or the samples.
        """
        try:
            listed = expanded(nodes, hyperparameters)
            outlined(listed, shape, outputs)
        except (Impossible, TooMany) as error:
            place = ".".join(map(str, error.loc)) if isinstance(error, Impossible) else "model.layers"
            raise Refused(f"{place}: {error}") from error
        return sequence(listed, shape, outputs)

    return build


def sequence(listed: Sequence[Layer], shape: Shape, outputs: int) -> Any:
    """The layers one after another on samples of `shape`, then a dense layer of `outputs` on all that is left."""
    features = keras.Input(shape, name="features")
    x = features
    for layer in listed:
        x = _made(layer)(x)
    if len(x.shape) != 2:
        x = keras.layers.Flatten()(x)
    return keras.Model(features, keras.layers.Dense(outputs, name="output", dtype="float32")(x), name="network")


def _made(layer: Layer) -> Any:
    options = {name: value for name, value in layer.options.items() if value is not None}
    if layer.inner is not None:
        return CONSTRUCTORS[layer.kind.name](_made(layer.inner), **options)
    return CONSTRUCTORS[layer.kind.name](**options)
