"""The network. Only the trainer imports this."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras


def build(hyperparameters: Mapping[str, Any], shape: tuple[int, ...], outputs: int) -> keras.Model:
    """From a prepared sample of `shape` to `outputs` logits, of Keras' own layers alone: the model loads anywhere."""
    width = int(hyperparameters["width"])
    features = keras.Input(shape)
    x = keras.layers.Dense(width)(features)
    for _ in range(int(hyperparameters["blocks"])):
        y = keras.layers.LayerNormalization()(x) if hyperparameters["normalise"] else x
        gate = keras.layers.Dense(width, activation=hyperparameters["gate"])(y)
        y = keras.layers.Multiply()([keras.layers.Dense(width)(y), gate])
        y = keras.layers.Dropout(hyperparameters["drop"])(y)
        x = keras.layers.Add()([x, y])
    return keras.Model(features, keras.layers.Dense(outputs)(x))
