"""Update rules over the weights of K members, with the constants and formulas of Keras 3's optimizers.

Keras' own share one step count between all members of a stack and clip them together, so a neighbour's NaN would
spread. Here every hyperparameter is a tensor with one value a member. Weights are one [K, P] tensor: all variables of a
member laid end to end, so that a rule is a handful of operations whatever the number of layers.

Sources: Sutskever et al. 2013 (momentum, Nesterov); Kingma and Ba 2015 (Adam); Loshchilov and Hutter 2019 (decoupled
weight decay); Hinton 2012, lecture 6e (RMSprop); Pascanu et al. 2013 (clipping by the global norm).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

BETA_1 = 0.9
"""Adam's decay of the mean gradient."""
BETA_2 = 0.999
"""Adam's decay of the mean squared gradient."""
RHO = 0.9
"""RMSprop's decay of the mean squared gradient."""
EPSILON = 1e-7
"""Added to denominators."""


@dataclass(frozen=True, slots=True)
class Step:
    """What an update rule is told, one value a member, each [K, 1] float32.

    `learning_rate` is the schedule's at this step, `scale` what `step_scales` gave for it.
    """

    learning_rate: Any
    scale: Any
    momentum: Any


Slots = list[Any]
Rule = Callable[[Any, Any, Slots, Step], tuple[Any, Slots]]


@dataclass(frozen=True, slots=True)
class Optimizer:
    """An update rule: (weights, gradients, slots, step) → (weights, slots), all [K, P]; `slots` start as zeros."""

    slots: int
    rule: Rule


def step_scales(learning_rates: Any, counts: Any) -> Any:
    """Adam's step size with both bias corrections, `lr·√(1-β₂ᵗ)/(1-β₁ᵗ)`: [K, S] float64.

    `learning_rates` and `counts` are [K, S] float64; a member's first step has the count t = 1.
    """
    return learning_rates * tf.sqrt(1.0 - BETA_2**counts) / (1.0 - BETA_1**counts)


def clipped(gradients: Any, largest_norm: Any) -> Any:
    """The gradients, [K, P], each member's scaled down to at most `largest_norm`, [K]; 0 leaves a member alone.

    As Keras' `global_clipnorm`: a gradient that is not finite becomes NaN, and stays its member's own.
    """
    norm = tf.sqrt(tf.reduce_sum(tf.square(gradients), 1))
    scale = largest_norm * tf.minimum(1.0 / norm, 1.0 / largest_norm) + (norm - norm)
    return gradients * tf.where(largest_norm > 0, scale, tf.ones_like(scale))[:, tf.newaxis]


def _sgd(nesterov: bool) -> Rule:
    def rule(weights: Any, gradients: Any, slots: Slots, step: Step) -> tuple[Any, Slots]:
        descent = gradients * step.learning_rate
        velocity = slots[0] * step.momentum - descent
        return weights + (velocity * step.momentum - descent if nesterov else velocity), [velocity]

    return rule


def _adam(weights: Any, gradients: Any, slots: Slots, step: Step) -> tuple[Any, Slots]:
    mean = slots[0] + (gradients - slots[0]) * (1 - BETA_1)
    square = slots[1] + (tf.square(gradients) - slots[1]) * (1 - BETA_2)
    return weights - mean * step.scale / (tf.sqrt(square) + EPSILON), [mean, square]


def _rmsprop(weights: Any, gradients: Any, slots: Slots, step: Step) -> tuple[Any, Slots]:
    square = RHO * slots[0] + (1 - RHO) * tf.square(gradients)
    momentum = step.momentum * slots[1] + step.learning_rate * gradients / tf.sqrt(square + EPSILON)
    return weights - momentum, [square, momentum]


def optimizer(name: str, *, nesterov: bool = False) -> Optimizer:
    """The update rule of `families.OPTIMIZERS`. `adamw` is `adam`: the decay, `decayed`, is decoupled for all of them.

    Raises:
        KeyError: a name that is not in `families.OPTIMIZERS`.
    """
    adam = Optimizer(2, _adam)
    return {"sgd": Optimizer(1, _sgd(nesterov)), "adam": adam, "adamw": adam, "rmsprop": Optimizer(2, _rmsprop)}[name]


def decayed(weights: Any, weight_decay: Any, learning_rate: Any) -> Any:
    """The weights, [K, P], before the update: `w - w·decay·lr`, on all of them, biases too, as Keras does.

    `weight_decay` and `learning_rate` are [K, 1] float32.
    """
    return weights - weights * (weight_decay * learning_rate)
