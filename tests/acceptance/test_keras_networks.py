"""Keras models in programs train as `keras.Model.fit` does, alone, mapped over members, with and without XLA."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest

from app.domain.study import DatasetSpec, ModelSpec
from tests.acceptance.training_reference import (
    DIABETES,
    FEW_DIGITS,
    WINE,
    Trained,
    program_of,
    stack_of,
    trained_by_keras,
    trained_by_program,
)
from worker.trainer.protocol import TrainStack

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

UNITS = {"hyperparameter": "units"}

DENSE = [
    {"layer": "Dense", "units": UNITS, "activation": {"hyperparameter": "activation"}},
    {"layer": "Dense", "units": UNITS, "activation": "tanh", "repeat": {"hyperparameter": "blocks"}},
]
NORMALISED = [
    {"layer": "Dense", "units": UNITS},
    {"layer": "BatchNormalization"},
    {"layer": "Activation", "activation": "elu"},
    {"layer": "LayerNormalization"},
]
CONVOLUTIONS = [
    {"layer": "Conv2D", "filters": 4, "kernel_size": 3, "activation": "relu"},
    {"layer": "BatchNormalization"},
    {"layer": "MaxPooling2D"},
    {"layer": "SeparableConv2D", "filters": UNITS, "kernel_size": [2, 3], "padding": "same"},
    {"layer": "GlobalAveragePooling2D"},
]
RECURRENT = [
    {"layer": "Reshape", "target_shape": [8, 8]},
    {"layer": "Conv1D", "filters": 4, "kernel_size": 3, "activation": "relu"},
    {"layer": "Bidirectional", "of": {"layer": "LSTM", "units": UNITS, "return_sequences": True}},
    {"layer": "GRU", "units": UNITS},
]
# Name: layers, input, data set, what all members share, what each of two has of its own. No batch size divides the
# samples: the last batch is a partial one.
CASES: dict[str, tuple[list[Any], str, DatasetSpec, dict[str, Any], list[dict[str, Any]]]] = {
    "dense": (
        DENSE,
        "vector",
        WINE,
        {"units": 8, "activation": "relu", "blocks": 2, "batch_size": 64, "optimizer": "adam"},
        [{"l2": 1e-2, "l1": 1e-3, "label_smoothing": 0.1}, {"learning_rate": 3e-4, "global_clipnorm": 0.2}],
    ),
    "accumulated": (
        [DENSE[0], {"layer": "LayerNormalization"}, {"layer": "Dropout", "rate": {"hyperparameter": "rate"}}],
        "vector",
        WINE,
        {"units": 8, "activation": "relu", "batch_size": 24, "gradient_accumulation_steps": 2, "rate": 0.0},
        [{"l2": 1e-2}, {"learning_rate": 3e-4, "global_clipnorm": 0.2}],
    ),
    "normalised regression": (
        NORMALISED,
        "vector",
        DIABETES,
        {"units": 8, "batch_size": 64, "optimizer": "sgd", "nesterov": True},
        [{"momentum": 0.9, "lr_schedule": "cosine"}, {"momentum": 0.5, "weight_decay": 0.1, "learning_rate": 5e-4}],
    ),
    "convolutions": (
        CONVOLUTIONS,
        "image",
        FEW_DIGITS,
        {"units": 6, "batch_size": 64, "optimizer": "rmsprop"},
        [{"l2": 1e-2}, {"learning_rate": 3e-4, "lr_schedule": "exponential"}],
    ),
    "recurrent": (
        RECURRENT,
        "image",
        FEW_DIGITS,
        {"units": 5, "batch_size": 64, "optimizer": "adamw"},
        [{"weight_decay": 0.1}, {"learning_rate": 3e-4}],
    ),
}
RTOL, ATOL = 1e-4, 2e-6


def stack(name: str) -> TrainStack:
    layers, kind, dataset, shared, own = CASES[name]
    model = ModelSpec.model_validate({"family": "keras-layers", "input": kind, "layers": layers})
    return stack_of("keras-layers", dataset, [{**shared, **values} for values in own], model=model)


def assert_same(actual: Trained, expected: Trained) -> None:
    np.testing.assert_allclose(actual.weights, expected.weights, rtol=RTOL, atol=ATOL)
    np.testing.assert_allclose(actual.statistics, expected.statistics, rtol=RTOL, atol=ATOL)
    for mine, theirs in zip(actual.metrics, expected.metrics, strict=True):
        for name in ("loss", "score", "val_loss", "val_score", "learning_rate"):
            np.testing.assert_allclose(getattr(mine, name), getattr(theirs, name), rtol=RTOL, atol=ATOL, err_msg=name)


@pytest.mark.parametrize("name", CASES)
def test_a_list_of_layers_trains_as_keras_fit_does_alone_and_mapped_over_members(name: str) -> None:
    request = stack(name)
    alone = program_of(request, 1)
    assert alone.network.member_by_member
    references = [trained_by_keras(request, member, alone) for member in range(2)]
    # A loop within a network can't be mapped over members.
    assert alone.network.stackable == (name != "recurrent")
    for program in [alone, *([program_of(request)] if alone.network.stackable else [])]:
        for actual, expected in zip(trained_by_program(request, program), references, strict=True):
            assert_same(actual, expected)


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("name", ["dense", "normalised regression", "convolutions"])
def test_xla_trains_them_as_keras_fit_does(name: str, members: int) -> None:
    request = stack(name)
    program = program_of(request, members, xla=True)
    for member, actual in enumerate(trained_by_program(request, program)):
        assert_same(actual, trained_by_keras(request, member, program))


def test_a_rate_whose_layer_is_not_there_is_no_obstacle() -> None:
    layers = [{"layer": "Dropout", "rate": {"hyperparameter": "rate"}, "when": {"drops": [True]}}]
    model = ModelSpec.model_validate({"family": "keras-layers", "input": "vector", "layers": layers})
    shared = {"drops": False, "batch_size": 64}
    request = stack_of("keras-layers", WINE, [{**shared, "rate": rate} for rate in (0.0, 0.5)], model=model)
    request = request.model_copy(update={"members": [m.model_copy(update={"seed": 3}) for m in request.members]})
    one, other = trained_by_program(request, program_of(request))
    np.testing.assert_array_equal(one.weights, other.weights)
