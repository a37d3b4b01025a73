"""What a checked definition says: its defaults, its warnings, and what it accepts at the edges."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain.checks.definition import Limits, check_definition
from app.domain.checks.space import check_enqueued
from app.domain.datasets import BUNDLED
from app.domain.families import FAMILIES
from app.domain.registry import BUILT_IN
from app.domain.size import parameter_estimate
from app.domain.study import StudyDefinition

DIGITS: dict[str, Any] = {
    "name": "digits-mlp",
    "description": "",
    "labels": {"team": "vision"},
    "model": {"family": "mlp"},
    "dataset": {"name": "digits", "validation_fraction": 0.2, "test_fraction": 0.0, "split_seed": 0},
    "hyperparameters": {
        "hidden_layers": 2,
        "units": {"type": "int", "low": 32, "high": 128, "step": 32},
        "activation": {"type": "categorical", "choices": ["relu", "tanh", "sigmoid"]},
        "l1": {"type": "float", "low": 1e-7, "high": 1e-3, "log": True},
        "l2": {"type": "float", "low": 1e-7, "high": 1e-3, "log": True},
        "dropout": 0.1,
        "optimizer": "adam",
        "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
        "lr_schedule": {"type": "categorical", "choices": ["constant", "exponential", "step"]},
        "decay_rate": {"type": "float", "low": 0.1, "high": 0.9, "when": {"lr_schedule": ["exponential", "step"]}},
        "decay_epochs": 5,
        "batch_size": {"type": "categorical", "choices": [32, 64, 128]},
    },
    "training": {
        "epochs": 10,
        "seed": 0,
        "precision": "float32",
        "select_epoch": "best",
        "early_stopping": {"metric": "val_accuracy", "patience": 5, "min_delta": 0.0},
    },
    "objectives": [{"metric": "val_accuracy", "direction": "maximize", "target": None}],
    "constraints": [{"metric": "parameter_count", "max": 200000}],
    "sampler": {"name": "tpe", "options": {"seed": 0}},
    "pruner": {"name": "median", "options": {}},
    "budget": {"trials": 60, "seconds": None, "device_seconds": None, "no_improvement_trials": None},
    "execution": {
        "parallel_trials": "auto",
        "device": "auto",
        "worker_labels": {},
        "max_attempts": 3,
        "trial_timeout_seconds": None,
        "duplicates": "allow",
        "keep_models": "best",
        "priority": 0,
    },
    "warm_start": {"studies": []},
}


def check(**changes: Any) -> Any:
    return check_definition(StudyDefinition.model_validate(DIGITS | changes), Limits(), families=BUILT_IN)


def function(hyperparameters: dict[str, Any], **changes: Any) -> Any:
    definition = {
        "name": "f",
        "model": {"family": "function"},
        "objectives": [{"metric": "value"}],
        "budget": {"trials": 1},
        "hyperparameters": hyperparameters,
    }
    return check_definition(StudyDefinition.model_validate(definition | changes), Limits(), families=BUILT_IN)


def test_the_documented_definition_is_accepted_without_a_word() -> None:
    checked = check()
    assert checked.errors == ()
    assert checked.warnings == ()
    assert checked.stackable


def test_defaults_are_filled_in_and_checking_them_again_changes_nothing() -> None:
    checked = check()
    given = DIGITS["hyperparameters"]
    assert set(checked.definition.hyperparameters) == set(FAMILIES["mlp"].defaults()) | set(given)
    again = check_definition(
        StudyDefinition.model_validate_json(checked.definition.model_dump_json()), Limits(), families=BUILT_IN
    )
    assert again == checked


@pytest.mark.parametrize("family", ["mlp", "image-cnn"])
def test_every_hyperparameter_is_structural_or_runtime(family: str) -> None:
    checked = check(model={"family": family}, hyperparameters={})
    assert checked.errors == ()
    assert sorted(checked.structural + checked.runtime) == sorted(checked.definition.hyperparameters)
    assert {"batch_size", "optimizer"} <= set(checked.structural)
    assert {"l1", "learning_rate", "dropout", "activation"} <= set(checked.runtime)


def test_fixed_numbers_take_the_declared_kind() -> None:
    filled = check(hyperparameters={"units": 64.0, "dropout": 0}).definition.hyperparameters
    assert isinstance(filled["units"], int)
    assert isinstance(filled["dropout"], float)


def test_the_last_epoch_of_a_function_is_selected_unless_said_otherwise() -> None:
    assert function({"x0": 1.0}).definition.training.select_epoch == "last"
    assert function({"x0": 1.0}, training={"epochs": 3}).definition.training.select_epoch == "last"
    assert function({"x0": 1.0}, training={"select_epoch": "best"}).definition.training.select_epoch == "best"
    assert check(training={}).definition.training.select_epoch == "best"


def test_functions_that_take_different_numbers_of_coordinates_are_told_apart_by_conditions() -> None:
    axis = {"type": "float", "low": 0.0, "high": 1.0}
    both = {"type": "categorical", "choices": ["branin", "hartmann6"]}
    flat = {f"x{i}": axis for i in range(6)}
    assert [e.loc for e in function(flat | {"function": both}).errors] == [("hyperparameters", "function")]
    only = {f"x{i}": axis | {"when": {"function": ["hartmann6"]}} for i in range(2, 6)}
    assert function(flat | only | {"function": both}).errors == ()
    assert function(flat | {"function": "rastrigin"}).errors == ()


def test_regression_reports_its_own_metrics() -> None:
    checked = check(
        dataset={"name": "diabetes"},
        objectives=[{"metric": "val_mae"}, {"metric": "parameter_count"}],
        constraints=[{"metric": "generalization_gap", "max": 1.0}],
        training={"early_stopping": {"metric": "mae"}},
        budget={"trials": 1},
    )
    assert checked.errors == ()


def test_a_warning_names_what_no_trial_reads() -> None:
    searched = {"type": "float", "low": 0.1, "high": 0.9}
    checked = check(hyperparameters={"momentum": searched, "power": 2.0})
    assert checked.errors == ()
    assert [w.split()[0] for w in checked.warnings] == ["power", "momentum"]
    (warning,) = check(objectives=[{"metric": "val_accuracy", "direction": "minimize"}]).warnings
    assert "maximized" in warning
    assert "every trial" in check(hyperparameters={}).warnings[0]


def test_the_estimate_of_a_model_is_the_count_of_its_weights() -> None:
    mlp = check(hyperparameters={"hidden_layers": 2, "units": 64}).definition.hyperparameters
    assert parameter_estimate("mlp", mlp, BUNDLED["digits"]) == 65 * 64 + 65 * 64 + 65 * 10
    linear = check(hyperparameters={"hidden_layers": 0}).definition.hyperparameters
    assert parameter_estimate("mlp", linear, BUNDLED["digits"]) == 650
    cnn = {"conv_layers": 1, "filters": 4, "kernel_size": 3, "pooling": "none", "dense_units": 0}
    assert parameter_estimate("image-cnn", cnn, BUNDLED["digits"]) == 40 + (64 * 4 + 1) * 10


def test_an_enqueued_trial_takes_values_that_the_study_may_draw() -> None:
    definition = check().definition
    values, errors = check_enqueued(definition, {"units": 64.0, "l1": 1e-4, "dropout": 0.1, "lr_schedule": "step"})
    assert errors == []
    assert values == {"units": 64, "l1": 1e-4, "lr_schedule": "step"}
    assert isinstance(values["units"], int)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"units": 65}, "units"),
        ({"units": True}, "units"),
        ({"l1": "small"}, "l1"),
        ({"dropout": 0.2}, "dropout"),
        ({"batch_size": 16}, "batch_size"),
        ({"depth": 1}, "depth"),
        ({"decay_rate": 0.5, "lr_schedule": "constant"}, "decay_rate"),
    ],
)
def test_an_enqueued_trial_outside_the_space_is_refused(values: dict[str, Any], name: str) -> None:
    _, errors = check_enqueued(check().definition, values)
    assert [e.loc for e in errors] == [("hyperparameters", name)]


def test_a_stepped_float_accepts_its_steps_alone() -> None:
    definition = check(hyperparameters={"dropout": {"type": "float", "low": 0.0, "high": 0.6, "step": 0.1}}).definition
    assert check_enqueued(definition, {"dropout": 0.3})[1] == []
    assert check_enqueued(definition, {"dropout": 0.35})[1] != []
