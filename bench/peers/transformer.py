"""The peers' texts and transformer: what a user of plain Keras writes, after Keras' own example of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bench.works import Work


def tokens(work: Work, data: Path) -> Iterator[Any]:
    """Token numbers and labels of the training part, then of the validation part, out of a file of raw texts."""
    with np.load(data) as found:
        cut = keras.layers.TextVectorization(
            max_tokens=work.network["vocabulary_size"], output_sequence_length=work.network["max_length"]
        )
        cut.adapt(found["x"])
        for texts, labels in (("x", "y"), ("x_val", "y_val")):
            yield np.asarray(cut(found[texts]), np.int32)
            yield found[labels]


class Positions(keras.layers.Layer):  # type: ignore[misc]
    """Adds a trained vector to each place of a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.supports_masking = True

    def build(self, shape: tuple[int, ...]) -> None:
        self.table = self.add_weight(shape=shape[1:], initializer="uniform", name="positions")

    def call(self, x: Any) -> Any:
        return x + self.table


def transformer(work: Work, values: dict[str, Any], penalty: Any, outputs: int) -> Any:
    """The network for sampled `values`, from token numbers to logits; padding is masked by Keras."""
    network, layers = work.network, keras.layers
    width, heads = network["width"], network["heads"]
    inputs = keras.Input((network["max_length"],), dtype="int32")
    x = layers.Embedding(network["vocabulary_size"], width, mask_zero=True)(inputs)
    x = layers.Dropout(values["dropout"])(Positions()(x))
    for _ in range(network["depth"]):
        normal = layers.LayerNormalization()(x)
        seen = layers.MultiHeadAttention(heads, width // heads, kernel_regularizer=penalty)(normal, normal)
        x = layers.Add()([x, layers.Dropout(values["dropout"])(seen)])
        inner = layers.Dense(network["feed_forward"], values["activation"], kernel_regularizer=penalty)
        outer = layers.Dense(width, kernel_regularizer=penalty)
        x = layers.Add()([x, layers.Dropout(values["dropout"])(outer(inner(layers.LayerNormalization()(x))))])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(inputs, layers.Dense(outputs, kernel_regularizer=penalty)(x))
