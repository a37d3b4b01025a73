"""What a trial's hyperparameters are made of."""

from __future__ import annotations

from app.domain.study import StudyDefinition
from app.tuning.suggest import complete

DEFINITION = StudyDefinition.model_validate(
    {
        "name": "conditional",
        "model": {"family": "mlp"},
        "dataset": {"name": "digits"},
        "hyperparameters": {
            "units": 32,
            "lr_schedule": {"type": "categorical", "choices": ["constant", "step"]},
            "decay_rate": {"type": "float", "low": 0.1, "high": 0.9, "when": {"lr_schedule": ["step"]}},
        },
        "objectives": [{"metric": "val_accuracy", "direction": "maximize"}],
        "budget": {"trials": 1},
    }
)


def test_defaults_lie_below_fixed_and_drawn_values() -> None:
    found = complete(DEFINITION, {"lr_schedule": "step", "decay_rate": 0.3}, {})
    assert (found["units"], found["lr_schedule"], found["decay_rate"], found["momentum"]) == (32, "step", 0.3, 0.0)


def test_a_requested_value_whose_condition_does_not_hold_is_not_used() -> None:
    assert complete(DEFINITION, {"lr_schedule": "constant"}, {"decay_rate": 0.3})["decay_rate"] == 0.5
    assert complete(DEFINITION, {"lr_schedule": "step", "decay_rate": 0.3}, {"decay_rate": 0.3})["decay_rate"] == 0.3


def test_a_requested_value_overrides_a_fixed_one() -> None:
    assert complete(DEFINITION, {"lr_schedule": "constant"}, {"units": 64})["units"] == 64
