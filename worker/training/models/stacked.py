"""Blocks over tensors with a leading axis of K members, each with its own weights, activation and dropout rate.

No operation mixes members, so the gradient of the sum of their losses is every member's own gradient, and a member's
NaN stays with it. With K = 1 dense layers and convolutions drop the axis, for plain matrix products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from worker.training.models.layers import BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM, Augmented, Pooling, strided
from worker.training.models.stacked_sequences import StackedSequences, per_channel

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "relu": tf.nn.relu,
    "tanh": tf.tanh,
    "sigmoid": tf.sigmoid,
    "elu": tf.nn.elu,
    "gelu": lambda x: keras.activations.gelu(x, approximate=False),
    "swish": tf.nn.silu,
}
"""The activations of `app.domain.families.ACTIVATIONS`, as Keras computes them."""


def _per_member(values: Any, x: Any) -> Any:
    """[K] values, shaped to broadcast over `x`, [K, …]."""
    return tf.reshape(values, [-1] + [1] * (len(x.shape) - 1))


def _merged(x: Any) -> Any:
    """[K, B, …] as [K·B, …]."""
    return tf.reshape(x, [-1, *x.shape[2:]])


def _split(x: Any, members: int) -> Any:
    """[K·B, …] as [K, B, …]."""
    return tf.reshape(x, [members, -1, *x.shape[1:]])


@dataclass
class Stacked(StackedSequences):
    """One pass of K members; a fresh one for each trace.

    `xla` says for which compiler operations are chosen: on CPUs XLA makes matrix products fast and convolutions slow.
    `weights` and `statistics` are iterated in the order of the architecture, each [K, …]; a layer computes in the type
    of its kernel. `activations` are the names that members may have, `activation_index` [K] int32 the position of each
    one's. `masks`, a [K, B, …] float32 for each dropout, already scaled by 1/(1 - rate), and `augment` are given in
    training alone; `sample_weight`, [B] float32, is 0 for the padding of a batch and 1 otherwise. `new_statistics`
    collects the moving statistics after a training pass.
    """

    members: int
    xla: bool
    weights: Iterator[Any]
    statistics: Iterator[Any]
    activations: Sequence[str]
    activation_index: Any
    masks: Iterator[Any] | None = None
    sample_weight: Any = None
    augment: Callable[[Any, Augmented], Any] | None = None

    def __post_init__(self) -> None:
        self.new_statistics: list[Any] = []

    @property
    def training(self) -> bool:
        """Whether this is a training pass: batch statistics and dropout."""
        return self.masks is not None

    def flatten(self, x: Any) -> Any:
        return tf.reshape(x, [self.members, -1, tf.TensorShape(x.shape[2:]).num_elements()])

    def dense(self, x: Any, units: int) -> Any:  # noqa: ARG002 - the kernel knows it
        kernel, bias = next(self.weights), next(self.weights)
        return self._affine(x, kernel, bias)

    def convolution(self, x: Any, filters: int, kernel_size: int, stride: int = 1) -> Any:  # noqa: ARG002
        kernels, biases = next(self.weights), next(self.weights)
        x = tf.cast(x, kernels.dtype)
        if self.xla:
            return self._convolution_as_products(x, kernels, stride) + per_channel(biases, x)
        # Grouped convolutions have no gradient on CPUs; one convolution a member runs everywhere. The bias is added by
        # itself: oneDNN's fused gradients of several convolutions in one graph were seen to mix (tensorflow 2.21).
        pairs = zip(tf.unstack(x), tf.unstack(kernels), strict=True)
        outputs = [tf.nn.conv2d(a, kernel, stride, "SAME") for a, kernel in pairs]
        y = outputs[0][tf.newaxis] if self.members == 1 else tf.stack(outputs)
        return y + per_channel(biases, y)

    def _convolution_as_products(self, x: Any, kernels: Any, stride: int) -> Any:
        """For each row of the kernel one matrix product, over the image's columns laid side by side.

        `x` is [K, B, H, W, C], `kernels` [K, k, k, C, F]. In SAME padding the larger part lies behind.
        """
        channels, size = x.shape[-1], kernels.shape[1]
        height, width = (strided(edge, stride) for edge in x.shape[2:4])
        added = [max((n - 1) * stride + size - edge, 0) for n, edge in zip((height, width), x.shape[2:4], strict=True)]
        padded = tf.pad(x, [[0, 0], [0, 0], *([n // 2, n - n // 2] for n in added), [0, 0]])
        last_row, last_column = (height - 1) * stride + 1, (width - 1) * stride + 1
        columns = tf.concat([padded[:, :, :, j : j + last_column : stride] for j in range(size)], -1)
        rows = []
        for i in range(size):
            patches = tf.reshape(columns[:, :, i : i + last_row : stride], [self.members, -1, size * channels])
            rows.append(self._product(patches, tf.reshape(kernels[:, i], [self.members, size * channels, -1])))
        return tf.reshape(tf.add_n(rows), [self.members, -1, height, width, kernels.shape[-1]])

    def pooling(self, x: Any, kind: Pooling) -> Any:
        if not self.xla:
            pool = tf.nn.max_pool2d if kind == "max" else tf.nn.avg_pool2d
            return _split(pool(_merged(x), 2, 2, "VALID"), self.members)
        members, _, height, width, channels = x.shape
        x = x[:, :, : height // 2 * 2, : width // 2 * 2]
        x = tf.reshape(x, [members, -1, height // 2, 2, width // 2, 2, channels])
        if kind == "average":
            return tf.reduce_mean(x, [3, 5])
        # Of equal values the first takes the gradient, as in TensorFlow's own pooling.
        rows = tf.maximum(x[:, :, :, 0], x[:, :, :, 1])
        return tf.maximum(rows[:, :, :, :, 0], rows[:, :, :, :, 1])

    def global_pooling(self, x: Any, kind: Pooling, mask: Any = None) -> Any:
        if mask is not None:
            return self._masked_pooling(x, kind, mask)
        reduce = tf.reduce_max if kind == "max" else tf.reduce_mean
        return reduce(x, list(range(2, len(x.shape) - 1)))

    def add(self, x: Any, y: Any) -> Any:
        return x + y

    def augmentation(self, x: Any, kind: Augmented) -> Any:
        return x if self.augment is None else self.augment(x, kind)

    def batch_norm(self, x: Any) -> Any:
        """As Keras on the true, partial batch: rows of weight 0 take no part in the statistics (biased variance).

        In float32 whatever the precision, as Keras does.
        """
        gamma, beta = next(self.weights), next(self.weights)
        mean, variance = next(self.statistics), next(self.statistics)
        given, x = x.dtype, tf.cast(x, tf.float32)
        if self.training:
            axes = list(range(1, len(x.shape) - 1))
            weight = tf.reshape(self.sample_weight, [1, -1] + [1] * (len(x.shape) - 2))
            count = tf.reduce_sum(self.sample_weight) * float(tf.TensorShape(x.shape[2:-1]).num_elements() or 1)
            batch_mean = tf.reduce_sum(x * weight, axes) / count
            centred = x - per_channel(batch_mean, x)
            batch_variance = tf.reduce_sum(tf.square(centred) * weight, axes) / count
            keep = BATCH_NORM_MOMENTUM
            self.new_statistics += [
                mean * keep + batch_mean * (1.0 - keep),
                variance * keep + batch_variance * (1.0 - keep),
            ]
            variance = batch_variance
        else:
            centred = x - per_channel(mean, x)
        scale = gamma * tf.math.rsqrt(variance + BATCH_NORM_EPSILON)
        return tf.cast(centred * per_channel(scale, x) + per_channel(beta, x), given)

    def activation(self, x: Any) -> Any:
        """Every candidate's values, of which each member takes its own; a single member computes its own alone."""
        if self.members == 1 and len(self.activations) > 1:
            own = [partial(ACTIVATIONS[name], x) for name in self.activations]
            return tf.switch_case(self.activation_index[0], own)
        y = ACTIVATIONS[self.activations[0]](x)
        for index, name in enumerate(self.activations[1:], start=1):
            chosen = _per_member(tf.equal(self.activation_index, index), x)
            y = tf.where(chosen, ACTIVATIONS[name](x), y)
        return y

    def dropout(self, x: Any) -> Any:
        return x if self.masks is None else x * tf.cast(next(self.masks), x.dtype)
