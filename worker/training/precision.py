"""Computing in half precision: what is cast, and the scaling of the loss that float16 needs.

Weights, moving statistics and optimizer slots stay in float32, as under Keras' policies of the same names (Micikevicius
et al. 2018). Kernels and biases are cast as they are used; batch normalisation computes in float32; so do the last
layer and the loss, as Keras' guide advises.

float16 loses small gradients, so the loss is scaled up before them and they are scaled down after, by the rule of
Keras' `LossScaleOptimizer`: the scale is halved by a gradient that is not finite, whose step is skipped, and doubled
after `GROWTH_STEPS` good steps. Each member has a scale of its own, so that one's overflow is not its neighbours'. As
in Keras a skipped step does not count for the schedule or for Adam's bias corrections.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from worker.training.models.layers import VariableSpec

COMPUTE: dict[str, Any] = {"float32": tf.float32, "mixed_float16": tf.float16, "mixed_bfloat16": tf.bfloat16}
"""What each precision computes in."""
INITIAL_SCALE = 2.0**15
GROWTH_STEPS = 2000.0
"""Keras' defaults."""
SCALING_SLOTS = (INITIAL_SCALE, 0.0, 0.0)
"""What a member's slots of loss scaling start from: the scale, good steps since it changed, steps skipped in all."""


def scales_loss(precision: str) -> bool:
    """Whether the loss is scaled: float16 has too few exponents, bfloat16 has float32's."""
    return precision == "mixed_float16"


def cast_weights(pieces: Sequence[Any], variables: Sequence[VariableSpec], precision: str) -> list[Any]:
    """The weights, [K, …] float32 each, as the forward pass uses them: all but normalisation's and the last layer's."""
    dtype = COMPUTE[precision]
    if dtype == tf.float32:
        return list(pieces)
    last = max((i for i, v in enumerate(variables) if v.kind == "kernel"), default=len(variables))
    kept = ("gamma", "beta")
    return [
        piece if v.kind in kept or i >= last else tf.cast(piece, dtype)
        for i, (piece, v) in enumerate(zip(pieces, variables, strict=True))
    ]


def finite(gradients: Any) -> Any:
    """Whether all of a member's gradients, [K, P], are finite: [K, 1]."""
    return tf.reduce_all(tf.math.is_finite(gradients), axis=1, keepdims=True)


def rescaled(slots: Sequence[Any], good: Any) -> list[Any]:
    """The slots of loss scaling, each [K, 1] float32, after a step whose gradients were `good`, [K, 1], or not."""
    scale, steps, skipped = slots
    grows = steps >= GROWTH_STEPS - 1
    larger, counted = tf.where(grows, scale * 2.0, scale), tf.where(grows, 0.0, steps + 1.0)
    return [
        tf.where(good, larger, scale * 0.5),
        tf.where(good, counted, tf.zeros_like(steps)),
        skipped + tf.where(good, 0.0, 1.0),
    ]
