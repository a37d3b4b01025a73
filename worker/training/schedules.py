"""Learning-rate schedules: closed forms of the step, chosen for each member at run time.

With `lr0` the learning rate, `r` the decay rate, `E` the epochs, `w` the warmup epochs, `d` the decay epochs,
`e = step / steps_per_epoch - w` and `t = e / (E - w)`:

- constant: `lr0`; exponential: `lr0·r^(e/d)`; step: `lr0·r^floor(e/d)`; inverse_time: `lr0/(1 + r·e/d)`
- cosine: `lr0·(a + (1-a)·(1 + cos πt)/2)` with `a` the final fraction (Loshchilov and Hutter 2017, one period)
- polynomial: `lr0·(a + (1-a)·(1-t)^p)` with `p` the power
- during warmup, whatever the schedule: `lr0·(step + 1)/(w·steps_per_epoch)`
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from app.domain.families import SCHEDULES


@dataclass(frozen=True, slots=True)
class ScheduleParameters:
    """The hyperparameters of K members, each [K] float64; `schedule` is the position in `families.SCHEDULES`, int32."""

    schedule: Any
    learning_rate: Any
    decay_rate: Any
    decay_epochs: Any
    final_fraction: Any
    power: Any
    warmup_epochs: Any
    epochs: Any


def learning_rates(parameters: ScheduleParameters, steps: Any, steps_per_epoch: int) -> Any:
    """The learning rate of each member at each of its steps: [K, S] float64 for `steps`, [K, S] float64 from 0.

    In float64, so that the step schedule falls at whole epochs and not a rounding error beside them. `t` is clipped to
    0..1, where it lies unless a member trains on beyond its epochs. A member without warmup has `warmup_epochs` 0.
    """

    def column(values: Any) -> Any:
        return values[:, tf.newaxis]

    initial, rate = column(parameters.learning_rate), column(parameters.decay_rate)
    warmup, final = column(parameters.warmup_epochs), column(parameters.final_fraction)
    one = tf.ones([], tf.float64)
    # Negative during warmup, where another formula holds: there it is taken as 0 to keep every branch finite.
    epoch = tf.maximum(steps / steps_per_epoch - warmup, 0.0)
    decays = epoch / column(parameters.decay_epochs)
    progress = tf.clip_by_value(tf.math.divide_no_nan(epoch, column(parameters.epochs) - warmup), 0.0, one)
    fractions = {
        "constant": tf.ones_like(epoch),
        "exponential": tf.pow(rate, decays),
        "step": tf.pow(rate, tf.floor(decays)),
        "cosine": final + (one - final) * (one + tf.cos(math.pi * progress)) / 2,
        "polynomial": final + (one - final) * tf.pow(one - progress, column(parameters.power)),
        "inverse_time": one / (one + rate * decays),
    }
    every = tf.stack([fractions[name] for name in SCHEDULES], axis=1)
    decayed = tf.gather(every, parameters.schedule, axis=1, batch_dims=1)
    warmup_steps = warmup * steps_per_epoch
    return initial * tf.where(steps < warmup_steps, tf.math.divide_no_nan(steps + 1, warmup_steps), decayed)
