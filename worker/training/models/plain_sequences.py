"""Blocks on sequences as built-in Keras layers and operations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import keras
from keras import ops

from app.domain.families import Scalar
from worker.training.models.sequences import LAYER_NORM_EPSILON, Positions, sinusoids
from worker.training.models.variables import Pooling

FAR_BELOW = -3e4
"""Below whatever a network computes, and within the range of 16-bit numbers: the maximum never lies in padding."""


@dataclass(frozen=True, slots=True)
class PlainSequences:
    """Makes the layers of one member on batches of sequences, [B, L] or [B, L, width]; see `plain.Plain`."""

    hyperparameters: Mapping[str, Scalar]
    numbers: Iterator[int] = field(default_factory=count)

    def _name(self, kind: str) -> str:
        return f"{kind}_{next(self.numbers)}"

    def _regularizer(self) -> Any:
        l1, l2 = float(self.hyperparameters["l1"]), float(self.hyperparameters["l2"])
        return keras.regularizers.L1L2(l1, l2) if l1 or l2 else None

    def padding_mask(self, tokens: Any) -> Any:
        return ops.logical_or(ops.not_equal(tokens, 0), ops.equal(_places(tokens), 0))

    def embedding(self, tokens: Any, vocabulary: int, width: int) -> Any:
        return keras.layers.Embedding(vocabulary, width, name=self._name("embedding"))(tokens)

    def positions(self, x: Any, kind: Positions) -> Any:
        length, width = x.shape[1:]
        if kind == "learned":
            own = keras.layers.Embedding(length, width, name=self._name("positions"))
            return keras.layers.Add()([x, own(_places(ops.max(x, axis=-1)))])
        if kind == "sinusoidal":
            scaled = keras.layers.Rescaling(math.sqrt(width))(x)
            return ops.add(scaled, ops.convert_to_tensor([sinusoids(length, width)], "float32"))
        return x

    def masked(self, x: Any, mask: Any) -> Any:
        return ops.where(ops.expand_dims(mask, -1), x, 0.0)

    def convolution_1d(self, x: Any, filters: int, kernel_size: int) -> Any:
        layer = keras.layers.Conv1D(
            filters,
            kernel_size,
            padding="same",
            kernel_regularizer=self._regularizer(),
            name=self._name("convolution"),
        )
        return layer(x)

    def attention(self, x: Any, heads: int, mask: Any) -> Any:
        layer = keras.layers.MultiHeadAttention(
            heads, x.shape[-1] // heads, kernel_regularizer=self._regularizer(), name=self._name("attention")
        )
        return layer(x, x, attention_mask=ops.expand_dims(mask, 1))

    def layer_norm(self, x: Any) -> Any:
        return keras.layers.LayerNormalization(epsilon=LAYER_NORM_EPSILON, name=self._name("layer_norm"))(x)

    def _masked_pooling(self, x: Any, kind: Pooling, mask: Any) -> Any:
        mask = ops.expand_dims(mask, -1)
        if kind == "max":
            return ops.max(ops.where(mask, x, FAR_BELOW), axis=1)
        return ops.divide(ops.sum(ops.where(mask, x, 0.0), axis=1), ops.sum(ops.cast(mask, "float32"), axis=1))


def _places(values: Any) -> Any:
    """0, 1, 2, … along the sequences of [B, L], float32."""
    return ops.subtract(ops.cumsum(ops.ones_like(values, dtype="float32"), axis=1), 1.0)
