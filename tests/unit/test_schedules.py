"""Every learning-rate schedule is the contract's closed form of the step."""

from __future__ import annotations

import math
import os
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
import tensorflow as tf

from app.domain.families import SCHEDULES
from worker.training.schedules import ScheduleParameters, learning_rates

pytestmark = pytest.mark.tensorflow

STEPS_PER_EPOCH, EPOCHS = 7, 10
RATE, R, D, A, P = 0.02, 0.3, 2.5, 0.1, 1.7

FORMULAS: dict[str, Callable[[float, float], float]] = {
    "constant": lambda e, t: RATE,
    "exponential": lambda e, t: RATE * R ** (e / D),
    "step": lambda e, t: RATE * R ** math.floor(e / D),
    "inverse_time": lambda e, t: RATE / (1 + R * e / D),
    "cosine": lambda e, t: RATE * (A + (1 - A) * (1 + math.cos(math.pi * t)) / 2),
    "polynomial": lambda e, t: RATE * (A + (1 - A) * (1 - t) ** P),
}


def expected(schedule: str, warmup: float) -> list[float]:
    rates = []
    for step in range(STEPS_PER_EPOCH * EPOCHS):
        e = step / STEPS_PER_EPOCH - warmup
        rising = RATE * (step + 1) / (warmup * STEPS_PER_EPOCH) if warmup else math.nan
        rates.append(rising if e < 0 else FORMULAS[schedule](e, e / (EPOCHS - warmup)))
    return rates


def rates_of(schedules: list[str], **changes: list[float]) -> np.ndarray:
    k = len(schedules)
    values = {
        "learning_rate": [RATE] * k,
        "decay_rate": [R] * k,
        "decay_epochs": [D] * k,
        "final_fraction": [A] * k,
        "power": [P] * k,
        "warmup_epochs": [0.0] * k,
        "epochs": [float(EPOCHS)] * k,
        **changes,
    }
    index = tf.constant([SCHEDULES.index(s) for s in schedules])
    parameters = ScheduleParameters(index, **{n: tf.constant(v, tf.float64) for n, v in values.items()})
    steps = tf.tile(tf.range(STEPS_PER_EPOCH * EPOCHS, dtype=tf.float64)[tf.newaxis], [k, 1])
    return learning_rates(parameters, steps, STEPS_PER_EPOCH).numpy()


@pytest.mark.parametrize("warmup", [0.0, 2.0, 1.5])
def test_members_with_different_schedules_each_follow_their_own_formula(warmup: float) -> None:
    rates = rates_of(list(SCHEDULES), warmup_epochs=[warmup] * len(SCHEDULES))
    for row, schedule in zip(rates, SCHEDULES, strict=True):
        np.testing.assert_allclose(row, expected(schedule, warmup), rtol=1e-12, err_msg=schedule)


def test_the_step_schedule_falls_exactly_at_its_epoch() -> None:
    rates = rates_of(["step"], decay_epochs=[3.0])[0]
    assert rates[3 * STEPS_PER_EPOCH - 1] == RATE
    assert rates[3 * STEPS_PER_EPOCH] == pytest.approx(RATE * R)


def test_extreme_parameters_give_finite_rates() -> None:
    schedules = list(SCHEDULES)
    k = len(schedules)
    assert np.isfinite(rates_of(schedules, decay_rate=[0.0] * k)).all()
    assert np.isfinite(rates_of(schedules, warmup_epochs=[float(EPOCHS)] * k)).all()
    assert np.isfinite(rates_of(schedules, epochs=[2.0] * k)).all()
