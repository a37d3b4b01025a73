"""L1 and L2 penalties over kernels, `l1·Σ|w| + l2·Σw²` (Keras' convention), for each member of a stack."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def penalties(weights: Any, is_kernel: Any, l1: Any, l2: Any) -> Any:
    """The penalty of each member, [K] float32: added to the loss of every batch.

    `weights` is [K, P], `is_kernel` [P] of 0 and 1, `l1` and `l2` [K], all float32.
    """
    kernels = weights * is_kernel
    return l1 * tf.reduce_sum(tf.abs(kernels), 1) + l2 * tf.reduce_sum(tf.square(kernels), 1)


def penalty_gradients(weights: Any, is_kernel: Any, l1: Any, l2: Any) -> Any:
    """The gradient of `penalties` with respect to `weights`, [K, P] float32; 0 where a weight under L1 is 0."""
    kernels = weights * is_kernel
    return l1[:, tf.newaxis] * tf.sign(kernels) + (2.0 * l2)[:, tf.newaxis] * kernels
