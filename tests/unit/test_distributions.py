"""Declared parameters as Optuna draws them: every value that is declared can come out."""

from __future__ import annotations

import copy

import optuna
import pytest
from optuna.distributions import FloatDistribution

from app.domain.space import Float
from app.tuning.distributions import distribution


@pytest.mark.parametrize(
    ("low", "high", "steps"), [(0.0, 1.1, 3), (-0.11570205254145827, 0.9, 5), (0.1, 0.9, 3), (1.0, 2.0, 10)]
)
@pytest.mark.parametrize("sampler", ["random", "tpe", "qmc"])
def test_a_range_in_steps_is_drawn_to_its_end(sampler: str, low: float, high: float, steps: int) -> None:
    parameter = Float(low=low, high=high, step=(high - low) / steps)
    found = distribution(parameter)
    assert isinstance(found, FloatDistribution)
    assert (found.low, found.high, found.step) == (low, high, parameter.step)
    assert found == copy.deepcopy(found)
    made = {
        "random": lambda: optuna.samplers.RandomSampler(seed=0),
        "tpe": lambda: optuna.samplers.TPESampler(seed=0, n_startup_trials=5),
        "qmc": lambda: optuna.samplers.QMCSampler(seed=0),
    }
    study = optuna.create_study(sampler=made[sampler]())
    drawn = set()
    for _ in range(120):
        trial = study.ask({"x": found})
        drawn.add(trial.params["x"])
        study.tell(trial, -trial.params["x"])
    assert all(parameter.contains(value) for value in drawn)
    assert {round((value - low) / (high - low) * steps) for value in drawn} >= {steps, steps - 1}
    assert max(drawn) == pytest.approx(high, abs=1e-12)
