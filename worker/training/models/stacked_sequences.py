"""Blocks on sequences over tensors with a leading axis of K members: [K, B, L] tokens, [K, B, L, width] vectors.

Each is written in matrix products and elementwise operations, which XLA and TensorFlow's own kernels both compute fast;
what no member may do is look at another one's rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from worker.training.models.sequences import LAYER_NORM_EPSILON, Positions, sinusoids
from worker.training.models.variables import Pooling

FAR_BELOW = -3e4
"""Below whatever a network computes, and within the range of 16-bit numbers: the maximum never lies in padding."""


def per_channel(values: Any, x: Any) -> Any:
    """[K, C] values, shaped to broadcast over the last axis of `x`, [K, …, C]."""
    return tf.reshape(values, [-1, *[1] * (len(x.shape) - 2), values.shape[-1]])


class StackedSequences:
    """One pass of K members over sequences, whose `weights` are iterated in the order of the architecture."""

    members: int
    xla: bool
    weights: Iterator[Any]

    def padding_mask(self, tokens: Any) -> Any:
        first = tf.constant(np.arange(tokens.shape[-1]) == 0)
        return tf.logical_or(tf.not_equal(tokens, 0), first)

    def embedding(self, tokens: Any, vocabulary: int, width: int) -> Any:
        """Rows of one table of all members': [K·V, width]. Its gradient is a sum by row, and dense."""
        tables = tf.reshape(next(self.weights), [self.members * vocabulary, width])
        own = tf.range(self.members, dtype=tokens.dtype) * vocabulary
        return tf.gather(tables, tokens + own[:, tf.newaxis, tf.newaxis])

    def positions(self, x: Any, kind: Positions) -> Any:
        if kind == "learned":
            return x + next(self.weights)[:, tf.newaxis]
        if kind == "sinusoidal":
            length, width = x.shape[2:]
            return x * math.sqrt(width) + tf.constant(sinusoids(length, width), x.dtype)
        return x

    def masked(self, x: Any, mask: Any) -> Any:
        return tf.where(mask[..., tf.newaxis], x, tf.zeros([], x.dtype))

    def convolution_1d(self, x: Any, filters: int, kernel_size: int) -> Any:
        """One matrix product of the neighbours laid side by side. In SAME padding the larger part lies behind."""
        kernels, biases = next(self.weights), next(self.weights)
        length, channels = x.shape[2:]
        before = (kernel_size - 1) // 2
        padded = tf.pad(x, [[0, 0], [0, 0], [before, kernel_size - 1 - before], [0, 0]])
        patches = tf.concat([padded[:, :, i : i + length] for i in range(kernel_size)], -1)
        return self._affine(patches, tf.reshape(kernels, [self.members, kernel_size * channels, filters]), biases)

    def attention(self, x: Any, heads: int, mask: Any) -> Any:
        width = x.shape[-1]
        kernels, biases = [], []
        for _ in ("query", "key", "value"):
            kernels.append(tf.reshape(next(self.weights), [self.members, width, width]))
            biases.append(tf.reshape(next(self.weights), [self.members, width]))
        output, bias = tf.reshape(next(self.weights), [self.members, width, width]), next(self.weights)
        projected = self._affine(x, tf.concat(kernels, 2), tf.concat(biases, 1))
        query, key, value = (self._by_head(part, heads) for part in tf.split(projected, 3, -1))
        scores = tf.matmul(query * (1.0 / math.sqrt(width // heads)), key, transpose_b=True)
        scores = tf.where(mask[:, :, tf.newaxis, tf.newaxis], scores, tf.constant(FAR_BELOW, scores.dtype))
        seen = tf.matmul(tf.nn.softmax(scores), value)
        return self._affine(tf.reshape(tf.transpose(seen, [0, 1, 3, 2, 4]), tf.shape(x)), output, bias)

    def layer_norm(self, x: Any) -> Any:
        """In float32 whatever the precision, as Keras does."""
        gamma, beta = next(self.weights), next(self.weights)
        given, x = x.dtype, tf.cast(x, tf.float32)
        centred = x - tf.reduce_mean(x, -1, keepdims=True)
        variance = tf.reduce_mean(tf.square(centred), -1, keepdims=True)
        normal = centred * tf.math.rsqrt(variance + LAYER_NORM_EPSILON)
        return tf.cast(normal * per_channel(gamma, x) + per_channel(beta, x), given)

    def _by_head(self, x: Any, heads: int) -> Any:
        """[K, B, L, heads·d] as [K, B, heads, L, d]."""
        _, _, length, width = x.shape
        return tf.transpose(tf.reshape(x, [self.members, -1, length, heads, width // heads]), [0, 1, 3, 2, 4])

    def _masked_pooling(self, x: Any, kind: Pooling, mask: Any) -> Any:
        if kind == "max":
            return tf.reduce_max(tf.where(mask[..., tf.newaxis], x, tf.constant(FAR_BELOW, x.dtype)), 2)
        count = tf.reduce_sum(tf.cast(mask, x.dtype), 2)
        return tf.reduce_sum(self.masked(x, mask), 2) / count[..., tf.newaxis]

    def _affine(self, x: Any, kernel: Any, bias: Any) -> Any:
        """`x·kernel + bias` over the last axis of [K, …, C], with [K, C, F] and [K, F], in the type of the kernel."""
        x = tf.cast(x, kernel.dtype)
        if len(x.shape) == 3:
            return self._product(x, kernel) + per_channel(bias, x)
        rows = tf.reshape(x, [self.members, -1, x.shape[-1]])
        y = self._product(rows, kernel) + per_channel(bias, rows)
        return tf.reshape(y, [self.members, -1, *x.shape[2:-1], kernel.shape[-1]])

    def _product(self, x: Any, kernel: Any) -> Any:
        """[K, N, C]·[K, C, F]; a single member's without the axis of members, for a plain matrix product."""
        return tf.matmul(x[0], kernel[0])[tf.newaxis] if self.members == 1 else tf.matmul(x, kernel)
